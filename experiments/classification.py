"""One label for each text: p(label | text).

The network reads the text in one or both directions, `model.pooling` reduces
its outputs to one vector, and the head predicts the label from this vector. No
input is a target, so `model.bidirectional` is legitimate.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from seqrnn.config.combinations import require
from seqrnn.config.read import Config
from seqrnn.data import splits, vectors, vocabulary
from seqrnn.data.batches import labelled
from seqrnn.data.batches.segments import Segments, Split
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError, counted, listed, report
from seqrnn.experiment import Batch, Carry, Experiment, Params, Report, Totals
from seqrnn.experiments import language_model
from seqrnn.models import losses, network
from seqrnn.runtime.compiled import Pure

VOCABULARIES = ("symbols", "labels")
_FEW = 30  # Texts of a training split.


def prepare(config: Config) -> dict[str, Vocabulary]:
  """The vocabularies of the training split.

  Raises:
    UserError: it has no labels, or a single one.
  """
  pieces = splits.checked_reader(config)("train")
  known = pieces.corpus.labels
  if known is None:
    forms = "tab, space, csv, jsonl, folders, files"
    sources = "; or data.source=packages, names"
    raise labelled.without_answers(config, "labels", forms + sources)
  counts = np.bincount(known.ids[pieces.document], minlength=len(known.symbols))
  warn_of_labels(dict(zip(known.symbols, counts.tolist(), strict=True)))
  return make(config, pieces, known.symbols, counts)


def warn_of_few(texts: int):
  """Warns on stderr of a training split that is too small to learn from."""
  if texts < _FEW:
    report(
      f"warning: the training split has {counted(texts, 'text')}; a network"
      " needs some hundred"
    )


def warn_of_labels(counts: dict[str, int]):
  """Warns on stderr of a training split whose labels cannot be learned.

  `counts` has the training texts of each label, 0 for one of other splits.
  """
  counts = {name: count for name, count in counts.items() if count}
  texts, single = sum(counts.values()), [n for n in counts if counts[n] == 1]
  warn_of_few(texts)
  is_number = all(map(re.compile(r"[-+]?\d[\d.,]*").fullmatch, counts))
  if is_number and len(counts) > 20 and texts < 10 * len(counts):
    report(
      f"warning: {len(counts):,} labels of {texts:,} training texts, all"
      " numbers; --config.task=regression predicts numbers"
    )
  elif single:
    report(
      "warning: labels with a single training text, too few to learn from:"
      f" {listed(single)}"
    )


def make(
  config: Config, pieces: Pieces, names: list[str], counts: np.ndarray
) -> dict[str, Vocabulary]:
  """The vocabularies of pieces, and of labels with their counts.

  Raises:
    UserError: there is a single label.
  """
  data = config.data
  labels = vocabulary.make(names, counts, "id", 1, None)
  known = " ".join(labels.symbols)
  why = f"the training split has one label, {known!r}; there must be two"
  require(config, len(labels.symbols) > 1, why, "task")
  return {
    "symbols": vocabulary.of_pieces(
      vectors.with_unlabelled(pieces, data), data
    ).padded(),
    "labels": labels,
    **labelled.counted_terms(config, pieces),
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
      f" {listed(unseen)}; those of training are {listed(labels.symbols)};"
      " data.label_column chooses the column of labels"
    )
  if unseen:
    report(
      f"{split} split: labels that training has not seen count as errors:"
      f" {listed(unseen)}"
    )


def build(config: Config, vocabularies: Mapping[str, Vocabulary]) -> Experiment:
  """The experiment; no corpus is read before its batches are."""
  symbols, labels = vocabularies["symbols"], vocabularies["labels"]
  outputs = len(labels.symbols)
  terms = labelled.terms_of(config, vocabularies)
  size = terms and terms.size
  model = network.text_model(config, len(symbols), True, outputs, terms=size)
  segments = labelled.text_segments(config, symbols)
  ids = labelled.once_a_split(partial(label_ids, segments, labels))
  return Experiment(
    vocabularies=vocabularies,
    init=Pure(network.init, model),
    loss=loss_of(model, config),
    facts=partial(facts, segments, ids),
    batches=partial(
      labelled.batches, segments, partial(columns, segments, ids), terms
    ),
    predict=Pure(predict, model),
    forbidden=None,
    unit="label",
    by_text=True,
    report=Report(
      "It reads a text of {word}s and gives it one of {count} labels.",
      ("decisions", "mistakes"),
      target="text",
    ),
  )


def loss_of(
  model: network.SequenceModel, config: Config
) -> Callable[..., tuple[jax.Array, tuple[Carry, Totals]]]:
  """`language_model.loss` of logits of the labels."""
  smoothing, entropy = config.train.label_smoothing, losses.label_cross_entropy
  return Pure(language_model.loss, model, smoothing, entropy=entropy)


def document_labels(
  segments: Segments, split: Split
) -> tuple[np.ndarray, list[str]]:
  """The label of each document, as a place in a list of names.

  Documents that are no split may have none; then the name is "".

  Raises:
    UserError: a split has no labels.
  """
  pieces = segments.pieces(split)
  known = pieces.corpus.labels
  if known is not None:
    return known.ids[pieces.document], known.symbols
  if isinstance(split, str):
    raise UserError(f"the {split} split has no labels")
  return np.zeros(len(pieces), int), [""]


def label_ids(
  segments: Segments, labels: Vocabulary, split: Split
) -> np.ndarray:
  """The id of each document's label; UNKNOWN where there is none."""
  places, names = document_labels(segments, split)
  if isinstance(split, str):
    check_seen(labels, [names[i] for i in np.unique(places)], split)
  return labels.encode(names)[places]


def facts(
  segments: Segments, ids: Callable[[str], np.ndarray], split: str
) -> dict[str, Any]:
  """The facts of the documents; the checksum includes the ids of labels."""
  sizes = segments.facts(split)
  return {**sizes, "crc32": zlib.crc32(ids(split).data, sizes["crc32"])}


def columns(
  segments: Segments, ids, split: Split
) -> Callable[[Batch], dict[str, np.ndarray]]:
  """A function of a batch of segments -> the labels of its documents.

  `ids` is a function split -> as `label_ids`.
  """
  label_D = ids(split)
  places_D, names = document_labels(segments, split)
  names_C = np.array(names, object)

  def labels(batch: Batch) -> dict[str, np.ndarray]:
    asked = labelled.answers(label_D, batch)
    if "read" in batch:
      asked["truth"] = names_C[places_D[batch["document"], None]]
    return asked

  return labels


def predict(
  model: network.SequenceModel, params: Params, carry: Carry, batch: Batch
) -> tuple[Carry, jax.Array]:
  """The carry, and logits of the labels by their ids, [B, N, V]."""
  carry, logits_BNC = network.predict(model, params, carry, batch)
  return carry, losses.over_ids(logits_BNC)
