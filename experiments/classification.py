"""One label for each text: p(label | text).

The network reads the text in one direction or both, and what `model.pooling`
makes of its outputs gives the label. Nothing it reads is a target, so that
`model.bidirectional` is legitimate.
"""

import functools
import sys
import zlib
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from seqrnn import config as config_lib
from seqrnn.config import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.documents import Document
from seqrnn.data.segments import Segments
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import PAD, Vocabulary
from seqrnn.data.windows import Batches
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Experiment
from seqrnn.inference.predictions import console_text
from seqrnn.models import losses, network

VOCABULARIES = ("symbols", "labels")

# Fields that mean something for a text as a text, and what they must be.
PLAIN = {"data.repeats": "each", "data.stateful": False}
WHY = "each text is read by itself and has labels of its own"
_TEXT = 60  # Characters of a text in a table.


def prepare(config: Config) -> dict[str, Vocabulary]:
  """The vocabularies of the training split.

  Raises:
    UserError: it has no labels, or a single one.
  """
  data = config.data
  pieces = splits.reader(config)("train")
  found = pieces.corpus.labels
  if found is None:
    raise UserError(
      f"data.source={data.source!r}, data.format={data.format!r}: gives no"
      " labels, which task='classification' needs: data.format=tab, space, csv,"
      " jsonl, folders, files, or data.source=packages, names"
    )
  counts = np.bincount(found.ids[pieces.document], minlength=len(found.symbols))
  return make(config, pieces, found.symbols, counts)


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


def tell_unseen(labels: Vocabulary, names: list[str], split: str):
  """Says which of a split's labels the training split lacks."""
  unseen = labels.unknown(names)
  if unseen:
    print(
      f"{split} split: labels that training has not seen count as errors:"
      f" {' '.join(map(repr, unseen))}",
      file=sys.stderr,
    )


def build(config: Config, vocabularies: dict[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are.

  Raises:
    UserError: settings of another kind of model.
  """
  data, smoothing = config.data, config.train.label_smoothing
  symbols, labels = vocabularies["symbols"], vocabularies["labels"]
  config_lib.refuse_unless(config, PLAIN, WHY)
  model = network.sequence_model(
    config.model,
    network.stack(
      config.model, len(symbols), bidirectional=config.model.bidirectional
    ),
    len(symbols),
    pooled=True,
    outputs=len(labels.symbols),
  )
  segments = Segments(
    config, symbols, length=data.window, minimum=1, full=True, keep=data.keep
  )

  @functools.cache
  def label_ids(split: str) -> np.ndarray:
    pieces = segments.pieces(split)
    found = pieces.corpus.labels
    if found is None:
      raise UserError(f"the {split} split has no labels")
    some = np.unique(found.ids[pieces.document])
    tell_unseen(labels, [found.symbols[i] for i in some], split)
    return labels.encode(found.symbols)[found.ids[pieces.document]]

  def label_names(split: str | Pieces | Sequence[Document]) -> np.ndarray:
    pieces = segments.pieces(split)
    found = pieces.corpus.labels
    if found is None:
      return np.full(len(pieces), "", object)
    return np.array(found.symbols, object)[found.ids[pieces.document]]

  @functools.cache
  def importance() -> np.ndarray:
    """Of each id of a label, so that all labels of an epoch weigh the same."""
    counts = np.zeros(len(labels))
    for batch in segments.batches("train", 0, placed=True):
      some = (batch["segment"] != PAD).any(1)
      ids = label_ids("train")[batch["document"][some]]
      counts += np.bincount(ids, minlength=len(labels))
    known = np.maximum(counts, 1) * len(labels.symbols)
    return (counts.sum() / known).astype(np.float32)

  def batches(
    split: str | Pieces | Sequence[Document], epoch: int, **how
  ) -> Batches:
    if isinstance(split, str):
      label_D = label_ids(split)
    else:  # Where none is known, none of the names is.
      label_D = labels.encode(label_names(split).tolist())
    name_D = label_names(split) if how.get("named") else None

    def targets(batch: Batch) -> Batch:
      inputs_BT = batch["segment"]
      target_B = label_D[batch["document"]]
      weight_B = (inputs_BT != PAD).any(1).astype(np.float32)
      made = {
        "inputs": inputs_BT,
        "targets": target_B[:, None],
        "weights": weight_B[:, None],
        "reset": batch["reset"],
      }
      if split == "train" and config.train.class_weights == "balanced":
        made["importance"] = importance()[target_B][:, None]
      if name_D is not None:
        made |= {name: batch[name] for name in ("document", "read")}
        made["truth"] = name_D[batch["document"], None]
      return made

    return segments.batches(split, epoch, placed=True, **how).map(targets)

  def predict(params, carry, batch):
    ids_BT = batch["inputs"]
    start = model.initial_carry(ids_BT.shape[0])
    _, logits_B1C = network.apply(model, params, ids_BT, start)
    return carry, losses.over_ids(logits_B1C)

  def loss(params, carry, batch, key):
    start = model.initial_carry(batch["inputs"].shape[0])
    figures = functools.partial(
      losses.label_cross_entropy, importance_BN=batch.get("importance")
    )
    loss, (_, totals) = network.loss(
      model, params, batch, start, key, smoothing, figures
    )
    return loss, (carry, totals)

  def facts(split: str) -> dict:
    found = segments.facts(split)
    crc32 = zlib.crc32(label_ids(split).data, found["crc32"])
    return {**found, "crc32": crc32}

  def present(found) -> Table:
    table = Table("text", "truth", "labels by probability")
    for p in found[: config.predict.sequences]:
      likely = "  ".join(
        f"{console_text(name)} {chance:.3f}"
        for name, chance in zip(
          labels.names(p.ids[0]), p.probabilities[0], strict=True
        )
      )
      truth = console_text(p.truth[0]) or "?"
      text = p.text(symbols.unit)
      if len(text) > _TEXT:
        text = f"{text[:_TEXT]}..."
      table.add_row(console_text(text), truth, likely)
    more = len(found) - config.predict.sequences
    if more > 0:
      table.caption = f"... {more:,} more in predictions.csv"
    return table

  return Experiment(
    vocabularies=vocabularies,
    init=lambda key: network.init(model, key),
    carry=lambda _: (),
    loss=loss,
    facts=facts,
    batches=batches,
    predict=predict,
    score=None,
    decoder=None,
    forbidden=None,
    unit="label",
    present=present,
  )
