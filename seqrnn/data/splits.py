"""Splits: training, validation and test, made before anything is cut."""

import functools
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from seqrnn.config import Config
from seqrnn.data import corpora
from seqrnn.data.corpora import SPLITS, Document
from seqrnn.data.vocabulary import BEGIN, END, PAD, Vocabulary
from seqrnn.errors import UserError

Split = dict[str, list[Document]]

# Below half a symbol of any corpus: 0.1 * 30 is 3.0000000000000004.
_ROUNDING = 1e-6


class Sequences(NamedTuple):
  """Encoded documents, one after the other.

  Attributes:
    ids: int32, of all documents.
    bounds: int64 [documents + 1]; j is `ids[bounds[j] : bounds[j + 1]]`.
  """

  ids: np.ndarray
  bounds: np.ndarray


def split(
  documents: Sequence[Document], data: Config, batch_size: int
) -> Split:
  """Documents, or pieces of them, by the name of their split.

  `batch_size` counts for `data.split=stream_tails` alone. A fraction of 0
  gives an empty split; the training split never is.

  Raises:
    UserError: impossible fractions, or a corpus too small for the split.
  """
  fractions = data.validation_fraction, data.test_fraction
  if not (min(fractions) >= 0 and sum(fractions) < 1):
    raise UserError(
      "data.validation_fraction={}, data.test_fraction={}: must be at least 0"
      " and together below 1".format(*fractions)
    )
  sizes = Counter()  # Of the groups, in their order.
  for document in documents:
    sizes[document.group] += len(document.symbols)
  way = data.split
  if way == "auto":
    way = "documents" if len(sizes) >= 10 else "tails"
  match way:
    case "documents":
      # By a hash: a document that comes or goes moves no other one.
      return _whole(documents, sorted(sizes, key=_digest), sizes, data)
    case "last_documents":
      return _whole(documents, reversed(sizes), sizes, data)
    case "tails":
      return _tails(documents, data)
    case "stream_tails":
      return _stream_tails(documents, data, batch_size)
    case _:
      raise UserError(
        f"data.split={way!r}: must be one of auto, documents, last_documents,"
        " tails, stream_tails"
      )


def _digest(group: str) -> bytes:
  # A file's name that is not UTF-8 has lone surrogates.
  return hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()


def _whole(
  documents: Sequence[Document],
  order: Iterable[str],
  sizes: Counter,
  data: Config,
) -> Split:
  """Fills test, then validation, with groups; the rest is for training."""
  queue = iter(order)
  place = dict.fromkeys(sizes, "train")
  fractions = {
    "test": data.test_fraction,
    "validation": data.validation_fraction,
  }
  for name, fraction in fractions.items():
    missing = fraction * sizes.total() - _ROUNDING
    while missing > 0 and (group := next(queue, None)) is not None:
      place[group] = name
      missing -= sizes[group]
  if "train" not in place.values():
    raise UserError(
      f"data.split={data.split!r}: {len(sizes)} documents are too few to hold"
      " whole ones out; data.split=tails holds out the end of each"
    )
  return {
    name: [d for d in documents if place[d.group] == name] for name in SPLITS
  }


def _tails(documents: Sequence[Document], data: Config) -> Split:
  parts = {name: [] for name in SPLITS}
  for document in documents:
    n = len(document.symbols)
    validation = math.floor(data.validation_fraction * n + _ROUNDING)
    test = math.floor(data.test_fraction * n + _ROUNDING)
    edges = (0, n - validation - test, n - test, n)
    for name, (start, end) in zip(
      SPLITS, itertools.pairwise(edges), strict=True
    ):
      if start < end:
        parts[name].append(_piece(document, start, end))
  return parts


def _piece(document: Document, start: int, end: int) -> Document:
  return document._replace(
    symbols=document.symbols[start:end],
    begins=document.begins and start == 0,
    ends=document.ends and end == len(document.symbols),
  )


def _stream_tails(
  documents: Sequence[Document], data: Config, batch_size: int
) -> Split:
  """The split of char-rnn's loader, for results to compare with its own.

  The text is cut to whole batches of B streams times T symbols, and the ends
  of each stream are held out. The parts of a split are equally long, so that
  each is a row of `streams`; they neither begin nor end, for the same reason.
  """
  if len(documents) != 1:
    raise UserError(
      f"data.split='stream_tails': needs one document, not {len(documents)}"
    )
  [document] = documents
  T, n = data.window, len(document.symbols)
  batches = n // (batch_size * T)
  validation, test = data.validation_fraction, data.test_fraction
  train = math.floor(batches * (1 - validation - test) + _ROUNDING)
  held_out = math.floor(batches * validation + _ROUNDING)
  if test == 0:
    held_out = batches - train
  if train == 0:
    raise UserError(
      f"data.split='stream_tails': {n} symbols are too few for"
      f" train.batch_size={batch_size} streams of data.window={T}"
    )
  edges = (0, train * T, (train + held_out) * T, batches * T)
  return {
    name: [
      document._replace(
        symbols=document.symbols[row + start : row + end],
        begins=False,
        ends=False,
      )
      for row in range(0, batch_size * batches * T, batches * T)
      if start < end
    ]
    for name, (start, end) in zip(
      SPLITS, itertools.pairwise(edges), strict=True
    )
  }


def reader(config: Config) -> Callable[[str], list[Document]]:
  """A function from the name of a split to its documents.

  Nothing is read before the first call, and nothing twice; where each split
  has its own path, only the one asked for.

  Raises:
    UserError: when called, as `corpora.read` and `split`; an empty split.
  """
  data = config.data

  @functools.cache
  def parts() -> Split:
    return split(corpora.read(data), data, config.train.batch_size)

  @functools.cache
  def read(name: str) -> list[Document]:
    if name not in SPLITS:
      raise UserError(f"split={name!r}: must be one of {', '.join(SPLITS)}")
    if any(data[f"{other}_path"] is not None for other in SPLITS):
      return corpora.read(data, name)
    documents = parts()[name]
    if not documents:
      field = f"{name}_fraction"
      raise UserError(
        f"data.{field}={data[field]}: leaves no symbol for the {name} split"
      )
    return documents

  return read


def encode(
  documents: Sequence[Document], vocabulary: Vocabulary, boundaries: bool
) -> Sequences:
  """Documents as ids; `boundaries` puts BEGIN and END where they do so."""
  begins = np.array([boundaries and d.begins for d in documents], bool)
  ends = np.array([boundaries and d.ends for d in documents], bool)
  sizes = np.array([len(d.symbols) for d in documents], np.int64)
  bounds = np.concatenate([[0], np.cumsum(sizes + begins + ends)])
  # All documents at once: a corpus may be a million short sessions.
  if vocabulary.unit in ("char", "byte"):
    symbols = "".join(
      itertools.chain.from_iterable(d.symbols for d in documents)
    )
  else:
    symbols = [symbol for d in documents for symbol in d.symbols]
  ids = np.full(bounds[-1], PAD, np.int32)
  ids[bounds[:-1][begins]] = BEGIN
  ids[bounds[1:][ends] - 1] = END
  ids[ids == PAD] = vocabulary.encode(symbols)
  return Sequences(ids, bounds)
