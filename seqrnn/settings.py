"""Which settings belong to what: those that mean nothing are reported."""

from collections.abc import Iterable, Iterator
from typing import Any

from seqrnn import config as configs
from seqrnn.config import Config

# Fields and the values that they must have, all of them.
Condition = dict[str, tuple[Any, ...]]

# A task that is not among these may use any field.
_TASKS = (
  "classification",
  "gap_model",
  "language_model",
  "polyphony",
  "tagging",
)


def _task(*names: str) -> Condition:
  return {"task": names}


def _optimizer(*names: str) -> Condition:
  return {"optimizer.name": names}


def _schedule(*names: str) -> Condition:
  return {"schedule.name": names}


_SYMBOLS = _task("classification", "gap_model", "language_model", "tagging")
_SPLIT_HERE = _SYMBOLS | {
  f"data.{split}_path": (None,) for split in ("train", "validation", "test")
}
_BOTH_SIDES = (_task("gap_model"), {"model.bidirectional": (True,)})
_WRITES = (
  _task("language_model", "polyphony"),
  _task("gap_model") | {"model.heads": ("all",)},
)
_WRITES_TEXT = (
  _task("language_model"),
  _task("gap_model") | {"model.heads": ("all",)},
)
_DETECTS = _task("gap_model", "language_model")
_ROLLBACK = {"train.on_nonfinite": ("rollback",)}
_TABLE = {"data.format": ("csv", "jsonl")}
_FORGETS = (
  "lstm",
  "odyssey",
  "odyssey_nig",
  "odyssey_nog",
  "odyssey_niaf",
  "odyssey_noaf",
  "odyssey_cifg",
  "odyssey_np",
  "odyssey_fgr",
  "layer_norm_lstm",
  "slstm",
  "min_lstm",
)

# field -> what it belongs to: one condition of these. Fields that are refused
# elsewhere where they mean nothing, and those that always count, are not here.
USED: dict[str, Condition | tuple[Condition, ...]] = {
  "data.unit": _SYMBOLS,
  "data.errors": _SYMBOLS,
  "data.split": _SPLIT_HERE,
  "data.validation_fraction": _SPLIT_HERE,
  "data.test_fraction": _SPLIT_HERE,
  "data.fold": _SYMBOLS,
  "data.label_field": _TABLE,
  "data.text_field": _TABLE,
  "data.boundaries": _SYMBOLS,
  "data.min_count": _SYMBOLS,
  "data.vocabulary_size": _SYMBOLS,
  "data.repeats": _SYMBOLS,
  "data.keep": _task("classification"),
  "model.bidirectional": _task("classification", "language_model", "tagging"),
  "model.merge": _BOTH_SIDES,
  "model.pooling": (
    _task("classification"),
    _task("language_model") | {"data.mapping": ("many_to_one",)},
  ),
  "model.letters": _task("tagging"),
  "model.forget_bias": {"model.cell": _FORGETS},
  "optimizer.decay": _optimizer("rmsprop"),
  "optimizer.momentum": _optimizer("sgd", "rmsprop"),
  "optimizer.dampened": _optimizer("sgd"),
  "optimizer.beta1": _optimizer("adam", "adamw"),
  "optimizer.beta2": _optimizer("adam", "adamw"),
  "optimizer.epsilon": _optimizer("rmsprop", "adagrad", "adam", "adamw"),
  "schedule.factor": _schedule("exponential", "step", "plateau"),
  "schedule.after": _schedule("exponential"),
  "schedule.every": _schedule("step"),
  "schedule.final": _schedule("cosine"),
  "schedule.patience": _schedule("plateau"),
  "train.class_weights": _task("classification"),
  "train.rollback_factor": _ROLLBACK,
  "train.rollbacks": _ROLLBACK,
  "predict.gap": _task("gap_model"),
  "sample.temperature": _WRITES,
  "sample.length": _WRITES,
  "sample.streams": _WRITES,
  "sample.prime": _WRITES,
  "sample.seed": _WRITES,
  "sample.top_k": _WRITES_TEXT,
  "sample.top_p": _WRITES_TEXT,
  "sample.tempo": _task("polyphony"),
  "detect.budget": _DETECTS | {"detect.rule": ("budget",)},
  "detect.false_share": _DETECTS | {"detect.rule": ("bh",)},
  "search.coarse_size": {"search.method": ("coarse",)},
  "search.pruning": {"search.method": ("tpe", "random", "grid")},
}


def unused(
  config: Config, given: Iterable[str], defaults: Config
) -> Iterator[str]:
  """A line for each field that was given and means nothing in this config.

  Args:
    config: of the run.
    given: the fields that a user set.
    defaults: those of configs/base.py; a field that has its own is no mistake.
  """
  fields, plain = configs.flat(config), configs.flat(defaults)
  for name in sorted({*given} & USED.keys()):
    belongs = USED[name]
    choices = (belongs,) if isinstance(belongs, dict) else belongs
    if fields[name] == plain[name] or any(
      _holds(condition, fields) for condition in choices
    ):
      continue
    asked = dict.fromkeys(other for way in choices for other in way)
    have = ", ".join(f"{other}={fields[other]!r}" for other in asked)
    needs = "; or ".join(
      " and ".join(
        f"{other} {' or '.join(map(configs.text, values))}"
        for other, values in way.items()
      )
      for way in choices
    )
    yield (
      f"config.{name}={fields[name]!r}: has no effect with {have}; it needs"
      f" {needs}"
    )


def _holds(condition: Condition, fields: dict[str, Any]) -> bool:
  """Whether the fields have these values, or a search may give them these."""
  return all(
    fields[name] in values
    or (name == "task" and fields[name] not in _TASKS)
    or fields.get(f"search.space.{name}") is not None
    for name, values in condition.items()
  )
