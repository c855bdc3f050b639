"""Rules about several fields of a config, whose values may conflict."""

import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any

from seqrnn import catalogue
from seqrnn.config.field import Config
from seqrnn.errors import UserError

# Fields that exclude or need others, and the reason. A field counts if it is
# set, or has one of the values behind "=".
_PAIRS = {
  "data.offset excludes data.random_offset": "the offset must be either fixed"
  " or random",
  "data.stateful excludes data.step data.offset data.random_offset": "a stream"
  " reads every symbol, so it has no step and no offset",
  "data.stateful excludes data.buckets": "streams have no padding, which"
  " buckets reduce",
  "data.stateful excludes data.repeats=weight": "a stream reads all documents"
  " in order and cannot weight them",
  "data.random_offset excludes data.buckets": "each epoch would have other"
  " lengths, and compile other programs",
  "data.lowercase needs data.unit=char,word": "only characters and words have"
  " a lower case",
  "data.punctuation needs data.unit=word": "only words are separated from"
  " punctuation",
  "data.punctuation excludes data.format=columns,conllu,parallel": "each word"
  " of the file has a tag, so a word cannot be separated",
  "data.format=parallel needs data.tags_file": "parallel files need the name"
  " of the file with the tags, as '*.tags'",
  "data.path data.train_path data.validation_path data.test_path needs"
  " data.source=files": "only your own files have a path",
  "data.path excludes data.train_path data.validation_path"
  " data.test_path": "set data.path alone, or a path for each split",
  "data.format=columns,conllu,parallel needs data.unit=word": "each word has a"
  " tag",
  "data.format=spaces needs data.unit=char": "each character has a tag",
  "data.format=tab,space,jsonl,folders,files data.source=packages,names needs"
  " data.unit=char,byte,word": "a labelled text has no other unit",
  "data.format=csv needs data.unit=char,byte,word,session": "a table has texts"
  " or events of sessions",
  "data.source=formal needs data.unit=char": "strings consist of characters",
  "data.source=opcodes needs data.unit=session,id": "a symbol is an opcode",
  "data.unit=log needs data.format=text": "a log must be read with"
  " data.format=text",
  "data.log_header data.log_format data.log_session needs data.unit=log": "only"
  " logs have it",
  "data.log_header needs data.log_format=None,plain": "a header is itself the"
  " format of a line",
  "model.letters model.affixes needs data.unit=word model.embedding_size": "the"
  " spelling of a word stands beside its embedding",
  "model.letters excludes model.affixes": "words are read by their characters"
  " or by their affixes",
  "model.crf excludes train.label_smoothing": "a CRF has no loss of a single"
  " tag that could be smoothed",
  "model.crf excludes data.source=formal": "a CRF needs a tag for each symbol,"
  " and only the blanks have one",
  "model.tied excludes model.parameters": "tied weights fix the hidden size to"
  " model.embedding_size",
  "model.tied needs model.embedding_size": "tied weights need an embedding",
  "model.embedding_path needs model.embedding_size": "an embedding needs a"
  " size",
  "data.unlabelled_path needs model.embedding_size": "the vectors need a size",
  "data.unlabelled_path excludes model.embedding_path train.start_from": "set"
  " one of the two; both give values to the embedding",
  "model.embedding_scale needs model.embedding_size": "an embedding needs a"
  " size",
  "data.stateful excludes data.mapping=many_to_one": "only many_to_many hands"
  " its carry from batch to batch",
  "task=gap_model excludes data.stateful": "the backward tower has no carry to"
  " hand on; use task='language_model'",
  "task=gap_model excludes data.mapping=many_to_one": "it predicts every symbol"
  " of a window",
  "task=language_model,gap_model,polyphony excludes model.convolution": "it"
  " reads symbols that follow, which are targets",
  "model.convolution needs model.embedding_size": "it reads an embedding, as"
  " with model.embedding_size=8",
  "task=classification,regression,tagging excludes data.stateful"
  " data.repeats=weight": "each text is read by itself and has labels of its"
  " own",
  "task=polyphony excludes data.mapping=many_to_one model.bidirectional"
  " model.embedding_size model.symbol_dropout train.label_smoothing": "frames"
  " of notes go straight into a causal network",
  "model.heads=all excludes model.tied": "one embedding cannot be the softmax"
  " kernel of three heads",
  "optimizer.nesterov needs optimizer.momentum": "Nesterov's momentum must be"
  " above 0",
  "train.batches_per_epoch excludes train.samples_per_epoch": "set one of the"
  " two, or neither for all windows",
  "train.freeze=taken needs train.start_from": "nothing is taken from another"
  " run; set train.start_from",
  "train.start_from excludes model.embedding_path": "set one of the two; both"
  " give values to the embedding",
  "sample.prompts excludes sample.prime": "set one of the two; each has texts"
  " to continue",
  "sample.stop excludes sample.pattern sample.schema": "a match ends by itself",
  "sample.pattern excludes sample.schema": "set one of the two; a schema is a"
  " pattern",
  "predict.text excludes predict.path": "set one of the two",
  "detect.anomalous_path excludes detect.labels": "set one of the two; both"
  " mark anomalous sessions",
}
_MOST = 2**24  # Symbols of all texts, where repeats are excluded.


def check_combinations(config: Config):
  """Refuses values that conflict.

  Raises:
    UserError: names the fields of the first conflict, their values, the rule.
  """
  for line in _conflicts(config):
    names, _, rule = line.partition(": ")
    pairs = (
      f"config.{name}={_value(config, name)!r}" for name in names.split()
    )
    raise UserError(f"{', '.join(pairs)}: {rule}")


def _conflicts(config: Config) -> Iterator[str]:
  """Yields the fields and the rule of each conflict."""
  for text, rule in _PAIRS.items():
    left, verb, right = re.split(" (excludes|needs) ", text)
    for first, other in itertools.product(left.split(), right.split()):
      if _holds(config, first) and _holds(config, other) != (verb == "needs"):
        names = re.sub("=[^ ]*", "", f"{first} {other}")
        yield f"{names}: {rule}"
  data, sample = config.data, config.sample
  known = catalogue.sets().get(data.source)
  is_log = known is not None and known.fields.get("unit") == "log"
  if data.unit == "log" and data.source != "files" and not is_log:
    yield (
      "data.unit data.source: a log must be read with data.source=files, or a"
      " public log (loghub_...)"
    )
  if data.validation_fraction + data.test_fraction >= 1:
    yield (
      "data.validation_fraction data.test_fraction: their sum must be below 1,"
      " to leave a training split"
    )
  if data.text_column and data.text_column == data.label_column:
    yield "data.text_column data.label_column: must be two columns"
  if "," in (data.label_column or "") and config.task != "regression":
    yield (
      "task data.label_column: only task=regression reads several columns; a"
      " text or word has one label"
    )
  if sample.prompts is not None and sample.streams > 1:
    yield "sample.prompts sample.streams: each prompt has one sample"
  if sample.no_repeat and sample.length * sample.streams > _MOST:
    yield (
      "sample.no_repeat sample.length sample.streams: repeats are found among"
      " at most 2**24 symbols of all texts"
    )


def _value(config: Config, name: str) -> Any:
  return functools.reduce(getattr, name.split("."), config)


def _holds(config: Config, text: str) -> bool:
  """Returns whether a field is set, or has one of the values behind "="."""
  name, _, values = text.partition("=")
  value = _value(config, name)
  if values:
    return str(value) in values.split(",")
  return value not in (None, False, 0, "")
