"""Rules about several fields of a config, whose values may conflict.

Each function has the rules of one field beside others. A field of a name is
`c.GROUP.NAME`, and `is_set` reads it by its dotted name.
"""

import functools

from seqrnn import catalogue
from seqrnn.config.field import Config
from seqrnn.errors import UserError

_MOST = 2**24  # Symbols of all texts, where repeats are excluded.
_BOTH = "set one of the two"


def check_combinations(config: Config):
  """Refuses values that conflict.

  Raises:
    UserError: names the fields of the first conflict, their values, the rule.
  """
  for rule in RULES:
    rule(config)


def require(config: Config, holds: object, text: str, *fields: str):
  """Refuses the values of the fields, by a rule in words, unless it holds."""
  if not holds:
    pairs = (f"config.{name}={value_of(config, name)!r}" for name in fields)
    raise UserError(f"{', '.join(pairs)}: {text}")


def exclude(config: Config, one: str, other: str, text: str):
  """Refuses two fields that are both set."""
  both = is_set(config, one) and is_set(config, other)
  require(config, not both, text, one, other)


def value_of(config: Config, name: str) -> object:
  """Returns the value of a field by its dotted name."""
  return functools.reduce(getattr, name.split("."), config)


def is_set(config: Config, name: str) -> bool:
  """Returns whether a field is neither empty, nor false, nor 0."""
  return value_of(config, name) not in (None, False, 0, "")


def data_offset(c: Config):
  why = "the offset must be either fixed or random"
  exclude(c, "data.offset", "data.random_offset", why)


def data_stateful(c: Config):
  if not c.data.stateful:
    return
  why = "a stream reads every symbol, so it has no step and no offset"
  for name in ("data.step", "data.offset", "data.random_offset"):
    exclude(c, "data.stateful", name, why)
  why = "streams have no padding, which buckets reduce"
  exclude(c, "data.stateful", "data.buckets", why)
  why = "a stream reads all documents in order and cannot weight them"
  holds = c.data.repeats != "weight"
  require(c, holds, why, "data.stateful", "data.repeats")
  why = "only many_to_many hands its carry from batch to batch"
  holds = c.data.mapping != "many_to_one"
  require(c, holds, why, "data.stateful", "data.mapping")


def data_buckets(c: Config):
  why = "each epoch would have other lengths, and compile other programs"
  exclude(c, "data.random_offset", "data.buckets", why)


def data_lowercase(c: Config):
  holds = not c.data.lowercase or c.data.unit in ("char", "word")
  why = "only characters and words have a lower case"
  require(c, holds, why, "data.lowercase", "data.unit")


def data_punctuation(c: Config):
  if c.data.punctuation:
    why = "only words are separated from punctuation"
    require(c, c.data.unit == "word", why, "data.punctuation", "data.unit")
    holds = c.data.format not in ("columns", "conllu", "parallel")
    why = "each word of the file has a tag, so a word cannot be separated"
    require(c, holds, why, "data.punctuation", "data.format")


def data_path(c: Config):
  splits = "data.train_path", "data.validation_path", "data.test_path"
  for name in ("data.path", *splits):
    holds = not is_set(c, name) or c.data.source == "files"
    require(c, holds, "only your own files have a path", name, "data.source")
  for name in splits:
    why = "set data.path alone, or a path for each split"
    exclude(c, "data.path", name, why)


def data_format(c: Config):
  """Which units a format of labels or tags has."""
  form, unit = c.data.format, c.data.unit
  fields, texts = ("data.format", "data.unit"), ("char", "byte", "word")
  holds = form != "parallel" or c.data.tags_file
  why = "parallel files need the name of the file with the tags, as '*.tags'"
  require(c, holds, why, "data.format", "data.tags_file")
  tagged = form in ("columns", "conllu", "parallel")
  require(c, not tagged or unit == "word", "each word has a tag", *fields)
  spaces = form == "spaces"
  require(c, not spaces or unit == "char", "each character has a tag", *fields)
  why = "a labelled text has no other unit"
  labelled = form in ("tab", "space", "jsonl", "folders", "files")
  require(c, not labelled or unit in texts, why, *fields)
  labelled = c.data.source in ("packages", "names")
  require(c, not labelled or unit in texts, why, "data.source", "data.unit")
  holds = form != "csv" or unit in (*texts, "session")
  require(c, holds, "a table has texts or events of sessions", *fields)


def data_source(c: Config):
  source, unit, fields = (
    c.data.source,
    c.data.unit,
    ("data.source", "data.unit"),
  )
  holds = source != "formal" or unit == "char"
  require(c, holds, "strings consist of characters", *fields)
  holds = source != "opcodes" or unit in ("session", "id")
  require(c, holds, "a symbol is an opcode", *fields)


def data_unit(c: Config):
  """Which fields go with a log."""
  is_log = c.data.unit == "log"
  why = "a log must be read with data.format=text"
  holds = not is_log or c.data.format == "text"
  require(c, holds, why, "data.unit", "data.format")
  for name in ("data.log_header", "data.log_format", "data.log_session"):
    holds = is_log or not is_set(c, name)
    require(c, holds, "only logs have it", name, "data.unit")
  known = catalogue.sets().get(c.data.source)
  public = known is not None and known.fields.get("unit") == "log"
  holds = not is_log or c.data.source == "files" or public
  why = (
    "a log must be read with data.source=files, or a public log (loghub_...)"
  )
  require(c, holds, why, "data.unit", "data.source")


def data_log_header(c: Config):
  holds = not c.data.log_header or c.data.log_format in (None, "plain")
  why = "a header is itself the format of a line"
  require(c, holds, why, "data.log_header", "data.log_format")


def spelling(c: Config):
  """The rules of `model.letters` and `model.affixes`."""
  why = "the spelling of a word stands beside its embedding"
  for name in ("model.letters", "model.affixes"):
    unset = not is_set(c, name)
    require(c, unset or c.data.unit == "word", why, name, "data.unit")
    needed = "model.embedding_size"
    require(c, unset or is_set(c, needed), why, name, needed)
  why = "words are read by their characters or by their affixes"
  exclude(c, "model.letters", "model.affixes", why)


def model_crf(c: Config):
  why = "a CRF has no loss of a single tag that could be smoothed"
  exclude(c, "model.crf", "train.label_smoothing", why)
  holds = not (c.model.crf and c.data.source == "formal")
  why = "a CRF needs a tag for each symbol, and only the blanks have one"
  require(c, holds, why, "model.crf", "data.source")


def model_tied(c: Config):
  why = "tied weights fix the hidden size to model.embedding_size"
  exclude(c, "model.tied", "model.parameters", why)


def model_embedding_size(c: Config):
  """Which fields need an embedding."""
  convolution = "it reads an embedding, as with model.embedding_size=8"
  for name, why in (
    ("model.tied", "tied weights need an embedding"),
    ("model.embedding_path", "an embedding needs a size"),
    ("data.unlabelled_path", "the vectors need a size"),
    ("model.embedding_scale", "an embedding needs a size"),
    ("model.convolution", convolution),
  ):
    holds = not is_set(c, name) or c.model.embedding_size
    require(c, holds, why, name, "model.embedding_size")


def embedding_values(c: Config):
  """Only one field gives values to the embedding."""
  embedding, other = "model.embedding_path", "train.start_from"
  unlabelled = "data.unlabelled_path"
  why = f"{_BOTH}; both give values to the embedding"
  exclude(c, unlabelled, embedding, why)
  exclude(c, unlabelled, other, why)
  exclude(c, other, embedding, why)


def task(c: Config):
  """Which fields a task excludes."""
  gap = c.task == "gap_model"
  why = "the backward tower has no carry to hand on; use task='language_model'"
  require(c, not (gap and c.data.stateful), why, "task", "data.stateful")
  holds = not (gap and c.data.mapping == "many_to_one")
  why = "it predicts every symbol of a window"
  require(c, holds, why, "task", "data.mapping")
  predicts = c.task in ("language_model", "gap_model", "polyphony")
  why = "it reads symbols that follow, which are targets"
  holds = not (predicts and c.model.convolution)
  require(c, holds, why, "task", "model.convolution")
  labels = c.task in ("classification", "regression", "tagging")
  weighted = c.data.repeats == "weight"
  why = "each text is read by itself and has labels of its own"
  require(c, not (labels and c.data.stateful), why, "task", "data.stateful")
  require(c, not (labels and weighted), why, "task", "data.repeats")


def task_polyphony(c: Config):
  why = "frames of notes go straight into a causal network"
  for name in (
    *("data.mapping", "model.bidirectional", "model.embedding_size"),
    *("model.symbol_dropout", "train.label_smoothing"),
  ):
    usual = is_set(c, name) and value_of(c, name) != "many_to_many"
    require(c, not (c.task == "polyphony" and usual), why, "task", name)


def model_heads(c: Config):
  holds = not (c.model.heads == "all" and c.model.tied)
  why = "one embedding cannot be the softmax kernel of three heads"
  require(c, holds, why, "model.heads", "model.tied")


def optimizer_nesterov(c: Config):
  holds = not c.optimizer.nesterov or c.optimizer.momentum
  why = "Nesterov's momentum must be above 0"
  require(c, holds, why, "optimizer.nesterov", "optimizer.momentum")


def train_batches_per_epoch(c: Config):
  why = f"{_BOTH}, or neither for all windows"
  exclude(c, "train.batches_per_epoch", "train.samples_per_epoch", why)


def train_freeze(c: Config):
  holds = c.train.freeze != "taken" or c.train.start_from
  why = "nothing is taken from another run; set train.start_from"
  require(c, holds, why, "train.freeze", "train.start_from")


def sample(c: Config):
  """The rules of the fields of `sample`."""
  why = f"{_BOTH}; each has texts to continue"
  exclude(c, "sample.prompts", "sample.prime", why)
  for name in ("sample.pattern", "sample.schema"):
    exclude(c, "sample.stop", name, "a match ends by itself")
  why = f"{_BOTH}; a schema is a pattern"
  exclude(c, "sample.pattern", "sample.schema", why)
  holds = c.sample.prompts is None or c.sample.streams == 1
  why = "each prompt has one sample"
  require(c, holds, why, "sample.prompts", "sample.streams")
  few = c.sample.length * c.sample.streams <= _MOST
  fields = "sample.no_repeat", "sample.length", "sample.streams"
  why = "repeats are found among at most 2**24 symbols of all texts"
  require(c, not c.sample.no_repeat or few, why, *fields)


def predict_text(c: Config):
  exclude(c, "predict.text", "predict.path", _BOTH)


def detect_labels(c: Config):
  why = f"{_BOTH}; both mark anomalous sessions"
  exclude(c, "detect.anomalous_path", "detect.labels", why)


def split_fractions(c: Config):
  holds = c.data.validation_fraction + c.data.test_fraction < 1
  why = "their sum must be below 1, to leave a training split"
  require(c, holds, why, "data.validation_fraction", "data.test_fraction")


def data_label_column(c: Config):
  text, label = c.data.text_column, c.data.label_column
  fields = "data.text_column", "data.label_column"
  require(c, not text or text != label, "must be two columns", *fields)
  holds = "," not in (label or "") or c.task == "regression"
  why = (
    "only task=regression reads several columns; a text or word has one label"
  )
  require(c, holds, why, "task", "data.label_column")


RULES = (
  *(data_offset, data_stateful, data_buckets, data_lowercase),
  *(data_punctuation, data_path, data_format, data_source, data_unit),
  *(data_log_header, split_fractions, data_label_column),
  *(spelling, model_crf, model_tied, model_embedding_size, embedding_values),
  *(task, task_polyphony, model_heads, optimizer_nesterov),
  *(train_batches_per_epoch, train_freeze, sample, predict_text),
  detect_labels,
)
