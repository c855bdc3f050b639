"""How parameters change, how long, and what is kept."""

from seqrnn.config.field import (
  ABOVE_0,
  BELOW_1,
  BETWEEN_0_1,
  COUNT,
  FITTED,
  NATURAL,
  NOT_EMPTY,
  NOT_NEGATIVE,
  PARTS,
  POSITIVE,
  READ,
  SWITCH,
  Field,
  choice,
  integer,
  optional,
)
from seqrnn.config.fields.conditions import (
  CLASSIFICATION,
  group,
  optimizer,
  schedule,
)

OPTIMIZER = group(
  "optimizer",
  name=Field(
    "adam",
    choice("rmsprop", "sgd", "adagrad", "adam", "adamw"),
    "The optimizer.",
  ),
  learning_rate=Field(
    2e-3, POSITIVE, "The learning rate, before the schedule's factor."
  ),
  decay=Field(
    0.9, BELOW_1, "The decay of the mean square.", optimizer("rmsprop")
  ),
  momentum=Field(
    0.0, BELOW_1, "The momentum of updates.", optimizer("sgd", "rmsprop")
  ),
  nesterov=Field(False, SWITCH, "Use Nesterov's momentum (SGD)."),
  dampened=Field(
    False,
    SWITCH,
    "Multiply gradients by 1 - momentum, so that the momentum does not change"
    " the size of updates.",
    optimizer("sgd"),
  ),
  epsilon=Field(
    1e-8,
    POSITIVE,
    "Added to the divisor of an update.",
    optimizer("rmsprop", "adagrad", "adam", "adamw"),
  ),
  weight_decay=Field(
    0.0,
    NOT_NEGATIVE,
    "AdamW: the decoupled weight decay, multiplied by the learning rate"
    " (Loshchilov & Hutter 2019). Other optimizers: the L2 penalty, added to"
    " the clipped gradients.",
  ),
  layer_decay=Field(
    1.0,
    ABOVE_0,
    "The learning rate of a layer as a share of that of the layer above it, or"
    " of the head (ULMFiT: Howard & Ruder 2018, 1/2.6).",
  ),
  clip_norm=optional(
    float, POSITIVE, "The maximum global norm of the gradients."
  ),
  clip_value=optional(
    float, POSITIVE, "The maximum magnitude of each gradient entry."
  ),
)

SCHEDULE = group(
  "schedule",
  name=Field(
    "constant",
    choice("constant", "exponential", "step", "cosine", "linear", "plateau"),
    "The schedule of the learning rate. exponential: multiply it by `factor`"
    " after each epoch from `after` on. step: multiply it by `factor` every"
    " `after` epochs. cosine, linear: lower it to 0 until the last step."
    " plateau: multiply it by `factor` after `after` evaluations without a"
    " better validation loss.",
  ),
  warmup_steps=Field(
    0, NATURAL, "The steps of linear warmup before the schedule."
  ),
  factor=Field(
    0.5,
    ABOVE_0,
    "The factor by which a schedule lowers the learning rate.",
    schedule("exponential", "step", "plateau"),
  ),
  after=Field(
    2,
    COUNT,
    "exponential: the first epoch of decay. step: the epochs between decreases."
    " plateau: the evaluations without a better loss.",
    schedule("exponential", "step", "plateau"),
  ),
)

TRAIN = group(
  "train",
  batch_size=Field(64, COUNT, "B, the batch size of all devices together."),
  cpu_devices=optional(
    int,
    integer(1, 64, "1 to 64"),
    "The number of CPU devices of a process. Empty: 2 if layers are small, else"
    " 1. JAX_NUM_CPU_DEVICES takes precedence.",
  ),
  cpu_threads=optional(
    int,
    integer(1, 1024, "1 to 1024"),
    "The number of threads that a process computes with on a CPU. Empty: one"
    " for each core; several workers of a search divide the cores. PJRT_NPROC"
    " takes precedence.",
  ),
  epochs=Field(10, COUNT, "The maximum number of epochs."),
  fit_to_data=optional(
    str,
    FITTED,
    "Fields that the size of the training split changes: all, or some of"
    " train.batch_size, train.batches_per_epoch, train.epochs and"
    " model.dropout, separated by commas. A small set has smaller batches, more"
    " epochs and more dropout than the config says, a large one what it says."
    " With data.repeats=weight, up to 512 different windows are one batch, and"
    " training has 240 steps or more."
    " Fields that a flag sets are kept. Empty: none.",
  ),
  max_steps=optional(int, COUNT, "The maximum number of steps."),
  batches_per_epoch=optional(
    int, COUNT, "The number of batches of an epoch. Empty: all windows."
  ),
  samples_per_epoch=optional(
    int, COUNT, "The number of windows of an epoch. Empty: all windows."
  ),
  class_weights=Field(
    "none",
    choice("none", "balanced"),
    "The weights of labels. balanced: all labels have the same total weight in"
    " training.",
    (CLASSIFICATION,),
  ),
  start_from=optional(
    str,
    NOT_EMPTY,
    "The workdir of a trained run with the same cell. The new run starts from"
    " the parts of its best checkpoint that fit, and prints them. Empty: from"
    " random values.",
    place=READ,
  ),
  freeze=optional(
    str,
    PARTS,
    "The parts of the model that do not learn, separated by commas: embedding,"
    " letters (of model.letters or model.affixes), layer1 (the layer that reads"
    " the input, in each direction), layer2 and so on, layers (all), head, or"
    " taken (what train.start_from has given, without new rows of symbols and"
    " labels).",
  ),
  eval_every=optional(
    int, COUNT, "Steps between evaluations. Empty: an epoch."
  ),
  adapt_to_length=Field(
    False,
    SWITCH,
    "Limit fields to the length of the training: train.eval_every to an epoch,"
    " schedule.warmup_steps to a tenth of all steps, and train.ema to an"
    " average over a fifth of them, 1 / (1 - ema) steps. A line names what is"
    " limited, and config.json has the limits.",
  ),
  patience=optional(
    int, COUNT, "Stop early after so many evaluations without improvement."
  ),
  label_smoothing=Field(
    0.0,
    BELOW_1,
    "The share of each target that training spreads over all symbols or labels"
    " (Szegedy et al. 2016).",
  ),
  ema=optional(
    float,
    BETWEEN_0_1,
    "Evaluate and save an exponential moving average of the parameters, in"
    " which those of n steps ago have weight ema^n.",
  ),
  tensorboard=Field(
    False,
    SWITCH,
    "Write metrics, samples and histograms for TensorBoard at each evaluation"
    " (extra `tensorboard`).",
  ),
)

CHECKPOINT = group(
  "checkpoint",
  keep=Field(
    2, COUNT, "The number of latest checkpoints to keep, besides the best."
  ),
  every=optional(
    int, COUNT, "Steps between checkpoints. Empty: only at evaluations."
  ),
  step=optional(
    int, NATURAL, "The step of the checkpoint to read. Empty: the best."
  ),
)
