"""Sections of a report on the predictions of a model with labels."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.vocabulary import END, PAD, UNKNOWN, Vocabulary
from seqrnn.experiment import Batch, Params
from seqrnn.inference.evaluation import examiner
from seqrnn.inference.predictions import Prediction, decider, predictions
from seqrnn.reporting import page
from seqrnn.reporting.page import Mark, Section
from seqrnn.reporting.subject import Subject, named, prediction_marks, shown
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

_LABELS = 30  # Most frequent labels, in the confusion table.
_LIKELY = 5  # Most likely labels, for each symbol.
_READ = 300_000  # Symbols that are searched for errors.
_ERRORS = 12  # Rows of the table of errors.
_CONTEXT = 12  # Symbols on each side of an error in the table.
_TEXT = 240  # Symbols of a text in the table.
_WEIGHED = 4  # Texts coloured by occlusion.
_LEAST = 0.05  # Nats, at least, of the strongest colour.


def sections(subject: Subject) -> list[Section]:
  """The sections on tags, occlusion, errors and confusion."""
  if not subject.facts or subject.experiment.labels is None:
    return []
  split = subject.splits[-1]
  answers, read = [], 0
  for prediction in predictions(
    subject.experiment, subject.params, split, _LIKELY
  ):
    answers.append(prediction)
    read += len(prediction.inputs)
    if read >= _READ:
      break
  tags = max(len(p.targets) for p in answers) > 1
  parts = [
    *([_tagged(subject, answers)] if tags else []),
    _weighed(subject, split, tags),
    _errors(subject, answers, tags),
    _confused(subject, split),
  ]
  learned = subject.learned(split)
  return [{"split": split, "learned": learned, **part} for part in parts]


def _confused(subject: Subject, split: str) -> Section:
  """The confusion table."""
  labels = subject.experiment.labels
  mesh = sharding.mesh()
  params = jax.device_put(subject.params, sharding.replicated(mesh))
  counted = examiner(subject.experiment, mesh)(params, subject.batches(split))
  assert counted is not None and counted[1] is not None, "there are labels"
  counts_VV = counted[1].confusion(len(labels)).astype(np.int64)
  # Ids are sorted by frequency in the training split.
  present = np.flatnonzero(counts_VV.any(0) | counts_VV.any(1))
  columns = present[present > UNKNOWN][:_LABELS]
  rows = [i for i in [*columns, UNKNOWN] if counts_VV[i].any()]
  total_V = np.maximum(counts_VV.sum(1), 1)
  levels_VV = np.ceil(4 * counts_VV / total_V[:, None]).astype(int)

  def cell(truth, best):
    kind = "p" if truth == best else "n"
    return int(counts_VV[truth, best]), f"{kind}{levels_VV[truth, best]}"

  return {
    **{"title": "Confusion of labels", "kind": "confusion"},
    "labels": labels.names(columns),
    "rows": [
      (labels.names([truth])[0], [cell(truth, best) for best in columns])
      for truth in rows
    ],
    "more": len(labels.symbols) - len(columns),
  }


def _text(symbols: Vocabulary, ids: Any) -> str:
  """Symbols in one line."""
  return "".join(shown(symbols, i) for i in ids if i > PAD).replace("\n", " ")


def _errors(subject: Subject, answers: list[Prediction], tags: bool) -> Section:
  """The wrong predictions with the highest probability."""
  symbols, labels = subject.symbols, subject.experiment.labels
  wrong = [
    (float(p.probabilities[n][0]), p, n)
    for p in answers
    for n, target in enumerate(p.targets)
    if p.ids[n][0] != target
  ]
  wrong.sort(key=lambda item: -item[0])
  total = sum(len(p.targets) for p in answers)
  rows = []
  for probability, p, n in wrong[:_ERRORS]:
    t = int(p.positions[n])
    around = (max(t - _CONTEXT, 0), t, t + 1, t + 1 + _CONTEXT)
    a, b, c, d = around if tags else (0, _TEXT, _TEXT, _TEXT)
    parts = (
      _text(symbols, p.inputs[slice(*x)]) for x in ((a, b), (b, c), (c, d))
    )
    best, truth = labels.names([p.ids[n][0], p.targets[n]])
    rows.append((best, f"{probability:.1%}", truth, *parts))
  return {
    **{"title": "Most confident errors", "kind": "errors", "rows": rows},
    **{"wrong": f"{len(wrong):,}", "total": f"{total:,}"},
  }


def _tagged(subject: Subject, answers: list[Prediction]) -> Section:
  """A text coloured by the surprisal of its true tags."""
  labels = subject.experiment.labels
  marks: list[Mark] = []
  for p in answers:
    marks += prediction_marks(
      subject.symbols, p, lambda i: labels.names([i])[0]
    )
    marks.append(Mark("\n", "the end of a text"))
    if page.full(marks):
      break
  guess = math.log2(len(labels.symbols))
  words = "A text, each symbol coloured by the surprisal of its tag"
  reading = page.coloured(marks, guess, words)
  return {"title": "Tagged text", "kind": "tagged", "reading": reading}


class Weights(NamedTuple):
  """The weight of each position in a decision.

  Attributes:
    label: id of the predicted label.
    probability: of this label.
    nats: [T], decrease of its log probability when a symbol is hidden.
  """

  label: int
  probability: float
  nats: np.ndarray


@lru_cache(CACHED_FUNCTIONS)
def chances_of(
  predict: Callable, mesh: Mesh | None = None
) -> Callable[[Params, Batch], jax.Array]:
  """A jitted function params, batch -> log probabilities of all labels."""

  @partial(sharding.jit, mesh=mesh)
  def chances(params, batch):
    _, logits_BNV = predict(params, (), batch)
    return jax.nn.log_softmax(logits_BNV)

  return chances


def occluder(subject: Subject) -> Callable[[Batch, int, int], Weights]:
  """A function batch, row, n -> Weights of the decision for target n."""
  chances = chances_of(subject.experiment.predict)

  def occlude(batch: Batch, row: int, n: int) -> Weights:
    T = batch["inputs"].shape[1]
    # Each row hides one symbol; the last row hides none.
    rows = {
      name: np.repeat(np.asarray(x)[row : row + 1], T + 1, axis=0)
      for name, x in batch.items()
    }
    inputs_BT = rows["inputs"]
    hidden = np.flatnonzero(inputs_BT[0] > END)
    inputs_BT[hidden, hidden] = UNKNOWN
    if "letters" in rows:
      rows["letters"][hidden, hidden] = PAD
    chances_BV = np.asarray(chances(subject.params, rows)[:, n])
    label = int(chances_BV[-1].argmax())
    nats_B = chances_BV[-1, label] - chances_BV[:, label]
    return Weights(label, math.exp(chances_BV[-1, label]), nats_B[:-1])

  return occlude


def _chosen(batch: Batch, wrong_BN: np.ndarray, by_text: bool) -> list[Any]:
  """The rows to show; half have wrong decisions, if there are enough."""
  counts_B = (batch["inputs"] > END).sum(1)
  if by_text:  # Only the first window of each text.
    counts_B *= np.diff(batch["document"], prepend=-1) != 0
  rows = np.flatnonzero(counts_B >= min(4, counts_B.max()))
  order = sorted(rows, key=lambda b: not wrong_BN[b].any())
  chosen = order[: _WEIGHED // 2]
  return chosen + [b for b in rows if b not in chosen][: _WEIGHED - len(chosen)]


def _weighed(subject: Subject, split: str, tags: bool) -> Section:
  """Texts coloured by the weight of each position in a decision."""
  symbols, labels = subject.symbols, subject.experiment.labels
  occlude = occluder(subject)
  batch = subject.experiment.batches(split, 0, ordered=True)[0]
  carry = subject.experiment.carry(len(batch["inputs"]))
  decide = sharding.jit(decider(subject.experiment))
  _, (_, best_BN) = jax.device_get(decide(subject.params, carry, batch))
  wrong_BN = (best_BN != batch["targets"]) & (batch["weights"] > 0)
  by_text = subject.experiment.by_text
  texts = []
  for b in _chosen(batch, wrong_BN, by_text):
    targets = np.flatnonzero(batch["weights"][b] > 0)
    wrong = np.flatnonzero(wrong_BN[b])
    n = int(wrong[0] if len(wrong) else targets[len(targets) // 2])
    weights = occlude(batch, int(b), n)
    inputs_T = batch["inputs"][b]
    scale = max(float(np.abs(weights.nats).max()), _LEAST)
    truth, best = labels.names([batch["targets"][b, n], weights.label])
    texts.append(
      {
        **{"label": best, "truth": truth, "probability": weights.probability},
        "symbol": repr(named(symbols, inputs_T[n])) if tags else "",
        "spans": page.tinted(
          (shown(symbols, i), nats / scale)
          for i, nats in zip(inputs_T, weights.nats, strict=True)
          if i > END
        ),
      }
    )
  return {
    **{"title": "Weight of each symbol", "kind": "weights"},
    **{"by_text": by_text, "texts": texts},
  }
