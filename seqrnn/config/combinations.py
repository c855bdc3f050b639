"""Rules about several fields of a config, whose values may conflict.

Each function has the rules of one field beside others, and calls `require` for
each of them. A field of a name is `c.GROUP.NAME`, and `is_set` reads it by its
dotted name.
"""

import functools
from collections.abc import Callable

from seqrnn import catalogue
from seqrnn.config.field import Config
from seqrnn.errors import UserError

# A condition, the fields that it is about, and the rule in words.
Require = Callable[[bool, tuple[str, ...], str], None]

_MOST = 2**24  # Symbols of all texts, where repeats are excluded.
_BOTH = "set one of the two"


def check_combinations(config: Config):
  """Refuses values that conflict.

  Raises:
    UserError: names the fields of the first conflict, their values, the rule.
  """
  for rule in RULES:
    rule(config, functools.partial(_require, config))


def _require(config: Config, holds: bool, fields: tuple[str, ...], text: str):
  if not holds:
    pairs = (f"config.{name}={value_of(config, name)!r}" for name in fields)
    raise UserError(f"{', '.join(pairs)}: {text}")


def value_of(config: Config, name: str) -> object:
  """Returns the value of a field by its dotted name."""
  return functools.reduce(getattr, name.split("."), config)


def is_set(config: Config, name: str) -> bool:
  """Returns whether a field is neither empty, nor false, nor 0."""
  return value_of(config, name) not in (None, False, 0, "")


def data_offset(c: Config, require: Require):
  require(
    not (c.data.offset and c.data.random_offset),
    ("data.offset", "data.random_offset"),
    "the offset must be either fixed or random",
  )


def data_stateful(c: Config, require: Require):
  if not c.data.stateful:
    return
  for name in ("data.step", "data.offset", "data.random_offset"):
    require(
      not is_set(c, name),
      ("data.stateful", name),
      "a stream reads every symbol, so it has no step and no offset",
    )
  require(
    c.data.buckets is None,
    ("data.stateful", "data.buckets"),
    "streams have no padding, which buckets reduce",
  )
  require(
    c.data.repeats != "weight",
    ("data.stateful", "data.repeats"),
    "a stream reads all documents in order and cannot weight them",
  )
  require(
    c.data.mapping != "many_to_one",
    ("data.stateful", "data.mapping"),
    "only many_to_many hands its carry from batch to batch",
  )


def data_buckets(c: Config, require: Require):
  require(
    not (c.data.random_offset and c.data.buckets),
    ("data.random_offset", "data.buckets"),
    "each epoch would have other lengths, and compile other programs",
  )


def data_lowercase(c: Config, require: Require):
  require(
    not c.data.lowercase or c.data.unit in ("char", "word"),
    ("data.lowercase", "data.unit"),
    "only characters and words have a lower case",
  )


def data_punctuation(c: Config, require: Require):
  if c.data.punctuation:
    require(
      c.data.unit == "word",
      ("data.punctuation", "data.unit"),
      "only words are separated from punctuation",
    )
    require(
      c.data.format not in ("columns", "conllu", "parallel"),
      ("data.punctuation", "data.format"),
      "each word of the file has a tag, so a word cannot be separated",
    )


def data_path(c: Config, require: Require):
  splits = "data.train_path", "data.validation_path", "data.test_path"
  for name in ("data.path", *splits):
    require(
      not is_set(c, name) or c.data.source == "files",
      (name, "data.source"),
      "only your own files have a path",
    )
  for name in splits:
    require(
      not (c.data.path and is_set(c, name)),
      ("data.path", name),
      "set data.path alone, or a path for each split",
    )


def data_format(c: Config, require: Require):
  """Which units a format of labels or tags has."""
  form, unit = c.data.format, c.data.unit
  fields, texts = ("data.format", "data.unit"), ("char", "byte", "word")
  require(
    form != "parallel" or bool(c.data.tags_file),
    ("data.format", "data.tags_file"),
    "parallel files need the name of the file with the tags, as '*.tags'",
  )
  tagged = form in ("columns", "conllu", "parallel")
  require(not tagged or unit == "word", fields, "each word has a tag")
  spaces = form == "spaces"
  require(not spaces or unit == "char", fields, "each character has a tag")
  why = "a labelled text has no other unit"
  labelled = form in ("tab", "space", "jsonl", "folders", "files")
  require(not labelled or unit in texts, fields, why)
  labelled = c.data.source in ("packages", "names")
  require(not labelled or unit in texts, ("data.source", "data.unit"), why)
  require(
    form != "csv" or unit in (*texts, "session"),
    fields,
    "a table has texts or events of sessions",
  )


def data_source(c: Config, require: Require):
  source, unit, fields = (
    c.data.source,
    c.data.unit,
    ("data.source", "data.unit"),
  )
  formal = source == "formal"
  require(not formal or unit == "char", fields, "strings consist of characters")
  require(
    source != "opcodes" or unit in ("session", "id"),
    fields,
    "a symbol is an opcode",
  )


def data_unit(c: Config, require: Require):
  """Which fields go with a log."""
  is_log = c.data.unit == "log"
  require(
    not is_log or c.data.format == "text",
    ("data.unit", "data.format"),
    "a log must be read with data.format=text",
  )
  for name in ("data.log_header", "data.log_format", "data.log_session"):
    require(
      is_log or not is_set(c, name), (name, "data.unit"), "only logs have it"
    )
  known = catalogue.sets().get(c.data.source)
  public = known is not None and known.fields.get("unit") == "log"
  require(
    not is_log or c.data.source == "files" or public,
    ("data.unit", "data.source"),
    "a log must be read with data.source=files, or a public log (loghub_...)",
  )


def data_log_header(c: Config, require: Require):
  require(
    not c.data.log_header or c.data.log_format in (None, "plain"),
    ("data.log_header", "data.log_format"),
    "a header is itself the format of a line",
  )


def spelling(c: Config, require: Require):
  """The rules of `model.letters` and `model.affixes`."""
  for name in ("model.letters", "model.affixes"):
    for needed, holds in (
      ("data.unit", c.data.unit == "word"),
      ("model.embedding_size", bool(c.model.embedding_size)),
    ):
      require(
        not is_set(c, name) or holds,
        (name, needed),
        "the spelling of a word stands beside its embedding",
      )
  require(
    not (c.model.letters and c.model.affixes),
    ("model.letters", "model.affixes"),
    "words are read by their characters or by their affixes",
  )


def model_crf(c: Config, require: Require):
  require(
    not (c.model.crf and c.train.label_smoothing),
    ("model.crf", "train.label_smoothing"),
    "a CRF has no loss of a single tag that could be smoothed",
  )
  require(
    not (c.model.crf and c.data.source == "formal"),
    ("model.crf", "data.source"),
    "a CRF needs a tag for each symbol, and only the blanks have one",
  )


def model_tied(c: Config, require: Require):
  require(
    not (c.model.tied and c.model.parameters),
    ("model.tied", "model.parameters"),
    "tied weights fix the hidden size to model.embedding_size",
  )


def model_embedding_size(c: Config, require: Require):
  """Which fields need an embedding."""
  for name, why in (
    ("model.tied", "tied weights need an embedding"),
    ("model.embedding_path", "an embedding needs a size"),
    ("data.unlabelled_path", "the vectors need a size"),
    ("model.embedding_scale", "an embedding needs a size"),
    (
      "model.convolution",
      "it reads an embedding, as with model.embedding_size=8",
    ),
  ):
    require(
      not is_set(c, name) or bool(c.model.embedding_size),
      (name, "model.embedding_size"),
      why,
    )


def embedding_values(c: Config, require: Require):
  """Only one field gives values to the embedding."""
  embedding, other = "model.embedding_path", "train.start_from"
  unlabelled = "data.unlabelled_path"
  for pair in (
    (unlabelled, embedding),
    (unlabelled, other),
    (other, embedding),
  ):
    require(
      not all(is_set(c, name) for name in pair),
      pair,
      f"{_BOTH}; both give values to the embedding",
    )


def task(c: Config, require: Require):
  """Which fields a task excludes."""
  gap = c.task == "gap_model"
  require(
    not (gap and c.data.stateful),
    ("task", "data.stateful"),
    "the backward tower has no carry to hand on; use task='language_model'",
  )
  require(
    not (gap and c.data.mapping == "many_to_one"),
    ("task", "data.mapping"),
    "it predicts every symbol of a window",
  )
  predicts = c.task in ("language_model", "gap_model", "polyphony")
  require(
    not (predicts and c.model.convolution),
    ("task", "model.convolution"),
    "it reads symbols that follow, which are targets",
  )
  labels = c.task in ("classification", "regression", "tagging")
  weighted = c.data.repeats == "weight"
  why = "each text is read by itself and has labels of its own"
  require(not (labels and c.data.stateful), ("task", "data.stateful"), why)
  require(not (labels and weighted), ("task", "data.repeats"), why)


def task_polyphony(c: Config, require: Require):
  for name in (
    *("data.mapping", "model.bidirectional", "model.embedding_size"),
    *("model.symbol_dropout", "train.label_smoothing"),
  ):
    usual = is_set(c, name) and value_of(c, name) != "many_to_many"
    require(
      not (c.task == "polyphony" and usual),
      ("task", name),
      "frames of notes go straight into a causal network",
    )


def model_heads(c: Config, require: Require):
  require(
    not (c.model.heads == "all" and c.model.tied),
    ("model.heads", "model.tied"),
    "one embedding cannot be the softmax kernel of three heads",
  )


def optimizer_nesterov(c: Config, require: Require):
  require(
    not c.optimizer.nesterov or bool(c.optimizer.momentum),
    ("optimizer.nesterov", "optimizer.momentum"),
    "Nesterov's momentum must be above 0",
  )


def train_batches_per_epoch(c: Config, require: Require):
  require(
    not (c.train.batches_per_epoch and c.train.samples_per_epoch),
    ("train.batches_per_epoch", "train.samples_per_epoch"),
    f"{_BOTH}, or neither for all windows",
  )


def train_freeze(c: Config, require: Require):
  require(
    c.train.freeze != "taken" or bool(c.train.start_from),
    ("train.freeze", "train.start_from"),
    "nothing is taken from another run; set train.start_from",
  )


def sample(c: Config, require: Require):
  """The rules of the fields of `sample`."""
  s = c.sample
  require(
    not (s.prompts and s.prime),
    ("sample.prompts", "sample.prime"),
    f"{_BOTH}; each has texts to continue",
  )
  for name in ("sample.pattern", "sample.schema"):
    require(
      not (s.stop and is_set(c, name)),
      ("sample.stop", name),
      "a match ends by itself",
    )
  require(
    not (s.pattern and s.schema),
    ("sample.pattern", "sample.schema"),
    f"{_BOTH}; a schema is a pattern",
  )
  require(
    s.prompts is None or s.streams == 1,
    ("sample.prompts", "sample.streams"),
    "each prompt has one sample",
  )
  require(
    not s.no_repeat or s.length * s.streams <= _MOST,
    ("sample.no_repeat", "sample.length", "sample.streams"),
    "repeats are found among at most 2**24 symbols of all texts",
  )


def predict_text(c: Config, require: Require):
  both = c.predict.text and c.predict.path
  require(not both, ("predict.text", "predict.path"), _BOTH)


def detect_labels(c: Config, require: Require):
  require(
    not (c.detect.anomalous_path and c.detect.labels),
    ("detect.anomalous_path", "detect.labels"),
    f"{_BOTH}; both mark anomalous sessions",
  )


def split_fractions(c: Config, require: Require):
  require(
    c.data.validation_fraction + c.data.test_fraction < 1,
    ("data.validation_fraction", "data.test_fraction"),
    "their sum must be below 1, to leave a training split",
  )


def data_label_column(c: Config, require: Require):
  text, label = c.data.text_column, c.data.label_column
  require(
    not text or text != label,
    ("data.text_column", "data.label_column"),
    "must be two columns",
  )
  require(
    "," not in (label or "") or c.task == "regression",
    ("task", "data.label_column"),
    "only task=regression reads several columns; a text or word has one label",
  )


RULES = (
  *(data_offset, data_stateful, data_buckets, data_lowercase),
  *(data_punctuation, data_path, data_format, data_source, data_unit),
  *(data_log_header, split_fractions, data_label_column),
  *(spelling, model_crf, model_tied, model_embedding_size, embedding_values),
  *(task, task_polyphony, model_heads, optimizer_nesterov),
  *(train_batches_per_epoch, train_freeze, sample, predict_text),
  detect_labels,
)
