"""Rules about several fields of a config, whose values may conflict."""

from functools import reduce

from seqrnn import catalogue
from seqrnn.config.field import Config
from seqrnn.config.rules import as_float32
from seqrnn.errors import UserError

# Fields, the first of which excludes the others; and the reason.
_EXCLUSIVE = {
  "data.offset data.random_offset": "the offset must be either fixed or random",
  "data.stateful data.step data.offset data.random_offset": "a stream reads"
  " every symbol, so it has no step and no offset",
  "data.stateful data.buckets": "streams have no padding, which buckets reduce",
  "data.random_offset data.buckets": "each epoch would have other lengths, and"
  " compile other programs",
  "model.letters model.affixes": "words are read by their characters or by"
  " their affixes",
  "model.crf train.label_smoothing": "a CRF has no loss of a single tag that"
  " could be smoothed",
  "model.tied model.parameters": "tied weights fix the hidden size to"
  " model.embedding_size",
  "train.batches_per_epoch train.samples_per_epoch": "set one of the two, or"
  " neither for all windows",
  "train.start_from model.embedding_path": "set one of the two; both give"
  " values to the embedding",
  "sample.stop sample.pattern sample.schema": "a match ends by itself",
  "sample.pattern sample.schema": "set one of the two; a schema is a pattern",
  "detect.anomalous_path detect.labels": "set one of the two; both mark"
  " anomalous sessions",
}


def require(condition: bool, text: str):
  """Raises UserError with this text unless the condition holds."""
  if not condition:
    raise UserError(text)


def check_combinations(config: Config):
  """Refuses values that conflict.

  Raises:
    UserError: names the fields of the first conflict, their values, the rule.
  """
  for names, rule in _EXCLUSIVE.items():
    first, *others = names.split()
    for other in others:
      both = _is_set(config, first) and _is_set(config, other)
      require(not both, f"{_with_values(config, first, other)}: {rule}")
  _check_data(config)
  _check_logs(config)
  _check_model(config)
  _check_training(config)
  _check_modes(config)


def _is_set(config: Config, name: str) -> bool:
  return reduce(getattr, name.split("."), config) not in (None, False, 0)


def _with_values(config: Config, *names: str) -> str:
  """Returns `config.GROUP.FIELD=VALUE` of these fields, as f"{x=}" does."""
  values = (reduce(getattr, name.split("."), config) for name in names)
  pairs = zip(names, values, strict=True)
  return ", ".join(f"config.{name}={value!r}" for name, value in pairs)


def _check_data(config: Config):
  data = config.data
  require(
    not (data.stateful and data.repeats != "each"),
    f"{config.data.stateful=}, {config.data.repeats=}: a stream reads all"
    " documents in order and cannot weight them",
  )
  require(
    not data.lowercase or data.unit in ("char", "word"),
    f"{config.data.lowercase=}, {config.data.unit=}: only characters and words"
    " have a lower case",
  )
  require(
    not data.punctuation or data.unit == "word",
    f"{config.data.punctuation=}, {config.data.unit=}: only words are separated"
    " from punctuation",
  )
  require(
    not data.punctuation
    or data.format not in ("columns", "conllu", "parallel"),
    f"{config.data.punctuation=}, {config.data.format=}: each word of the file"
    " has a tag, so a word cannot be separated",
  )
  require(
    (data.min_length or 0) <= (data.max_length or data.min_length or 0),
    f"{config.data.min_length=}, {config.data.max_length=}: the minimum must"
    " not exceed the maximum",
  )
  require(
    data.format != "parallel" or data.tags_file is not None,
    f"{config.data.format=}, {config.data.tags_file=}: parallel files need the"
    " name of the file with the tags, as '*.tags'",
  )
  require(
    data.text_column is None or data.text_column != data.label_column,
    f"{config.data.text_column=}, {config.data.label_column=}: a text and its"
    " label stand in different columns",
  )
  require(
    data.validation_fraction + data.test_fraction < 1,
    f"{config.data.validation_fraction=}, {config.data.test_fraction=}: their"
    " sum must be below 1, to leave a training split",
  )


def _check_logs(config: Config):
  data = config.data
  is_log = data.unit == "log"
  known = catalogue.sets().get(data.source)
  require(
    not is_log
    or data.source == "files"
    or (known is not None and known.fields.get("unit") == "log"),
    f"{config.data.unit=}, {config.data.source=}: a log must be read with"
    " data.source=files, or a public log (loghub_...)",
  )
  require(
    not is_log or data.format == "text",
    f"{config.data.unit=}, {config.data.format=}: a log must be read with"
    " data.format=text",
  )
  for name in ("data.log_header", "data.log_format", "data.log_session"):
    require(
      is_log or not _is_set(config, name),
      f"{_with_values(config, 'data.unit', name)}: the field is only for logs,"
      " with data.unit=log",
    )
  require(
    data.log_header is None or data.log_format in (None, "plain"),
    f"{config.data.log_header=}, {config.data.log_format=}: a header is itself"
    " the format of a line",
  )


def _check_model(config: Config):
  model, task = config.model, config.task
  require(
    not model.tied or model.embedding_size is not None,
    f"{config.model.tied=}, {config.model.embedding_size=}: tied weights need"
    " an embedding",
  )
  for name in ("embedding_path", "embedding_scale"):
    pair = f"model.{name}", "model.embedding_size"
    require(
      model[name] is None or model.embedding_size is not None,
      f"{_with_values(config, *pair)}: an embedding needs a size",
    )
  require(
    not model.input_noise or task == "polyphony",
    f"{config.model.input_noise=}, {config.task=}: noise is added to frames of"
    " notes, which only task='polyphony' reads",
  )
  require(
    model.heads != "all" or task == "gap_model",
    f"{config.model.heads=}, {config.task=}: only task='gap_model' has several"
    " heads",
  )
  require(
    model.heads != "all" or not model.tied,
    f"{config.model.heads=}, {config.model.tied=}: one embedding cannot be the"
    " softmax kernel of three heads",
  )
  require(
    not model.crf or config.data.source != "formal",
    f"{config.model.crf=}, {config.data.source=}: a CRF needs a tag for each"
    " symbol, and only the blanks have one",
  )


def _check_training(config: Config):
  optimizer, train = config.optimizer, config.train
  require(
    train.start_from is not None
    or "taken" not in (train.freeze or "").split(","),
    f"{config.train.freeze=}, {config.train.start_from=}: nothing is taken from"
    " another run; set train.start_from",
  )
  require(
    not optimizer.nesterov or as_float32(optimizer.momentum) > 0,
    f"{config.optimizer.nesterov=}, {config.optimizer.momentum=}: Nesterov's"
    " momentum must be above 0",
  )
  require(
    not optimizer.nesterov or optimizer.name == "sgd",
    f"{config.optimizer.nesterov=}, {config.optimizer.name=}: only sgd has"
    " Nesterov's momentum",
  )


def _check_modes(config: Config):
  sample, window = config.sample, config.data.window
  for name, rows in (
    ("train.batch_size", config.train.batch_size),
    ("sample.streams", sample.streams),
  ):
    require(
      rows * window <= 2**24,
      f"{_with_values(config, name, 'data.window')}: a batch must not have more"
      " than 2**24 symbols",
    )
  require(
    sample.prompts is None or sample.prime == "",
    f"{config.sample.prompts=}, {config.sample.prime=}: set one of the two;"
    " each has texts to continue",
  )
  require(
    sample.prompts is None or sample.streams == 1,
    f"{config.sample.prompts=}, {config.sample.streams=}: each prompt has one"
    " sample",
  )
  require(
    sample.no_repeat is None or sample.length * sample.streams <= 2**24,
    f"{config.sample.no_repeat=}, {config.sample.length=},"
    f" {config.sample.streams=}: repeats are found among at most 2**24 symbols"
    " of all texts",
  )
