"""Rules about several fields of a config, whose values may conflict.

Each function has the rules of some fields beside others. A field of a name is
`c.GROUP.NAME`, and `value_of` reads it by its dotted name.
"""

import functools
from collections.abc import Container

from seqrnn import catalogue
from seqrnn.config.field import Config
from seqrnn.errors import UserError

_MOST = 2**24  # Symbols of all texts, where repeats are excluded.
_BOTH = "set one of the two"
Values = Container[object] | str  # Names in a text are separated by blanks.
UNSET = None, False, 0, ""


class _Set:
  """All values but those of UNSET."""

  def __contains__(self, value: object) -> bool:
    return value not in UNSET


SET = _Set()


def check_combinations(config: Config):
  """Refuses values that conflict.

  Raises:
    UserError: names the fields of the first conflict, their values, the rule.
  """
  for rule in RULES:
    rule(config)


def require(config: Config, holds: object, why: str, *fields: str):
  """Refuses the values of the fields, by a rule in words, unless it holds."""
  if not holds:
    pairs = (f"config.{name}={value_of(config, name)!r}" for name in fields)
    raise UserError(f"{', '.join(pairs)}: {why}")


def exclude(config: Config, one: str, other: str, why: str):
  """Refuses two fields that are both set."""
  need(config, one, SET, other, UNSET, why)


def need(
  config: Config, one: str, given: Values, other: str, allowed: Values, why: str
):
  """Refuses a value of `given` beside a value that is not of `allowed`."""
  given, allowed = (
    values.split() if isinstance(values, str) else values
    for values in (given, allowed)
  )
  if value_of(config, one) in given:
    require(config, value_of(config, other) in allowed, why, one, other)


def value_of(config: Config, name: str) -> object:
  """Returns the value of a field by its dotted name."""
  return functools.reduce(getattr, name.split("."), config)


def windows(c: Config):
  """The rules of windows and streams."""
  why = "the offset must be either fixed or random"
  exclude(c, "data.offset", "data.random_offset", why)
  why = "a stream reads every symbol, so it has no step and no offset"
  for name in ("data.step", "data.offset", "data.random_offset"):
    exclude(c, "data.stateful", name, why)
  why = "streams have no padding, which buckets reduce"
  exclude(c, "data.stateful", "data.buckets", why)
  why = "a stream reads all documents in order and cannot weight them"
  need(c, "data.stateful", SET, "data.repeats", "each", why)
  why = "only many_to_many hands its carry from batch to batch"
  need(c, "data.stateful", SET, "data.mapping", "many_to_many", why)
  why = "each epoch would have other lengths, and compile other programs"
  exclude(c, "data.random_offset", "data.buckets", why)


def texts(c: Config):
  """The rules of `data.lowercase` and `data.punctuation`."""
  why = "only characters and words have a lower case"
  need(c, "data.lowercase", SET, "data.unit", "char word", why)
  why = "only words are separated from punctuation"
  need(c, "data.punctuation", SET, "data.unit", "word", why)
  if c.data.punctuation:
    why = "each word of the file has a tag, so a word cannot be separated"
    holds = c.data.format not in ("columns", "conllu", "parallel")
    require(c, holds, why, "data.punctuation", "data.format")


def paths(c: Config):
  splits = "data.train_path", "data.validation_path", "data.test_path"
  for name in ("data.path", *splits):
    why = "only your own files have a path"
    need(c, name, SET, "data.source", "files", why)
  for name in splits:
    why = "set data.path alone, or a path for each split"
    exclude(c, "data.path", name, why)


def units(c: Config):
  """Which units a format of labels or tags has, and a source."""
  form, unit, texts = "data.format", "data.unit", "char byte word"
  why = "parallel files need the name of the file with the tags, as '*.tags'"
  need(c, form, "parallel", "data.tags_file", SET, why)
  need(c, form, "columns conllu parallel", unit, "word", "each word has a tag")
  need(c, form, "spaces", unit, "char", "each character has a tag")
  why = "a labelled text has no other unit"
  need(c, form, "tab space jsonl folders files", unit, texts, why)
  need(c, "data.source", "packages names", unit, texts, why)
  why = "a table has texts or events of sessions"
  need(c, form, "csv", unit, f"{texts} session", why)
  why = "strings consist of characters"
  need(c, "data.source", "formal", "data.unit", "char", why)
  why = "a symbol is an opcode"
  need(c, "data.source", "opcodes", "data.unit", "session id", why)


def logs(c: Config):
  """Which fields go with a log."""
  why = "a log must be read with data.format=text"
  need(c, "data.unit", "log", "data.format", "text", why)
  for name in ("data.log_header", "data.log_format", "data.log_session"):
    need(c, name, SET, "data.unit", "log", "only logs have it")
  public = catalogue.sets().items()
  logs = [name for name, known in public if known.fields.get("unit") == "log"]
  why = (
    "a log must be read with data.source=files, or a public log (loghub_...)"
  )
  need(c, "data.unit", "log", "data.source", ["files", *logs], why)
  why = "a header is itself the format of a line"
  need(c, "data.log_header", SET, "data.log_format", (None, "plain"), why)


def splits(c: Config):
  """The rules of splits, and of columns."""
  holds = c.data.validation_fraction + c.data.test_fraction < 1
  why = "their sum must be below 1, to leave a training split"
  require(c, holds, why, "data.validation_fraction", "data.test_fraction")
  text, label = c.data.text_column, c.data.label_column
  fields = "data.text_column", "data.label_column"
  require(c, not text or text != label, "must be two columns", *fields)
  holds = "," not in (label or "") or c.task == "regression"
  why = (
    "only task=regression reads several columns; a text or word has one label"
  )
  require(c, holds, why, "task", "data.label_column")


def spelling(c: Config):
  """The rules of `model.letters` and `model.affixes`."""
  why = "the spelling of a word stands beside its embedding"
  for name in ("model.letters", "model.affixes"):
    need(c, name, SET, "data.unit", "word", why)
    need(c, name, SET, "model.embedding_size", SET, why)
  why = "words are read by their characters or by their affixes"
  exclude(c, "model.letters", "model.affixes", why)


def outputs(c: Config):
  """The rules of a CRF and of tied weights."""
  why = "a CRF has no loss of a single tag that could be smoothed"
  exclude(c, "model.crf", "train.label_smoothing", why)
  why = "a CRF needs a tag for each symbol, and only the blanks have one"
  holds = not (c.model.crf and c.data.source == "formal")
  require(c, holds, why, "model.crf", "data.source")
  why = "tied weights fix the hidden size to model.embedding_size"
  exclude(c, "model.tied", "model.parameters", why)


def embedding(c: Config):
  """Which fields need an embedding, and which give it values."""
  convolution = "it reads an embedding, as with model.embedding_size=8"
  for name, why in (
    ("model.tied", "tied weights need an embedding"),
    ("model.embedding_path", "an embedding needs a size"),
    ("data.unlabelled_path", "the vectors need a size"),
    ("model.embedding_scale", "an embedding needs a size"),
    ("model.convolution", convolution),
  ):
    need(c, name, SET, "model.embedding_size", SET, why)
  vectors, other = "model.embedding_path", "train.start_from"
  unlabelled = "data.unlabelled_path"
  why = f"{_BOTH}; both give values to the embedding"
  exclude(c, unlabelled, vectors, why)
  exclude(c, unlabelled, other, why)
  exclude(c, other, vectors, why)


def task(c: Config):
  """Which fields a task excludes."""
  why = "the backward tower has no carry to hand on; use task='language_model'"
  need(c, "task", "gap_model", "data.stateful", UNSET, why)
  why = "it predicts every symbol of a window"
  need(c, "task", "gap_model", "data.mapping", "many_to_many", why)
  why = "it reads symbols that follow, which are targets"
  predicts = "language_model gap_model polyphony"
  need(c, "task", predicts, "model.convolution", UNSET, why)
  why = "each text is read by itself and has labels of its own"
  labels = "classification regression tagging"
  need(c, "task", labels, "data.stateful", UNSET, why)
  need(c, "task", labels, "data.repeats", "each", why)
  why = "frames of notes go straight into a causal network"
  need(c, "task", "polyphony", "data.mapping", "many_to_many", why)
  for name in (
    *("model.bidirectional", "model.embedding_size"),
    *("model.symbol_dropout", "train.label_smoothing"),
  ):
    need(c, "task", "polyphony", name, UNSET, why)
  why = "one embedding cannot be the softmax kernel of three heads"
  need(c, "model.heads", "all", "model.tied", UNSET, why)


def training(c: Config):
  why = "Nesterov's momentum must be above 0"
  need(c, "optimizer.nesterov", SET, "optimizer.momentum", SET, why)
  why = f"{_BOTH}, or neither for all windows"
  exclude(c, "train.batches_per_epoch", "train.samples_per_epoch", why)
  why = "nothing is taken from another run; set train.start_from"
  need(c, "train.freeze", "taken", "train.start_from", SET, why)


def modes(c: Config):
  """The rules of sampling, prediction and detection."""
  why = f"{_BOTH}; each has texts to continue"
  exclude(c, "sample.prompts", "sample.prime", why)
  for name in ("sample.pattern", "sample.schema"):
    exclude(c, "sample.stop", name, "a match ends by itself")
  why = f"{_BOTH}; a schema is a pattern"
  exclude(c, "sample.pattern", "sample.schema", why)
  why = "each prompt has one sample"
  need(c, "sample.prompts", SET, "sample.streams", [1], why)
  few = c.sample.length * c.sample.streams <= _MOST
  fields = "sample.no_repeat", "sample.length", "sample.streams"
  why = "repeats are found among at most 2**24 symbols of all texts"
  require(c, not c.sample.no_repeat or few, why, *fields)
  exclude(c, "predict.text", "predict.path", _BOTH)
  why = f"{_BOTH}; both mark anomalous sessions"
  exclude(c, "detect.anomalous_path", "detect.labels", why)


RULES = (
  *(windows, texts, paths, units, logs, splits, spelling, outputs, embedding),
  *(task, training, modes),
)
