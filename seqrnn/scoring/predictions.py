"""Predictions of a model: symbols, labels or numbers, and filled gaps."""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain, groupby
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.markup import escape

from seqrnn.data.batches.segments import Split
from seqrnn.data.vocabulary import PAD, UNKNOWN, joined, printable
from seqrnn.errors import escaped
from seqrnn.experiment import Carry, Decode, Experiment, Params, Predict
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring.joining import log_mean_of_windows, mean_of_windows

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


def decider(experiment: Experiment) -> Decode:
  """`Experiment.decode`, also of a task that has none."""
  assert experiment.predict is not None, "there are labels"
  return experiment.decode or best_of_each(experiment.predict)


@lru_cache(CACHED_FUNCTIONS)
def best_of_each(predict: Predict) -> Decode:
  """`Experiment.decode` by the most likely id of each target."""

  def decide(params, carry, batch):
    carry, logits_BNV = predict(params, carry, batch)
    return carry, (logits_BNV, jnp.argmax(logits_BNV, axis=-1))

  return decide


class Ranking(NamedTuple):
  """The most likely ids of each target, best first, of a batch.

  Attributes:
    surprisal: of the target, in nats [B, N].
    ids: int32 [B, N, K].
    probabilities: of them [B, N, K].
  """

  surprisal: jax.Array
  ids: jax.Array
  probabilities: jax.Array


def rank(
  logits_BNV: jax.Array, best_BN: jax.Array, targets_BN: jax.Array, k: int
) -> Ranking:
  """The k most likely ids, of which best_BN is the first."""
  logs_BNV = jax.nn.log_softmax(logits_BNV)
  V = logs_BNV.shape[-1]
  first_BNV = jax.nn.one_hot(best_BN, V, dtype=bool)
  ranks_BNV = jnp.where(first_BNV, 1, logs_BNV)  # Logs are at most 0.
  _, ids_BNK = jax.lax.top_k(ranks_BNV, min(k, V))
  logs_BNK = jnp.take_along_axis(logs_BNV, ids_BNK, axis=-1)
  true_BN1 = jnp.take_along_axis(logs_BNV, targets_BN[..., None], axis=-1)
  return Ranking(-true_BN1[..., 0], ids_BNK, jnp.exp(logs_BNK))


@lru_cache(CACHED_FUNCTIONS)
def ranker(decide: Decode, k: int) -> Callable[..., tuple[Carry, Ranking]]:
  """A jitted function params, carry, batch -> carry, ranking.

  The best id is that of `decide`.
  """

  @sharding.jit
  def ranked(params, carry, batch):
    carry, (logits_BNV, best_BN) = decide(params, carry, batch)
    return carry, rank(logits_BNV, best_BN, batch["targets"], k)

  return ranked


def predictions(
  experiment: Experiment, params: Params, split: Split, k: int
) -> Iterator[Prediction]:
  """Yields the predictions for the sequences of a split or of documents.

  The windows of a text with labels or numbers are joined.
  """
  joins = experiment.labels is not None or experiment.by_text
  rows = _rows(experiment, params, split, k, joins)
  if joins:
    documents = groupby(rows, lambda p: p.document)
    rows = (_joined([*some], experiment.by_text) for _, some in documents)
  for p in rows:
    if len(p.positions):
      ids, chances = p.ids[:, :k], p.probabilities[:, :k]
      # Numbers have no ids.
      likely = [experiment.names.names(ids_K) for ids_K in ids]
      yield p._replace(ids=ids, probabilities=chances, likely=likely)


def _rows(
  experiment: Experiment, params: Params, split: Split, k: int, joins: bool
) -> Iterator[Prediction]:
  """Yields the predictions for each row of the batches, without `likely`.

  With `joins`, positions count from the first row of a document. With `by_text`
  all labels are ranked.
  """
  names, predict = experiment.names, experiment.predict
  assert predict is not None, "checked by the caller"
  answer = sharding.cached_jit(predict)
  if names is not None:
    if experiment.labels is not None:  # Reserved ids are not labels.
      V = len(names.symbols)
      k = V if experiment.by_text else min(k, V)
    answer = ranker(decider(experiment), k)
  carry, last, first = None, None, 0
  for batch in experiment.batches(split, 0, ordered=True, named=True):
    read_BT, truth = batch.pop("read"), batch.pop("truth", batch["targets"])
    if carry is None:
      carry = experiment.carry(len(batch["inputs"]))
    carry, answers = jax.device_get(answer(params, carry, batch))
    named = {"numbers": answers} if names is None else answers._asdict()
    for b, weights_N in enumerate(batch["weights"]):
      document, place = int(batch["document"][b]), int(batch["place"][b])
      at, is_read = np.flatnonzero(weights_N), batch["inputs"][b] != PAD
      if not is_read.any():
        continue
      if not joins or document != last:
        last, first = document, place
      yield Prediction(
        document,
        batch["inputs"][b][is_read],
        read_BT[b][is_read].tolist(),
        place - first + at,
        batch["targets"][b][at],
        _truth(experiment, batch["targets"][b][at], truth[b][at]),
        **{name: x[b][at] for name, x in named.items()},
      )


def _truth(
  experiment: Experiment, targets: np.ndarray, of_data: np.ndarray
) -> list[str]:
  """The names of targets, or numbers; of an unknown name, that of the data."""
  names = experiment.names
  if names is None:
    return [*map(number_text, targets)]
  each = zip(targets, names.names(targets), of_data, strict=True)
  return [printable(x, names.unit) if i == UNKNOWN else n for i, n, x in each]


def _joined(windows: list[Prediction], by_text: bool) -> Prediction:
  """The predictions for a text, from those for its windows.

  The probabilities of a text's label, or its numbers, are the mean over its
  windows.
  """
  first = windows[0]
  _, *columns = zip(*windows, strict=True)
  join = lambda x: [*chain(*x)] if type(x[0]) is list else np.concatenate(x)
  text = Prediction._make([first.document, *map(join, columns)])
  if not by_text or len(text.positions) < 2:
    return text
  text = text._replace(
    positions=first.positions, targets=first.targets, truth=first.truth
  )
  start = np.zeros(1, int)
  if len(text.numbers):
    numbers = mean_of_windows(text.numbers, start)
    return text._replace(numbers=numbers.astype(text.numbers.dtype))
  by_id = np.argsort(text.ids, axis=1)
  p_NV = np.take_along_axis(text.probabilities, by_id, axis=1)
  p_1V = mean_of_windows(p_NV, start).astype(p_NV.dtype)
  best_1V = np.argsort(-p_1V, kind="stable")
  return text._replace(
    ids=np.take_along_axis(np.sort(first.ids), best_1V, axis=1),
    probabilities=np.take_along_axis(p_1V, best_1V, axis=1),
    surprisal=-log_mean_of_windows(-text.surprisal[:, None], start)[:, 0],
  )


def mistakes(rows: list[Prediction]) -> list[tuple[float, Prediction, int]]:
  """The wrong predictions, the worst first.

  Returns:
    the surprisal of the truth, or the distance of numbers, of which several are
    scaled and then added; the prediction; and the index of its target.
  """
  if rows and not rows[0].likely:
    off_NC = np.abs([np.ravel(p.numbers - p.targets) for p in rows])
    far_N = (off_NC / np.maximum(off_NC.mean(0), 1e-30)).sum(1)
    wrong = [(far, p, 0) for far, p in zip(far_N, rows, strict=True)]
  else:
    wrong = [
      (p.surprisal[n], p, n)
      for p in rows
      for n in np.flatnonzero(np.array(p.best) != p.truth).tolist()
    ]
  return sorted(wrong, key=lambda mistake: -mistake[0])


def console_text(text: str) -> str:
  """Untrusted text, escaped for rich's markup and the terminal."""
  return escape(escaped(text, keep="\n\t"))


def quoted(name: str) -> str:
  """A symbol's name for a table, in which blanks are quoted to be visible."""
  return console_text(name if name.strip() else repr(name))


def number_text(numbers: np.ndarray) -> str:
  """Numbers as text; "" if any of them is unknown."""
  values = np.ravel(numbers).tolist()
  if any(map(math.isnan, values)):
    return ""
  return " ".join(f"{value:.6g}" for value in values)


def likely(prediction: Prediction, n: int) -> str:
  """The most likely symbols or labels of a target, with probabilities."""
  each = zip(prediction.likely[n], prediction.probabilities[n], strict=True)
  return "  ".join(f"{quoted(name)} {chance:.3f}" for name, chance in each)
