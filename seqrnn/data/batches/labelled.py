"""Windows of texts with labels, tags or numbers, for the tasks of these."""

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import scipy

from seqrnn.config.read import Config
from seqrnn.data.batches.segments import Request, Segments, Split
from seqrnn.data.batches.windows import Arrays, Batches
from seqrnn.data.read import terms
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import PAD, Vocabulary
from seqrnn.errors import UserError

Value = TypeVar("Value")
_CACHED = 2**11  # Texts whose terms are kept in memory, for other windows.


def once_a_split(read: Callable[[Split], Value]) -> Callable[[Split], Value]:
  """The same function, whose result for the name of a split is cached."""
  cached = functools.cache(read)
  return lambda split: cached(split) if isinstance(split, str) else read(split)


def without_answers(config: Config, names: str, forms: str) -> UserError:
  """The error for data without the answers of a task, which some forms have."""
  source, form = config.data.source, config.data.format
  return UserError(
    f"task={config.task!r}: data.source={source!r}, data.format={form!r} has no"
    f" {names}; it needs data.format={forms}"
  )


def text_segments(config: Config, symbols: Vocabulary) -> Segments:
  """The windows of texts with one answer each."""
  length, keep = config.data.window, config.data.keep
  # All symbols are read, unless one window of a text stands for it.
  shape = {"length": length, "full": keep != "all", "keep": keep}
  return Segments(config, symbols, minimum=1, **shape)


def answers(answer_D: np.ndarray, batch: Arrays) -> Arrays:
  """The targets of windows: the answers of their documents."""
  some_B1 = (batch["segment"] != PAD).any(1, keepdims=True)
  targets = answer_D[batch["document"], None]
  return {"targets": targets, "weights": some_B1.astype(np.float32)}


def counted_terms(config: Config, pieces: Pieces) -> dict[str, Vocabulary]:
  """The terms that `model.wide` reads, counted in the training split."""
  if not config.model.wide or config.task == "tagging":
    return {}
  texts = (document.symbols for document in pieces.documents())
  known = terms.vocabulary(texts, config.data.unit, config.model.parts)
  return {"terms": known}


def terms_of(
  config: Config, vocabularies: Mapping[str, Vocabulary]
) -> terms.Terms | None:
  """The function from texts to their terms; None: the model reads none."""
  if not config.model.wide:
    return None
  known = vocabularies.get("terms")
  if known is None or len(known.symbols) != terms.LISTS:
    raise UserError(
      "vocabulary.json: model.wide=True reads terms, and it has none, or those"
      " of an earlier version; train the run again"
    )
  return terms.Terms(known, config.data.unit, config.model.parts)


def batches(
  segments: Segments,
  columns: Callable[[Split], Callable[[Arrays], Arrays]],
  read: terms.Terms | None,
  split: Split,
  epoch: int | None,
  **how,
) -> Batches:
  """Batches of windows with labels.

  `columns` returns a function of a batch of segments, whose results are its
  other arrays; `read` returns the terms of its texts. `columns` is called for
  the first batch, so that batches which are only counted need no labels. In
  training, nothing needs the documents of the rows.
  """
  arrays = functools.cache(functools.partial(columns, split))
  pieces = functools.cache(functools.partial(segments.pieces, split))
  row = functools.lru_cache(_CACHED)(
    lambda n: read and read.row(pieces().text(n))
  )
  names = ["reset"]
  if how.get("named"):
    names.append("read")
  if how.get("named") or not Request(split, epoch, **how).trains:
    names += ["document", "place"]

  def make(batch: Arrays) -> Arrays:
    asked = {"inputs": batch["segment"], **{n: batch[n] for n in names}}
    if read is not None:
      rows = map(row, batch["document"].tolist())
      asked["terms"] = scipy.sparse.vstack([*rows]).toarray()
    return asked | arrays()(batch)

  return segments.batches(split, epoch, placed=True, **how).map(make)
