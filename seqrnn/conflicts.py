"""Fields of the config whose values exclude each other."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

from seqrnn.fields import as_float32


class Conflict(NamedTuple):
  """Fields whose values may exclude each other.

  Attributes:
    names: of the fields.
    holds: a function of their values, in this order: whether they do.
    rule: what is required, in words.
  """

  names: tuple[str, ...]
  holds: Callable[..., bool]
  rule: str


def _both(*names: str, rule: str) -> Conflict:
  """Two fields of which only one may have a value other than None."""
  return Conflict(names, lambda a, b: None not in (a, b), rule)


def _with(name: str, value: Any, *others: str, rule: str) -> list[Conflict]:
  """A value of a field with which none of the others may be set."""
  return [
    Conflict(
      (name, other),
      lambda v, o: v == value and o not in (None, False, 0),
      rule,
    )
    for other in others
  ]


_CUTS = ("data.log_session", "data.log_gap", "data.log_lines")

# The first conflict that holds is reported.
CONFLICTS: list[Conflict] = [
  *(
    Conflict(
      (name, "data.window"),
      lambda rows, window: rows * window > 2**24,
      "together they must not be more than 2**24 symbols",
    )
    for name in ("train.batch_size", "sample.streams")
  ),
  _both(
    "train.batches_per_epoch",
    "train.samples_per_epoch",
    rule="set one of the two, or neither for all windows",
  ),
  Conflict(
    ("data.offset", "data.random_offset"),
    lambda offset, random: random and offset > 0,
    "the offset is fixed or random, not both",
  ),
  *_with(
    "data.stateful",
    True,
    *("data.step", "data.offset", "data.random_offset"),
    rule="streams have no step and no offset, they miss nothing",
  ),
  *_with(
    "data.stateful",
    True,
    "data.buckets",
    rule="streams have no padding that buckets would save",
  ),
  *(
    Conflict(
      ("data.unit", name),
      lambda unit, given, value=value: unit == "log" and given != value,
      f"logs are read with {name}={value}",
    )
    for name, value in (("data.source", "files"), ("data.format", "text"))
  ),
  *(
    _both(*pair, rule="give one way to cut a log into sessions")
    for pair in combinations(_CUTS, 2)
  ),
  *(
    Conflict(
      ("data.unit", name),
      lambda unit, given: unit != "log" and given is not None,
      "it is for logs, which data.unit=log reads",
    )
    for name in ("data.log_header", *_CUTS)
  ),
  Conflict(
    ("data.stateful", "data.repeats"),
    lambda stateful, repeats: stateful and repeats != "each",
    "a stream reads all documents as they stand",
  ),
  *_with(
    "data.random_offset",
    True,
    "data.buckets",
    rule="each epoch would have other lengths, to compile for",
  ),
  Conflict(
    ("data.validation_fraction", "data.test_fraction"),
    lambda validation, test: validation + test >= 1,
    "together they must leave something to train on",
  ),
  _both(
    "detect.anomalous_path",
    "detect.labels",
    rule="give one of the two, both say which sessions are anomalous",
  ),
  Conflict(
    ("model.tied", "model.embedding_size"),
    lambda tied, size: tied and size is None,
    "tied weights need an embedding",
  ),
  Conflict(
    ("model.input_noise", "task"),
    lambda noise, task: noise > 0 and task != "polyphony",
    "noise is added to frames of notes, which task='polyphony' has",
  ),
  Conflict(
    ("model.heads", "task"),
    lambda heads, task: heads == "all" and task != "gap_model",
    "only task='gap_model' has a head for each side",
  ),
  *_with(
    "model.heads",
    "all",
    "model.tied",
    rule="one embedding cannot be the softmax of three heads",
  ),
  *_with(
    "model.tied",
    True,
    "model.parameters",
    rule="the hidden size of tied weights is that of the embedding",
  ),
  Conflict(
    ("model.embedding_dropout", "model.embedding_size"),
    lambda dropout, size: dropout > 0 and size is None,
    "there must be an embedding to drop symbols from",
  ),
  _both(
    "train.ema",
    "train.asgd",
    rule="set one of the two, or neither to evaluate the newest parameters",
  ),
  Conflict(
    ("train.patience", "train.asgd"),
    lambda patience, asgd: None not in (patience, asgd) and patience <= asgd,
    "training must not end before the averaging begins",
  ),
  Conflict(
    ("optimizer.nesterov", "optimizer.momentum"),
    lambda nesterov, momentum: nesterov and as_float32(momentum) == 0,
    "Nesterov's is a form of momentum, which must be above 0",
  ),
  Conflict(
    ("optimizer.nesterov", "optimizer.name"),
    lambda nesterov, name: nesterov and name != "sgd",
    "only sgd has Nesterov's momentum",
  ),
]


def conflicts(fields: dict[str, Any]) -> Iterator[str]:
  """A line for each conflict among the values of all fields."""
  for names, holds, rule in CONFLICTS:
    values = [fields[name] for name in names]
    if holds(*values):
      given = zip(names, values, strict=True)
      listed = ", ".join(f"config.{name}={value!r}" for name, value in given)
      yield f"{listed}: {rule}"
