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
from seqrnn.reporting.page import Element, Mark, element, section
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


def sections(subject: Subject) -> list[Element]:
  """The sections on tags, occlusion, errors and confusion."""
  if not subject.facts or subject.experiment.labels is None:
    return []
  split = subject.splits[-1]
  found, read = [], 0
  for prediction in predictions(
    subject.experiment, subject.params, split, _LIKELY
  ):
    found.append(prediction)
    read += len(prediction.inputs)
    if read >= _READ:
      break
  tags = max(len(p.targets) for p in found) > 1
  return [
    *([_tagged(subject, found, split)] if tags else []),
    _weighed(subject, split, tags),
    _errors(subject, found, split, tags),
    _confused(subject, split),
  ]


def _confused(subject: Subject, split: str) -> Element:
  """The confusion table."""
  labels = subject.experiment.labels
  mesh = sharding.mesh()
  params = jax.device_put(subject.params, sharding.replicated(mesh))
  found = examiner(subject.experiment, mesh)(params, subject.batches(split))
  assert found is not None and found[1] is not None, "there are labels"
  counts_VV = found[1].confusion(len(labels)).astype(np.int64)
  # Ids are sorted by frequency in the training split.
  present = np.flatnonzero(counts_VV.any(0) | counts_VV.any(1))
  columns = present[present > UNKNOWN][:_LABELS]
  rows = [i for i in [*columns, UNKNOWN] if counts_VV[i].any()]
  total_V = np.maximum(counts_VV.sum(1), 1)

  def cell(truth, best):
    n = counts_VV[truth, best]
    share = n / total_V[truth]
    kind = "p" if truth == best else "n"
    level = math.ceil(4 * share) if n else 0
    return element("span", str(n) if n else "", class_=f"{kind}{level} count")

  body = [
    [labels.names([truth])[0], *(cell(truth, best) for best in columns)]
    for truth in rows
  ]
  more = len(labels.symbols) - len(columns)
  return section(
    "Confusion of labels",
    element(
      "p",
      f"A row for each true label of the {split} split,"
      f" {subject.learned(split)}; a column for each predicted label. Orange"
      " cells are correct, blue cells are errors. A stronger colour is a larger"
      " share of the row.",
      f" {more} rare or absent labels are left out." if more else "",
    ),
    page.table(
      ["truth", *labels.names(columns)],
      body,
      "Counts of predicted labels by true label",
      "confusion",
    ),
  )


def _text(symbols: Vocabulary, ids: Any) -> str:
  """Symbols in one line."""
  return "".join(shown(symbols, i) for i in ids if i > PAD).replace("\n", " ")


def _errors(
  subject: Subject, found: list[Prediction], split: str, tags: bool
) -> Element:
  """The wrong predictions with the highest probability."""
  symbols = subject.symbols
  labels = subject.experiment.labels
  wrong = [
    (float(p.probabilities[n][0]), p, n)
    for p in found
    for n, target in enumerate(p.targets)
    if p.ids[n][0] != target
  ]
  wrong.sort(key=lambda item: -item[0])
  total = sum(len(p.targets) for p in found)
  rows = []
  for probability, p, n in wrong[:_ERRORS]:
    if tags:
      t = int(p.positions[n])
      context: list[Any] = [
        _text(symbols, p.inputs[max(t - _CONTEXT, 0) : t]),
        element("mark", _text(symbols, p.inputs[t : t + 1])),
        _text(symbols, p.inputs[t + 1 : t + 1 + _CONTEXT]),
      ]
    else:
      context = [_text(symbols, p.inputs[:_TEXT])]
    rows.append(
      [
        labels.names([p.ids[n][0]])[0],
        f"{probability:.1%}",
        labels.names([p.targets[n]])[0],
        element("code", context),
      ]
    )
  return section(
    "Most confident errors",
    element(
      "p",
      f"{len(wrong):,} of {total:,} predictions in the {split} split,"
      f" {subject.learned(split)}, are wrong. The table has the wrong"
      " predictions with the highest probability.",
    ),
    page.table(
      ["predicted", "probability", "truth", "text"],
      rows,
      "The most confident errors",
      "words",
    ),
  )


def _tagged(subject: Subject, found: list[Prediction], split: str) -> Element:
  """A text coloured by the surprisal of its true tags."""
  labels = subject.experiment.labels
  marks: list[Mark] = []
  for p in found:
    marks += prediction_marks(
      subject.symbols, p, lambda i: labels.names([i])[0]
    )
    marks.append(Mark("\n", "the end of a text"))
    if page.full(marks):
      break
  return section(
    "Tagged text",
    element(
      "p",
      f"The beginning of the {split} split, {subject.learned(split)}. A"
      " stronger colour is a higher surprisal of the true tag. Point at a"
      " symbol to see the most likely tags.",
    ),
    page.marked(
      marks,
      math.log2(len(labels.symbols)),
      f"A text of the {split} split, each symbol coloured by the surprisal of"
      " its tag",
    ),
  )


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


def _weighed(subject: Subject, split: str, tags: bool) -> Element:
  """Texts coloured by the weight of each position in a decision."""
  symbols = subject.symbols
  labels = subject.experiment.labels
  occlude = occluder(subject)
  batch = subject.experiment.batches(split, 0, ordered=True)[0]
  carry = subject.experiment.carry(len(batch["inputs"]))
  decide = sharding.jit(decider(subject.experiment))
  _, (_, best_BN) = jax.device_get(decide(subject.params, carry, batch))
  wrong_BN = (best_BN != batch["targets"]) & (batch["weights"] > 0)
  by_text = subject.experiment.by_text
  shows = []
  for b in _chosen(batch, wrong_BN, by_text):
    targets = np.flatnonzero(batch["weights"][b] > 0)
    wrong = np.flatnonzero(wrong_BN[b])
    n = int(wrong[0] if len(wrong) else targets[len(targets) // 2])
    weights = occlude(batch, int(b), n)
    inputs_T = batch["inputs"][b]
    scale = max(float(np.abs(weights.nats).max()), _LEAST)
    truth, best = labels.names([batch["targets"][b, n], weights.label])
    where = f" for {named(symbols, inputs_T[n])!r}" if tags else ""
    verdict = "correct" if truth == best else f"truth: {truth}"
    shows.append(
      element(
        "div",
        element("h3", f"{best}{where}: {weights.probability:.0%}, {verdict}"),
        page.tinted(
          [
            (shown(symbols, i), nats / scale)
            for i, nats in zip(inputs_T, weights.nats, strict=True)
            if i > END
          ],
          f"A text coloured by the weight of each symbol for the label {best}",
        ),
        class_="cell",
      )
    )
  return section(
    "Weight of each symbol",
    element(
      "p",
      f"Texts of the {split} split. Each symbol in turn is replaced by an"
      " unknown symbol and the decision is computed again (occlusion). Orange:"
      " without the symbol, the label is less likely. Blue: without the symbol,"
      " the label is more likely. The strongest colour is the largest change in"
      " the text.",
      " Of a text that is longer than a window, this is the decision on its"
      " first window."
      if by_text
      else "",
    ),
    element("div", shows, class_="pairs"),
  )
