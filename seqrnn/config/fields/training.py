"""Optimizer, schedule, training and checkpoints."""

from seqrnn.config import rules
from seqrnn.config.field import choice, group, input_path
from seqrnn.config.fields import conditions as when

FIELDS = group(
  "optimizer",
  name=choice("adam rmsprop sgd adagrad adamw", "The optimizer."),
  learning_rate=rules.number(
    lambda v: 0 < v <= 1e4, "above 0, at most 10,000", 2e-3
  )("The rate before its schedule."),
  decay=rules.SHARE(
    "Decay of the mean square.", when.optimizer("rmsprop"), default=0.9
  ),
  momentum=rules.SHARE("Momentum.", when.optimizer("sgd", "rmsprop")),
  nesterov=rules.SWITCH("Use Nesterov's momentum.", when.optimizer("sgd")),
  dampened=rules.SWITCH("Gradients times 1 - momentum.", when.optimizer("sgd")),
  epsilon=rules.POSITIVE(
    "Added to the divisor of an update.",
    when.optimizer("rmsprop", "adagrad", "adam", "adamw"),
    default=1e-8,
  ),
  weight_decay=rules.NOT_NEGATIVE(
    "AdamW: the decoupled decay, times the learning rate. Others: L2.",
    default=0.0,
  ),
  layer_decay=rules.ABOVE_0(
    "A layer's rate as a share of that of the layer above.", default=1.0
  ),
  clip_norm=rules.POSITIVE("The maximum global norm of the gradients."),
  clip_value=rules.POSITIVE("The maximum magnitude of a gradient entry."),
)

FIELDS |= group(
  "schedule",
  name=choice(
    "constant exponential step cosine linear plateau",
    "The learning rate. exponential: times `factor` each epoch from `after` on."
    " step: times `factor` every `after` epochs. cosine, linear: to 0 at the"
    " last step. plateau: times `factor` if `after` evaluations gain nothing.",
  ),
  warmup_steps=rules.NATURAL("Steps of linear warmup, at first.", default=0),
  factor=rules.ABOVE_0(
    "The factor that lowers the learning rate.", when.FACTOR, default=0.5
  ),
  after=rules.COUNT(
    "Epochs, or for plateau evaluations, as schedule.name explains.",
    when.FACTOR,
    default=2,
  ),
)

FIELDS |= group(
  "train",
  batch_size=rules.ROWS("B, the batch size of all devices.", default=64),
  cpu_devices=rules.integer(1, 64)(
    "CPU devices of a process. Empty: 2 for small layers, else 1."
    " JAX_NUM_CPU_DEVICES takes precedence."
  ),
  cpu_threads=rules.integer(1, 1024)(
    "CPU threads of a process. Empty: a thread a core. PJRT_NPROC wins."
  ),
  epochs=rules.COUNT("The maximum number of epochs.", default=10),
  fit_to_data=rules.FITTED(
    "The fields, or all, that a small training split changes: smaller batches,"
    " more epochs and more dropout. With data.repeats=weight, more steps. With"
    " data.stateful also its width. Fields set by a flag stay."
  ),
  max_steps=rules.COUNT("The maximum number of steps."),
  batches_per_epoch=rules.COUNT("The batches of an epoch. Empty: all windows."),
  samples_per_epoch=rules.COUNT("The windows of an epoch. Empty: all."),
  start_from=input_path(
    "The workdir of a run with the same cell, from whose best checkpoint the"
    " new run takes the parameters that fit."
  ),
  freeze=rules.PARTS(
    "Parts that do not learn: embedding, letters (also affixes), convolution,"
    " layer1 and so on, layers, head, or taken (all from train.start_from)."
  ),
  eval_every=rules.COUNT("Steps between evaluations. Empty: an epoch."),
  adapt_to_length=rules.SWITCH(
    "Limit train.eval_every to an epoch, schedule.warmup_steps to a tenth of"
    " the steps, and train.ema to an average over a fifth of them."
  ),
  choice=choice(
    "best last all",
    "The checkpoint that other modes read: that of the lowest validation loss,"
    " or the last one, where few texts validate. all: the last one, and the"
    " labelled texts of validation are trained on, as train.refit does.",
  ),
  refit=rules.SWITCH(
    "Then train again, as many steps, on training and validation texts; other"
    " modes read these parameters.",
    when.ONE_TARGET,
  ),
  patience=rules.COUNT("Stop after this many evaluations without improvement."),
  label_smoothing=rules.SHARE("The share of a target spread over all symbols."),
  ema=rules.BETWEEN_0_1("Use averaged parameters, with this decay a step."),
  tensorboard=rules.SWITCH("Write for TensorBoard (extra `tensorboard`)."),
)

FIELDS |= group(
  "checkpoint",
  keep=rules.COUNT("The latest checkpoints to keep, and the best.", default=2),
  every=rules.COUNT("Steps between checkpoints. Empty: only at evaluations."),
  step=rules.NATURAL("The step of the checkpoint to read. Empty: the best."),
)
