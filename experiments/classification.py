"""One label for each text: p(label | text).

The network reads the text in one or both directions, `model.pooling` reduces
its outputs to one vector, and the head predicts the label from this vector. No
input is a target, so `model.bidirectional` is legitimate.
"""

import sys
import zlib
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from rich.table import Table

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.batches.segments import Request, Segments, Split
from seqrnn.data.batches.windows import Batches
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError, listed
from seqrnn.experiment import Batch, Carry, Experiment, Report, Totals
from seqrnn.experiments import parts
from seqrnn.models import losses, network
from seqrnn.scoring.predictions import (
  Prediction,
  console_text,
  likely,
  shortened,
)

VOCABULARIES = ("symbols", "labels")

# Fields without a meaning for labelled texts, and the values they must have.
PLAIN = {"data.repeats": "each", "data.stateful": False}
WHY = "each text is read by itself and has labels of its own"


def prepare(config: Config) -> dict[str, Vocabulary]:
  """The vocabularies of the training split.

  Raises:
    UserError: it has no labels, or a single one.
  """
  pieces = splits.reader(config)("train")
  known = pieces.corpus.labels
  if known is None:
    raise UserError(
      f"task={config.task!r}: data.source={config.data.source!r},"
      f" data.format={config.data.format!r} has no labels; it needs"
      " data.format=tab, space, csv, jsonl, folders, files, or"
      " data.source=packages, names"
    )
  counts = np.bincount(known.ids[pieces.document], minlength=len(known.symbols))
  return make(config, pieces, known.symbols, counts)


def make(
  config: Config, pieces: Pieces, names: list[str], counts: np.ndarray
) -> dict[str, Vocabulary]:
  """The vocabularies of pieces, and of labels with their counts.

  Raises:
    UserError: there is a single label.
  """
  data = config.data
  labels = vocabulary.make(names, counts, "id", 1, None)
  if len(labels.symbols) < 2:
    raise UserError(
      f"task={config.task!r}: the training split has one label,"
      f" {' '.join(labels.symbols)!r}; there must be two"
    )
  return {
    "symbols": vocabulary.of_pieces(pieces, data),
    "labels": labels,
  }


def check_seen(labels: Vocabulary, names: list[str], split: str):
  """Warns on stderr of labels of a split that the training split lacks.

  Raises:
    UserError: it lacks all of them, so that there is no loss.
  """
  unseen = labels.unknown(names)
  if unseen and len(unseen) == len(names):
    raise UserError(
      f"{split} split: has no label that training has seen, but"
      f" {listed(unseen)}; those of training are {listed(labels.symbols)}"
    )
  if unseen:
    print(
      f"{split} split: labels that training has not seen count as errors:"
      f" {listed(unseen)}",
      file=sys.stderr,
    )


def build(config: Config, vocabularies: dict[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are.

  Raises:
    UserError: settings of another kind of model.
  """
  data, symbols = config.data, vocabularies["symbols"]
  labels = vocabularies["labels"]
  config_lib.refuse_unless(config, PLAIN, WHY)
  model = parts.sequence_model(config, vocabularies, pooled=True)
  # All symbols are read, unless one window of a text stands for it.
  one = data.keep != "all"
  segments = Segments(
    config, symbols, length=data.window, minimum=1, full=one, keep=data.keep
  )
  ids = parts.once_a_split(partial(label_ids, segments, labels))
  weigh = None
  if config.train.class_weights == "balanced":
    weigh = cache(partial(importance, segments, labels, ids))
  objective = network.Objective(config.train.label_smoothing, figures)
  return Experiment(
    vocabularies=vocabularies,
    init=partial(network.init, model),
    loss=partial(parts.loss, model, objective),
    facts=partial(facts, segments, ids),
    batches=partial(batches, segments, ids, weigh),
    predict=partial(predict, model),
    forbidden=None,
    unit="label",
    by_text=True,
    report=Report(
      "It reads a text of {word}s and gives it one of {count} labels.",
      ("decisions",),
      target="text",
    ),
    present=partial(present, config.predict, symbols.unit),
  )


def label_ids(
  segments: Segments, labels: Vocabulary, split: Split
) -> np.ndarray:
  """The id of each document's label; UNKNOWN where there is none.

  Raises:
    UserError: a split has no labels.
  """
  pieces = segments.pieces(split)
  known = pieces.corpus.labels
  if known is None:
    if isinstance(split, str):
      raise UserError(f"the {split} split has no labels")
    return np.full(len(pieces), UNKNOWN, np.int32)
  ids = known.ids[pieces.document]
  if isinstance(split, str):
    check_seen(labels, [known.symbols[i] for i in np.unique(ids)], split)
  return labels.encode(known.symbols)[ids]


def label_names(segments: Segments, split: Split) -> np.ndarray:
  """The name of each document's label, objects; "" where there is none."""
  pieces = segments.pieces(split)
  known = pieces.corpus.labels
  if known is None:
    return np.full(len(pieces), "", object)
  return np.array(known.symbols, object)[known.ids[pieces.document]]


def importance(segments: Segments, labels: Vocabulary, ids) -> np.ndarray:
  """The weight of each id of a label with which all weigh the same, [V]."""
  counts = np.zeros(len(labels))
  for batch in segments.batches("train", 0, placed=True):
    some = (batch["segment"] != PAD).any(1)
    rows = ids("train")[batch["document"][some]]
    counts += np.bincount(rows, minlength=len(labels))
  known = np.maximum(counts, 1) * len(labels.symbols)
  return (counts.sum() / known).astype(np.float32)


def facts(segments: Segments, ids, split: str) -> dict[str, Any]:
  """The facts of the documents; the checksum includes the ids of labels."""
  sizes = segments.facts(split)
  return {**sizes, "crc32": zlib.crc32(ids(split).data, sizes["crc32"])}


def batches(
  segments: Segments,
  ids,
  importance,
  split: Split,
  epoch: int | None,
  **how,
) -> Batches:
  """Batches of windows; the target is the label of the document.

  Args:
    segments: the documents.
    ids: split -> as `label_ids`; called for the first batch, so that batches
      which are only counted need no labels.
    importance: -> as `importance`; None: all labels weigh the same.
    split: as in Experiment, and so are the others.
    epoch: of training.
    **how: `named` and others.
  """
  names = label_names(segments, split) if how.get("named") else None
  weigh = importance if split == "train" else None
  known = cache(partial(ids, split))
  windows = segments.batches(split, epoch, placed=True, **how)
  trains = Request(split, epoch, **how).trains
  return windows.map(lambda b: targets(known(), names, weigh, b, trains))


def targets(
  label_D: np.ndarray,
  name_D: np.ndarray | None,
  weigh,
  batch: Batch,
  trains: bool = True,
) -> Batch:
  """Inputs and targets of a batch of segments of D documents.

  Args:
    label_D: the id of the label of each.
    name_D: its name; None: not asked for.
    weigh: -> the importance of each id of a label; None: all weigh the same.
    batch: has `document`.
    trains: whether the documents of the rows are of no use.
  """
  inputs_BT, document_B = batch["segment"], batch["document"]
  target_B1 = label_D[document_B, None]
  asked = {
    "inputs": inputs_BT,
    "targets": target_B1,
    "weights": (inputs_BT != PAD).any(1, keepdims=True).astype(np.float32),
    "reset": batch["reset"],
  }
  if weigh is not None:
    asked["importance"] = weigh()[target_B1]
  if name_D is not None or not trains:
    asked |= {name: batch[name] for name in ("document", "place")}
  if name_D is not None:
    asked["read"] = batch["read"]
    asked["truth"] = name_D[document_B, None]
  return asked


def predict(model, params, carry, batch) -> tuple[Carry, jax.Array]:
  """The carry, and logits of the labels by their ids, [B, N, V]."""
  carry, logits_BNC = parts.predict(model, params, carry, batch)
  return carry, losses.over_ids(logits_BNC)


def figures(batch: Batch, *terms: Any) -> tuple[jax.Array, Totals]:
  """`losses.label_cross_entropy` of the terms, with the labels' importance."""
  weigh = batch.get("importance")
  return losses.label_cross_entropy(*terms, importance_BN=weigh)


def present(settings: Config, unit: str, rows: list[Prediction]) -> Table:
  """A table of texts with their labels.

  Args:
    settings: `config.predict`.
    unit: of the texts.
    rows: the predictions.
  """
  table = Table("text", "truth", "labels by probability")
  for p in rows[: settings.sequences]:
    truth = console_text(p.truth[0]) or "?"
    table.add_row(shortened(p.text(unit)), truth, likely(p, 0))
  more = len(rows) - settings.sequences
  if more > 0:
    table.caption = f"... {more:,} more in predictions.csv"
  return table
