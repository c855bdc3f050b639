"""The sessions of training and validation, kept in the workdir of a run.

Logs are rotated away. The first detection writes splits.npz; those after it,
and reviews, read these sessions instead of the log, whatever has become of it.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import splits
from seqrnn.data.documents import Corpus
from seqrnn.data.idle_times import IdleTimes, LogCuts
from seqrnn.data.logs import log_corpus
from seqrnn.data.logs.sessions import columns_of
from seqrnn.data.read import stored
from seqrnn.data.read.columns import Stored, Texts
from seqrnn.data.sources import corpora
from seqrnn.data.splits import Pieces, Read
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment

NAME = "splits.npz"
_SPLITS = ("train", "validation")
_COLUMNS = ("lines", "seconds", "values")  # Of a corpus, a row for each event.
_TEXTS = ("timestamps", "files")


class Splits(NamedTuple):
  """The splits of a run that detects.

  Attributes:
    read: split -> its pieces, which are kept or from the log.
    facts: split -> `Experiment.facts`.
    keep: writes splits.npz, unless it is there.
  """

  read: Read
  facts: Callable[[str], dict[str, Any]]
  keep: Callable[[], None]


def open_splits(
  config: Config, workdir: Path, experiment: Experiment
) -> Splits:
  """The splits of a run; training and validation are kept ones if there are.

  Raises:
    UserError: when it reads, the log is missing, or is not that of the
      training.
  """
  path, facts = workdir / NAME, experiment.facts
  key = json.dumps(config_lib.settings(config, ("data.",)))
  log = splits.reader(config, config.detect.idle)
  pieces, known = {}, {}
  if path.exists():
    with suppress(UserError):  # A damaged file is written again.
      pieces, known = _load(path, key, config)

  def read(split: str) -> Pieces:
    if split in pieces:
      return pieces[split]
    if split in corpora.separate(config.data):
      return log(split)
    needs = "a first detection reads the log of the training"
    if known:
      needs = "only the log of the training has this split; set detect.path"
    try:
      crc32 = facts("train")["crc32"]
    except UserError as error:
      raise UserError(f"{error}; {needs}") from None
    if known and crc32 != known["train"]["crc32"]:
      raise UserError(
        f"{workdir}: the log of the training has changed, and has no {split}"
        " split any more; set detect.path to examine a file"
      )
    return log(split)

  def keep():
    labels = read("train").corpus.labels
    if pieces or config.data.source != "files" or labels is not None:
      return
    arrays, texts = {}, {}
    for split in _SPLITS:
      columns, texts[split] = _columns(read(split))
      arrays |= stored.under(f"{split} ", columns)
    record = {"key": key, "splits": texts}
    record["facts"] = {split: facts(split) for split in _SPLITS}
    stored.save_arrays(path, arrays | {"record": json.dumps(record)})

  return Splits(read, known.__getitem__ if known else facts, keep)


def _columns(pieces: Pieces) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The documents of pieces: arrays, and what JSON holds."""
  corpus, document = pieces.corpus, pieces.document
  places, bounds, columns = columns_of(pieces)
  arrays = {"ids": corpus.ids[places], "bounds": bounds}
  fields: dict[str, Any] = {
    "unit": corpus.unit,
    "symbols": [*corpus.symbols],
    "names": [corpus.names[j] for j in document.tolist()],
  }
  arrays |= {x: columns[x] for x in _COLUMNS if columns[x] is not None}
  for name in _TEXTS:
    if (texts := columns[name]) is not None:
      ids, used = texts.ids, np.zeros(len(texts.symbols), bool)
      used[ids] = True
      arrays[name] = np.cumsum(used, dtype=np.uint32)[ids] - 1
      if isinstance(texts.symbols, Stored):  # Perhaps one for each event.
        content = texts.symbols.content[used]
        content = content.astype(f"S{np.char.str_len(content).max(initial=1)}")
        arrays[f"{name} text"] = content.view(np.uint8).reshape(
          -1, content.itemsize
        )
      else:
        fields[name] = [texts.symbols[n] for n in np.flatnonzero(used)]
  if corpus.groups is not None:
    arrays["groups"] = corpus.groups[document]
  if cuts := corpus.cuts:
    fields["cuts"] = [cuts.log, cuts.idle, cuts.patience]
    arrays["before"] = cuts.before_D[document]
    arrays["after"] = cuts.after_D[document]
  return arrays, fields


def _load(
  path: Path, key: str, config: Config
) -> tuple[dict[str, Pieces], dict[str, Any]]:
  """The kept pieces and their facts; none if they were read otherwise.

  Raises:
    UserError: the file is damaged.
  """
  arrays = stored.load_arrays(path)
  with stored.reading(path):
    record = json.loads(str(arrays.pop("record")))
    if record["key"] != key:
      return {}, {}
    pieces = {}
    for split in _SPLITS:
      columns = stored.named(arrays, f"{split} ")
      corpus = _corpus(columns, dict(record["splits"][split]))
      corpus = log_corpus.with_cuts(corpus, config.detect.idle)
      pieces[split] = splits.whole(corpus)
    return pieces, {split: dict(record["facts"][split]) for split in _SPLITS}


def _corpus(arrays: dict[str, np.ndarray], fields: dict[str, Any]) -> Corpus:
  """The corpus that `_columns` has taken apart.

  Raises:
    LookupError, TypeError, ValueError: it is none.
  """
  count, bounds = len(arrays["ids"]), arrays["bounds"]
  per_event = [len(arrays[x]) for x in (*_COLUMNS, *_TEXTS) if x in arrays]
  for name in _TEXTS:
    if (text := arrays.pop(f"{name} text", None)) is not None:
      fields[name] = Stored(text.view(f"S{text.shape[1]}").ravel())
  texts = {x: Texts(fields[x], arrays.pop(x)) for x in _TEXTS if x in arrays}
  sizes = np.diff(bounds)
  if (
    {*per_event} - {count}
    or (bounds[0], bounds[-1], len(bounds))
    != (0, count, len(fields["names"]) + 1)
    or sizes.min(initial=1) < 1
    or arrays["ids"].max(initial=0) >= len(fields["symbols"])
    or any(x.ids.max(initial=0) >= len(x.symbols) for x in texts.values())
  ):
    raise ValueError("its columns do not fit each other")
  if cuts := fields.pop("cuts", None):
    before_D, after_D = arrays.pop("before"), arrays.pop("after")
    log, idle, patience = cuts
    whole = np.ones((2, len(sizes)), bool)
    fields["cuts"] = LogCuts(
      *(log, IdleTimes(*idle), IdleTimes(*patience), before_D, after_D, *whole)
    )
  columns: dict[str, Any] = fields | texts | arrays
  return Corpus(**columns)
