"""Predictions of a model: symbols, labels or numbers, and filled gaps."""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.markup import escape

from seqrnn.data.documents import Document
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import PAD, UNKNOWN, joined, printable
from seqrnn.errors import escaped
from seqrnn.experiment import Carry, Experiment, Params
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

_LENGTH = 60  # Characters of a text in a table, at most.
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


@lru_cache(CACHED_FUNCTIONS)
def ranker(decide: Callable[..., Any], k: int) -> Callable[..., Any]:
  """A jitted function params, carry, batch -> carry, (ids, p, surprisal).

  These are the best id of `decide`, the most likely others and their
  probabilities [B, N, K], and the surprisal of the targets [B, N].
  """

  @sharding.jit
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

  The windows of a text with labels or numbers are joined.
  """
  rows = _rows(experiment, params, split, k)
  if experiment.labels is not None or experiment.by_text:
    documents = groupby(rows, lambda row: row["document"])
    rows = (_joined([*some], experiment.by_text) for _, some in documents)
  yield from (
    _prediction(experiment, x, k) for x in rows if len(x["positions"])
  )


def _rows(
  experiment: Experiment,
  params: Params,
  split: str | Pieces | list[Document],
  k: int,
) -> Iterator[dict[str, Any]]:
  """Yields the arrays of each row, of its inputs [T] or its targets [N].

  They have the names of `Prediction`, and `place`, of the row, from which
  positions count, too; with `by_text` all labels are ranked.
  """
  names, predict = experiment.names, experiment.predict
  assert predict is not None, "checked by the caller"
  answer: Any = sharding.cached_jit(predict)
  kinds = ["numbers"]
  if names is not None:
    if experiment.labels is not None:  # Reserved ids are not labels.
      V = len(names.symbols)
      k = V if experiment.by_text else min(k, V)
    answer = ranker(decider(experiment), k)
    kinds = ["ids", "probabilities", "surprisal"]
  carry = None
  for batch in experiment.batches(split, 0, ordered=True, named=True):
    read_BT, truth = batch.pop("read"), batch.pop("truth", batch["targets"])
    if carry is None:
      carry = experiment.carry(len(batch["inputs"]))
    carry, answers = answer(params, carry, batch)
    answers = jax.tree.leaves(jax.device_get(answers))
    of_targets = dict(zip(kinds, answers, strict=True))
    of_targets |= {"targets": batch["targets"], "truth": truth}
    for b, weights_N in enumerate(batch["weights"]):
      place, targets = int(batch["place"][b]), np.flatnonzero(weights_N)
      is_read = batch["inputs"][b] != PAD
      if is_read.any():
        yield {
          "document": int(batch["document"][b]),
          "place": place,
          "inputs": batch["inputs"][b][is_read],
          "read": read_BT[b][is_read],
          "positions": place + targets,
          **{name: x[b][targets] for name, x in of_targets.items()},
        }


def _joined(rows: list[dict[str, Any]], by_text: bool) -> dict[str, Any]:
  """The row of a text, from those of its windows.

  The probabilities of a text's label, or its numbers, are the mean over its
  windows.
  """
  first = rows[0]
  names = first.keys() - {"document", "place"}
  row = first | {n: np.concatenate([one[n] for one in rows]) for n in names}
  count = len(row["positions"])
  if not by_text or count < 2:
    return row
  row |= {name: first[name] for name in ("positions", "targets", "truth")}
  if "numbers" in row:
    return row | {"numbers": row["numbers"].mean(0, keepdims=True)}
  by_id = np.argsort(row["ids"], axis=1)
  mean_V = np.take_along_axis(row["probabilities"], by_id, axis=1).mean(0)
  best_V = np.argsort(-mean_V, kind="stable")
  log_p = np.logaddexp.reduce(-row["surprisal"][:, None])
  return row | {
    "ids": np.sort(first["ids"])[:, best_V],
    "probabilities": mean_V[None, best_V],
    "surprisal": np.log(count) - log_p,
  }


def _prediction(
  experiment: Experiment, row: dict[str, Any], k: int
) -> Prediction:
  names, targets = experiment.names, row["targets"]
  if names is None:
    answers = {"numbers": row["numbers"]}
    truth = [number_text(target) for target in targets]
  else:
    ids = row["ids"][:, :k]
    answers = {
      "ids": ids,
      "probabilities": row["probabilities"][:, :k],
      "surprisal": row["surprisal"],
      "likely": [names.names(ids_K) for ids_K in ids],
    }
    of_data = zip(targets, names.names(targets), row["truth"], strict=True)
    truth = [
      printable(symbol, names.unit) if target == UNKNOWN else name
      for target, name, symbol in of_data
    ]
  return Prediction(
    row["document"],
    row["inputs"],
    row["read"].tolist(),
    row["positions"] - row["place"],
    targets,
    truth,
    **answers,
  )


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
