"""Predictions of a model: symbols, labels or numbers, and filled gaps."""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import chain, groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.markup import escape

from seqrnn.data.documents import Document
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import PAD, UNKNOWN, joined, printable
from seqrnn.errors import escaped
from seqrnn.experiment import Carry, Experiment, Params
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

_LENGTH = 60  # Characters of a text in a table, at most.
_TARGETS = 8  # Targets that the text of a Prediction has, at most.
_NONE = np.empty((0, 0))

SHOWN = 40  # Symbols of each sequence in a table.


class Prediction(NamedTuple):
  """The predictions for a text with labels, a window, or a part of a stream.

  N targets, T inputs; K most likely symbols or labels, or V numbers. Symbols
  and labels are strings; a control character is escaped.

  Example:
    >>> [found] = run.predict("import os", top_k=2)
    >>> found.likely[-1], found.probabilities[-1]
    (['s', 'p'], array([0.93, 0.02], dtype=float32))

  Attributes:
    document: index of the document.
    inputs: ids [T].
    read: symbols of the data, which may not be in the vocabulary; "" at the
      begin symbol and at a gap [T].
    positions: of the targets in the row of outputs [N].
    targets: true ids [N], UNKNOWN for a truth that is unknown or not in the
      vocabulary; or true numbers [N] or [N, V], NaN if they are unknown.
    truth: true symbols or labels of the data, which may not be in the
      vocabulary, or true numbers as text; "" if the truth is unknown [N].
    surprisal: -log p(target), in nats [N]. A symbol that is not in the
      vocabulary has the surprisal of the unknown symbol, such a label infinity.
    ids: the ids of `likely` [N, K].
    probabilities: of `likely`, from 0 to 1 [N, K].
    numbers: the outputs of a task that predicts numbers [N, V]. A task that
      predicts numbers has no surprisal, ids, probabilities and likely.
    likely: the most likely symbols or labels of each target, best first [N, K].
      With `model.crf`, first that of the most likely sequence.
  """

  document: int
  inputs: np.ndarray
  read: list[str]
  positions: np.ndarray
  targets: np.ndarray
  truth: list[str]
  surprisal: np.ndarray = _NONE
  ids: np.ndarray = _NONE
  probabilities: np.ndarray = _NONE
  numbers: np.ndarray = _NONE
  likely: list[list[str]] = []

  @property
  def best(self) -> list[str]:
    """The most likely symbol or label of each target [N]."""
    return [names[0] for names in self.likely]

  def __repr__(self) -> str:
    """The first targets, each with its truth and the most likely answer."""
    answers = self.best or [number_text(row) for row in self.numbers]
    pairs = zip(self.truth[:_TARGETS], answers, strict=False)
    parts = [f"{truth!r}: {answer!r}" for truth, answer in pairs]
    parts += [f"{len(answers) - _TARGETS} more"] * (len(answers) > _TARGETS)
    return f"Prediction({'; '.join(parts)})"

  def text(self, unit: str, start: int = 0, stop: int | None = None) -> str:
    """The text of inputs `start` to `stop`, with U+FFFD for a gap."""
    pairs = zip(self.inputs[start:stop], self.read[start:stop], strict=True)
    symbols = (symbol or "\ufffd" for i, symbol in pairs if i >= UNKNOWN)
    return joined(symbols, unit)

  def source(self, unit: str, n: int) -> str:
    """The symbol of target n, or the whole text if it has only one target."""
    if len(self.targets) == 1:
      return self.text(unit)
    return self.text(unit, self.positions[n], self.positions[n] + 1)


def decider(
  experiment: Experiment,
) -> Callable[..., tuple[Carry, tuple[jax.Array, jax.Array]]]:
  """A function params, carry, batch -> carry, (outputs_BNV, best ids_BN)."""
  assert experiment.predict is not None, "there are labels"
  return experiment.decode or best_of_each(experiment.predict)


@lru_cache(CACHED_FUNCTIONS)
def best_of_each(predict: Callable[..., Any]) -> Callable[..., Any]:
  """`Experiment.decode` by the most likely id of each target."""

  def decide(params, carry, batch):
    carry, logits_BNV = predict(params, carry, batch)
    return carry, (logits_BNV, jnp.argmax(logits_BNV, axis=-1))

  return decide


_jitted = lru_cache(CACHED_FUNCTIONS)(sharding.jit)


@lru_cache(CACHED_FUNCTIONS)
def ranker(
  decide: Callable[..., Any], k: int, mesh: Mesh | None = None
) -> Callable[..., Any]:
  """A jitted function params, carry, batch -> carry, (ids, p, surprisal).

  These are the best id of `decide`, the most likely others and their
  probabilities [B, N, K], and the surprisal of the targets [B, N].
  """

  @partial(sharding.jit, mesh=mesh)
  def rank(params, carry, batch):
    carry, (logits_BNV, best_BN) = decide(params, carry, batch)
    logs_BNV = jax.nn.log_softmax(logits_BNV)
    V = logs_BNV.shape[-1]
    first_BNV = jax.nn.one_hot(best_BN, V, dtype=bool)
    ranks_BNV = jnp.where(first_BNV, 1, logs_BNV)  # Logs are at most 0.
    _, ids_BNK = jax.lax.top_k(ranks_BNV, min(k, V))
    logs_BNK = jnp.take_along_axis(logs_BNV, ids_BNK, axis=-1)
    true_BN1 = jnp.take_along_axis(
      logs_BNV, batch["targets"][..., None], axis=-1
    )
    return carry, (ids_BNK, jnp.exp(logs_BNK), -true_BN1[..., 0])

  return rank


def predictions(
  experiment: Experiment,
  params: Params,
  split: str | Pieces | list[Document],
  k: int,
) -> Iterator[Prediction]:
  """Yields the predictions for the sequences of a split or of documents.

  The windows of a text with labels are joined.
  """
  every = _rows(experiment, params, split, k)
  if experiment.labels is not None:
    documents = groupby(every, lambda row: row[1].document)
    every = ((0, _joined(experiment, [*rows], k)) for _, rows in documents)
  yield from (one for _, one in every if len(one.positions))


def _joined(
  experiment: Experiment, rows: list[tuple[int, Prediction]], k: int
) -> Prediction:
  """The prediction for a text, from its windows and their places.

  The probabilities of a text's label are the mean over its windows.
  """
  start, first = rows[0]
  parts = [p for _, p in rows]
  names = ["inputs", "read"]
  if not experiment.by_text:
    names += "targets", "truth", "surprisal", "ids", "probabilities", "likely"
  columns = {name: [getattr(p, name) for p in parts] for name in names}
  joined = first._replace(
    **{
      name: [*chain(*every)]
      if isinstance(every[0], list)
      else np.concatenate(every)
      for name, every in columns.items()
    }
  )
  if not experiment.by_text:
    places = [p.positions + at - start for at, p in rows]
    return joined._replace(positions=np.concatenate(places))
  parts = [p for p in parts if len(p.positions)]
  if len(parts) > 1:
    ids = np.sort(first.ids, axis=1)
    each = [
      np.take_along_axis(p.probabilities, p.ids.argsort(axis=1), axis=1)
      for p in parts
    ]
    mean = np.mean(each, axis=0)
    order = np.argsort(-mean, axis=1, kind="stable")
    nll = np.logaddexp.reduce([-p.surprisal for p in parts])
    joined = joined._replace(
      surprisal=np.log(len(parts)) - nll,
      ids=np.take_along_axis(ids, order, axis=1),
      probabilities=np.take_along_axis(mean, order, axis=1),
    )
  ids = joined.ids[:, :k]
  return joined._replace(
    ids=ids,
    probabilities=joined.probabilities[:, :k],
    likely=[experiment.names.names(ids_K) for ids_K in ids],
  )


def _rows(
  experiment: Experiment,
  params: Params,
  split: str | Pieces | list[Document],
  k: int,
) -> Iterator[tuple[int, Prediction]]:
  """Yields the place of each row, and its predictions; all with `by_text`."""
  names, predict = experiment.names, experiment.predict
  assert predict is not None, "checked by the caller"
  answer: Any = _jitted(predict)
  if names is not None:
    if experiment.labels is not None:  # Reserved ids are not labels.
      V = len(names.symbols)
      k = V if experiment.by_text else min(k, V)
    answer = ranker(decider(experiment), k)
  carry = None
  for batch in experiment.batches(split, 0, ordered=True, named=True):
    read_BT, truth_BN = batch.pop("read"), batch.pop("truth", None)
    if carry is None:
      carry = experiment.carry(len(batch["inputs"]))
    carry, ranked = answer(params, carry, batch)
    ranked = jax.tree.leaves(jax.device_get(ranked))
    for row, weights_N in enumerate(batch["weights"]):
      positions = np.flatnonzero(weights_N)
      inputs = batch["inputs"][row]
      if not (inputs != PAD).any():
        continue
      targets = batch["targets"][row][positions]
      answers = [x[row][positions] for x in ranked]
      if names is None:
        truth = [number_text(target) for target in targets]
        fields = {"numbers": answers[0]}
      else:
        truth = [
          printable(symbol, names.unit) if target == UNKNOWN else name
          for target, name, symbol in zip(
            targets, names.names(targets), truth_BN[row][positions], strict=True
          )
        ]
        kinds = ("ids", "probabilities", "surprisal")
        likely = [names.names(ids_K) for ids_K in answers[0]]
        fields = dict(zip(kinds, answers, strict=True), likely=likely)
      prediction = Prediction(
        int(batch["document"][row]),
        inputs[inputs != PAD],
        read_BT[row][inputs != PAD].tolist(),
        positions,
        targets,
        truth,
        **fields,
      )
      yield int(batch["place"][row]), prediction


def console_text(text: str) -> str:
  """Untrusted text, escaped for rich's markup and the terminal."""
  return escape(escaped(text, keep="\n\t"))


def quoted(name: str) -> str:
  """A symbol's name for a table, in which blanks are quoted to be visible."""
  return console_text(name if name.strip() else repr(name))


def shortened(text: str) -> str:
  """The beginning of a text, for a table."""
  return console_text(text if len(text) <= _LENGTH else f"{text[:_LENGTH]}...")


def number_text(numbers: Any) -> str:
  """Numbers as text; "" if any of them is unknown."""
  values = np.ravel(numbers).tolist()
  if any(map(math.isnan, values)):
    return ""
  return " ".join(f"{value:.6g}" for value in values)


def likely(prediction: Prediction, n: int) -> str:
  """The most likely symbols or labels of a target, with probabilities."""
  each = zip(prediction.likely[n], prediction.probabilities[n], strict=True)
  return "  ".join(f"{quoted(name)} {chance:.3f}" for name, chance in each)
