"""Rules about several fields of the config, whose values may conflict."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

from seqrnn import catalogue
from seqrnn.errors import UserError
from seqrnn.settings.fields import as_float32


class Conflict(NamedTuple):
  """Fields whose values may exclude each other.

  Attributes:
    names: the names of the fields.
    holds: a function of the values of these fields: whether they conflict.
    rule: the rule in words, for the error.
  """

  names: tuple[str, ...]
  holds: Callable[..., bool]
  rule: str


def _exclusive(*names: str, rule: str) -> Conflict:
  """Makes the conflict of two fields of which at most one may be set."""
  return Conflict(names, lambda a, b: None not in (a, b), rule)


def _excludes(name: str, value: Any, *others: str, rule: str) -> list[Conflict]:
  """Makes the conflicts of one value of a field with any value of others."""
  return [
    Conflict(
      (name, other), lambda v, o: v == value and o not in (None, False, 0), rule
    )
    for other in others
  ]


def _has_logs(source: str) -> bool:
  known = catalogue.sets().get(source)
  return (
    source == "files"
    or known is not None
    and (known.fields.get("unit") == "log")
  )


_LOG_CUTS = (
  "data.log_session",
  "data.log_gap",
  "data.log_lines",
  "data.log_session_key",
)

# The first conflict that holds is reported.
CONFLICTS: list[Conflict] = [
  *(
    Conflict(
      (name, "data.window"),
      lambda rows, window: rows * window > 2**24,
      "a batch must not have more than 2**24 symbols",
    )
    for name in ("train.batch_size", "sample.streams")
  ),
  Conflict(
    ("sample.prompts", "sample.prime"),
    lambda prompts, prime: prompts is not None and prime != "",
    "set one of the two; each has texts to continue",
  ),
  Conflict(
    ("sample.prompts", "sample.streams"),
    lambda prompts, streams: prompts is not None and streams > 1,
    "each prompt has one sample",
  ),
  Conflict(
    ("sample.no_repeat", "sample.length", "sample.streams"),
    lambda n, length, streams: n is not None and length * streams > 2**24,
    "repeats are found among at most 2**24 symbols of all texts",
  ),
  Conflict(
    ("sample.min_length", "sample.length"),
    lambda low, high: low > high,
    "the minimum must not exceed the length",
  ),
  *(
    Conflict(
      ("sample.min_length", name),
      lambda low, pattern: low > 0 and pattern is not None,
      "the pattern says how long a text is",
    )
    for name in ("sample.pattern", "sample.schema")
  ),
  *(
    _exclusive("sample.stop", f"sample.{name}", rule="a match ends by itself")
    for name in ("pattern", "schema")
  ),
  _exclusive(
    "train.batches_per_epoch",
    "train.samples_per_epoch",
    rule="set one of the two, or neither for all windows",
  ),
  Conflict(
    ("data.offset", "data.random_offset"),
    lambda offset, random: random and offset > 0,
    "the offset must be either fixed or random",
  ),
  *_excludes(
    "data.stateful",
    True,
    *("data.step", "data.offset", "data.random_offset"),
    rule="a stream reads every symbol, so it has no step and no offset",
  ),
  *_excludes(
    "data.stateful",
    True,
    "data.buckets",
    rule="streams have no padding, which buckets reduce",
  ),
  Conflict(
    ("data.unit", "data.source"),
    lambda unit, source: unit == "log" and not _has_logs(source),
    "a log must be read with data.source=files, or a public log (loghub_...)",
  ),
  Conflict(
    ("data.unit", "data.format"),
    lambda unit, given: unit == "log" and given != "text",
    "a log must be read with data.format=text",
  ),
  Conflict(
    ("data.lowercase", "data.unit"),
    lambda lower, unit: lower and unit not in ("char", "word"),
    "only characters and words have a lower case",
  ),
  Conflict(
    ("data.punctuation", "data.unit"),
    lambda apart, unit: apart and unit != "word",
    "only words are separated from punctuation",
  ),
  Conflict(
    ("data.punctuation", "data.format"),
    lambda apart, given: apart and given in ("columns", "conllu", "parallel"),
    "each word of the file has a tag, so a word cannot be separated",
  ),
  Conflict(
    ("data.min_length", "data.max_length"),
    lambda low, high: None not in (low, high) and low > high,
    "the minimum must not exceed the maximum",
  ),
  Conflict(
    ("data.format", "data.tags_file"),
    lambda given, tags: given == "parallel" and tags is None,
    "parallel files need the name of the file with the tags, as '*.tags'",
  ),
  Conflict(
    ("data.text_column", "data.label_column"),
    lambda word, tag: word is not None and word == tag,
    "a word and its tag stand in different columns",
  ),
  *(
    _exclusive(*pair, rule="set only one way to cut a log into sessions")
    for pair in combinations(_LOG_CUTS, 2)
  ),
  *(
    Conflict(
      ("data.unit", name),
      lambda unit, given: unit != "log" and given is not None,
      "the field is only for logs, with data.unit=log",
    )
    for name in ("data.log_header", "data.log_format", *_LOG_CUTS)
  ),
  Conflict(
    ("data.log_header", "data.log_format"),
    lambda header, name: header is not None and name not in (None, "plain"),
    "a header is itself the format of a line",
  ),
  Conflict(
    ("data.stateful", "data.repeats"),
    lambda stateful, repeats: stateful and repeats != "each",
    "a stream reads all documents in order and cannot weight them",
  ),
  *_excludes(
    "data.random_offset",
    True,
    "data.buckets",
    rule="each epoch would have other lengths, and compile other programs",
  ),
  Conflict(
    ("data.validation_fraction", "data.test_fraction"),
    lambda validation, test: validation + test >= 1,
    "their sum must be below 1, to leave a training split",
  ),
  _exclusive(
    "detect.anomalous_path",
    "detect.labels",
    rule="set one of the two; both mark anomalous sessions",
  ),
  _exclusive(
    "sample.pattern",
    "sample.schema",
    rule="set one of the two; a schema is made a pattern",
  ),
  Conflict(
    ("model.tied", "model.embedding_size"),
    lambda tied, size: tied and size is None,
    "tied weights need an embedding",
  ),
  Conflict(
    ("model.input_noise", "task"),
    lambda noise, task: noise > 0 and task != "polyphony",
    "noise is added to frames of notes, which only task='polyphony' reads",
  ),
  Conflict(
    ("model.heads", "task"),
    lambda heads, task: heads == "all" and task != "gap_model",
    "only task='gap_model' has several heads",
  ),
  *_excludes(
    "model.heads",
    "all",
    "model.tied",
    rule="one embedding cannot be the softmax kernel of three heads",
  ),
  _exclusive(
    "model.letters",
    "model.affixes",
    rule="words are read by their characters or by their affixes",
  ),
  *_excludes(
    "model.crf",
    True,
    "train.label_smoothing",
    rule="a CRF has no loss of a single tag that could be smoothed",
  ),
  *_excludes(
    "model.tied",
    True,
    "model.parameters",
    rule="tied weights fix the hidden size to model.embedding_size",
  ),
  Conflict(
    ("model.crf", "data.source"),
    lambda crf, source: crf and source == "formal",
    "a CRF needs a tag for each symbol, and only the blanks have one",
  ),
  *(
    Conflict(
      (f"model.embedding_{name}", "model.embedding_size"),
      lambda value, size: bool(value) and size is None,
      "an embedding needs a size",
    )
    for name in ("path", "scale")
  ),
  _exclusive(
    "train.start_from",
    "model.embedding_path",
    rule="set one of the two; both give values to the embedding",
  ),
  Conflict(
    ("train.freeze", "train.start_from"),
    lambda parts, start: "taken" in (parts or "").split(",") and start is None,
    "nothing is taken from another run; set train.start_from",
  ),
  Conflict(
    ("optimizer.nesterov", "optimizer.momentum"),
    lambda nesterov, momentum: nesterov and as_float32(momentum) == 0,
    "Nesterov's momentum must be above 0",
  ),
  Conflict(
    ("optimizer.nesterov", "optimizer.name"),
    lambda nesterov, name: nesterov and name != "sgd",
    "only sgd has Nesterov's momentum",
  ),
]


class ConflictError(UserError):
  """Fields have values that exclude each other."""


def conflicts(
  fields: dict[str, Any],
) -> Iterator[tuple[tuple[str, ...], str]]:
  """Yields the names and a message of each conflict among all fields."""
  for names, holds, rule in CONFLICTS:
    values = [fields[name] for name in names]
    if holds(*values):
      given = zip(names, values, strict=True)
      listed = ", ".join(f"config.{name}={value!r}" for name, value in given)
      yield names, f"{listed}: {rule}"
