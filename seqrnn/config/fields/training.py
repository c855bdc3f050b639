"""Optimizer, schedule, training and checkpoints."""

from seqrnn.config import rules
from seqrnn.config.field import Field, group, input_path, optional
from seqrnn.config.fields import conditions as when

OPTIMIZER = group(
  "optimizer",
  name=Field(
    "adam",
    rules.choice("rmsprop", "sgd", "adagrad", "adam", "adamw"),
    "The optimizer.",
  ),
  learning_rate=Field(
    2e-3, rules.POSITIVE, "The learning rate, before the schedule's factor."
  ),
  decay=Field(
    0.9, rules.BELOW_1, "Decay of the mean square.", when.optimizer("rmsprop")
  ),
  momentum=Field(
    0.0, rules.BELOW_1, "Momentum of updates.", when.optimizer("sgd", "rmsprop")
  ),
  nesterov=Field(False, rules.SWITCH, "Use Nesterov's momentum (SGD)."),
  dampened=Field(
    False, rules.SWITCH, "Gradients times 1 - momentum.", when.optimizer("sgd")
  ),
  epsilon=Field(
    1e-8,
    rules.POSITIVE,
    "Added to the divisor of an update.",
    when.optimizer("rmsprop", "adagrad", "adam", "adamw"),
  ),
  weight_decay=Field(
    0.0,
    rules.NOT_NEGATIVE,
    "AdamW: the decoupled decay, times the learning rate. Others: the L2"
    " penalty.",
  ),
  layer_decay=Field(
    1.0, rules.ABOVE_0, "A layer's rate as a share of that of the layer above."
  ),
  clip_norm=optional(
    float, rules.POSITIVE, "The maximum global norm of the gradients."
  ),
  clip_value=optional(
    float, rules.POSITIVE, "The maximum magnitude of a gradient entry."
  ),
)

SCHEDULE = group(
  "schedule",
  name=Field(
    "constant",
    rules.choice(
      "constant", "exponential", "step", "cosine", "linear", "plateau"
    ),
    "The learning rate. exponential: times `factor` each epoch from `after`"
    " on. step: times `factor` every `after` epochs. cosine, linear: to 0 at"
    " the last step. plateau: times `factor` after `after` evaluations without"
    " improvement.",
  ),
  warmup_steps=Field(
    0, rules.NATURAL, "The steps of linear warmup before the schedule."
  ),
  factor=Field(
    0.5,
    rules.ABOVE_0,
    "The factor that lowers the learning rate.",
    when.schedule("exponential", "step", "plateau"),
  ),
  after=Field(
    2,
    rules.COUNT,
    "Epochs, or for plateau evaluations, as schedule.name explains.",
    when.schedule("exponential", "step", "plateau"),
  ),
)

TRAIN = group(
  "train",
  batch_size=Field(
    64, rules.COUNT, "B, the batch size of all devices together."
  ),
  cpu_devices=optional(
    int,
    rules.integer(1, 64, "1 to 64"),
    "CPU devices of a process. Empty: 2 for small layers, else 1."
    " JAX_NUM_CPU_DEVICES takes precedence.",
  ),
  cpu_threads=optional(
    int,
    rules.integer(1, 1024, "1 to 1024"),
    "CPU threads of a process. Empty: a thread a core. PJRT_NPROC takes"
    " precedence.",
  ),
  epochs=Field(10, rules.COUNT, "The maximum number of epochs."),
  fit_to_data=optional(
    str,
    rules.FITTED,
    "The fields, or all, that a small training split changes: smaller"
    " batches, more epochs and more dropout. With data.repeats=weight, more"
    " steps. Fields set by a flag stay.",
  ),
  max_steps=optional(int, rules.COUNT, "The maximum number of steps."),
  batches_per_epoch=optional(
    int, rules.COUNT, "The batches of an epoch. Empty: all windows."
  ),
  samples_per_epoch=optional(
    int, rules.COUNT, "The windows of an epoch. Empty: all."
  ),
  class_weights=Field(
    "none",
    rules.choice("none", "balanced"),
    "balanced: all labels have the same total weight in training.",
    (when.CLASSIFICATION,),
  ),
  start_from=input_path(
    "The workdir of a run with the same cell, from whose best checkpoint the"
    " new run takes the parameters that fit."
  ),
  freeze=optional(
    str,
    rules.PARTS,
    "The parts that do not learn: embedding, letters (also affixes), layer1,"
    " layer2 and so on, layers, head, or taken (all from train.start_from).",
  ),
  eval_every=optional(
    int, rules.COUNT, "Steps between evaluations. Empty: an epoch."
  ),
  adapt_to_length=Field(
    False,
    rules.SWITCH,
    "Limit train.eval_every to an epoch, schedule.warmup_steps to a tenth of"
    " the steps, and train.ema to an average over a fifth of them.",
  ),
  patience=optional(
    int, rules.COUNT, "Stop after this many evaluations without improvement."
  ),
  label_smoothing=Field(
    0.0, rules.BELOW_1, "The share of a target spread over all symbols."
  ),
  ema=optional(
    float, rules.BETWEEN_0_1, "Use averaged parameters, with this decay a step."
  ),
  tensorboard=Field(
    False, rules.SWITCH, "Write figures for TensorBoard (extra `tensorboard`)."
  ),
)

CHECKPOINT = group(
  "checkpoint",
  keep=Field(
    2, rules.COUNT, "The latest checkpoints to keep, besides the best."
  ),
  every=optional(
    int, rules.COUNT, "Steps between checkpoints. Empty: only at evaluations."
  ),
  step=optional(
    int, rules.NATURAL, "The step of the checkpoint to read. Empty: the best."
  ),
)
