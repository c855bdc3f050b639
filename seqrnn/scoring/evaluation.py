"""Metrics of a split, summed over its batches."""

from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.batches.windows import Batches
from seqrnn.data.vocabulary import RESERVED, UNKNOWN, Vocabulary
from seqrnn.experiment import Carry, Experiment, Params
from seqrnn.models import losses
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import spans
from seqrnn.scoring.predictions import decider

# Pending batches; more would take memory and no less time.
_PENDING = 8
# Of a batch, [B, N] or [B].
_COLUMNS = "targets", "weights", "spans", "document", "place"


class LabelRows(NamedTuple):
  """The labels that a model predicts for a split, text by text.

  Attributes:
    target: true ids [N], UNKNOWN for a label that training has not seen.
    best: predicted ids [N].
    weight: of the targets [N].
    begins: whether a text begins there, bool [N].
    codes: the column `spans` of the batches [N]; None: they have none.
    log_p: of all ids [N, V], where a text has one label (`by_text`); else None.
    joined: whether several rows were joined to one label.
  """

  target: np.ndarray
  best: np.ndarray
  weight: np.ndarray
  begins: np.ndarray
  codes: np.ndarray | None = None
  log_p: np.ndarray | None = None
  joined: bool = False

  def confusion(self, V: int) -> np.ndarray:
    """The weights of targets [truth, predicted], [V, V]."""
    counts_VV = np.zeros((V, V))
    np.add.at(counts_VV, (self.target, self.best), self.weight)
    return counts_VV

  def span_counts(self, labels: Vocabulary) -> np.ndarray | None:
    """As `spans.count_spans`; None if the labels mark no spans."""
    if self.log_p is not None or not spans.types(labels):
      return None
    # An unknown tag is a span by itself, of a type that no other tag has.
    names = ["", *labels.symbols]
    code_V = np.pad(spans.codes(labels, names), (len(RESERVED) - 1, 0))
    true_N = code_V[self.target] if self.codes is None else self.codes
    return spans.count_spans(labels, true_N, code_V[self.best], self.begins)


def evaluator(
  experiment: Experiment, mesh: Mesh
) -> Callable[..., dict[str, float] | None]:
  """`examiner`, without the answers."""
  examine = examiner(experiment, mesh)
  return lambda *args: (examine(*args) or (None,))[0]


def examiner(
  experiment: Experiment, mesh: Mesh
) -> Callable[..., tuple[dict[str, float], LabelRows | None] | None]:
  """A function params, batches, stop -> metrics, and the labels if it has any.

  It is compiled once per experiment. It calls `stop` before each batch; when
  the result is true, it returns None. The windows of a text with labels are
  joined: figures are of whole texts.
  """
  joins = experiment.labels is not None or experiment.figures is not None
  decide = decider(experiment) if joins else None
  gives = experiment.gives if experiment.by_text else ""
  totals = totals_of(experiment.loss, decide, gives)
  zeros, add = adder(totals, mesh)
  start = sharding.carry_init(experiment.carry, mesh)

  def examine(
    params: Params, batches: Batches, stop: Callable[[], Any] = lambda: False
  ) -> tuple[dict[str, float], LabelRows | None] | None:
    B = batches.batch_size
    first, end = sharding.local_rows(B, mesh)
    sums, carry, pending, parts = None, (), deque(), []

    def fetch():
      rows, answers, sums = pending.popleft()
      jax.block_until_ready(sums)
      if joins:
        parts.append(_flat(rows, sharding.own_rows(answers)))

    for rows in batches.rows(first, end):
      if stop():
        return None
      columns = {name: rows[name] for name in _COLUMNS if name in rows}
      for name in ("document", "place", "spans"):
        rows.pop(name, None)
      batch = sharding.put(rows, B, mesh)
      if sums is None:
        carry = start(batch["inputs"].shape[0])
        sums = zeros(params, carry, batch)
      carry, sums, answers = add(params, carry, sums, batch)
      pending.append((columns, answers, sums))
      if len(pending) > _PENDING:
        fetch()
    assert sums is not None, "a split has at least one batch"
    while pending:
      fetch()
    figures = losses.means(sharding.sum_devices(sums, mesh), experiment.in_bits)
    if not joins:
      return figures, None
    columns = {
      name: np.concatenate([part[name] for part in parts]) for name in parts[0]
    }
    columns = sharding.gather_rows(columns, mesh)
    if experiment.figures is not None:
      return figures | experiment.figures(*_numbers(columns)), None
    answers = _join(columns)
    return figures | _of_texts(experiment, answers), answers

  return examine


def _flat(rows: dict[str, np.ndarray], answers: np.ndarray) -> dict[str, Any]:
  """The columns of a batch as [B * N], and `best`, or `outputs` [B, V]."""
  B, N = rows["targets"].shape[:2]
  columns = {
    name: sharding.pad_rows(x, len(answers)) for name, x in rows.items()
  }
  columns["document"] = np.repeat(columns["document"], N)
  columns["place"] = columns["place"][:, None] + np.arange(N)
  columns["outputs" if answers.dtype.kind == "f" else "best"] = answers
  return {
    name: x if name == "outputs" else x.reshape(-1, *x.shape[2:])
    for name, x in columns.items()
  }


def _numbers(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """The true numbers of documents, and the means over their rows, [N, V]."""
  some = columns["weights"] > 0
  _, firsts, document = np.unique(
    columns["document"][some], return_index=True, return_inverse=True
  )
  means_NV = np.zeros((len(firsts), columns["outputs"].shape[1]))
  np.add.at(means_NV, document, columns["outputs"][some])
  means_NV /= np.bincount(document)[:, None]
  return columns["targets"][some][firsts].astype(np.float64), means_NV


def _join(columns: dict[str, np.ndarray]) -> LabelRows:
  """The answers in the order of their places.

  The probabilities of a text's label are the mean over its windows.
  """
  some = np.flatnonzero(columns["weights"] > 0)
  order = some[np.argsort(columns["place"][some], kind="stable")]
  ordered = {name: x[order] for name, x in columns.items()}
  document, target = ordered["document"], ordered["targets"]
  begins = np.diff(document, prepend=-1) != 0
  weight = ordered["weights"]
  if "outputs" not in columns:
    best, codes = ordered["best"], ordered.get("spans")
    return LabelRows(target, best, weight, begins, codes)
  firsts = np.flatnonzero(begins)
  counts = np.diff(firsts, append=len(document))
  log_p = np.logaddexp.reduceat(ordered["outputs"].astype(np.float64), firsts)
  log_p -= np.log(counts)[:, None]
  return LabelRows(
    target[firsts],
    log_p.argmax(axis=1),
    weight[firsts],
    begins[firsts],
    log_p=log_p,
    joined=len(firsts) < len(document),
  )


def _of_texts(experiment: Experiment, answers: LabelRows) -> dict[str, float]:
  """The figures that differ where texts are cut into windows or decoded."""
  counts_3K = answers.span_counts(experiment.labels)
  figures = {} if counts_3K is None else spans.figures(counts_3K.sum(axis=1))
  if answers.joined:
    assert answers.log_p is not None, "windows of a text with one label"
    weight, known = answers.weight, answers.target > UNKNOWN
    log_p = answers.log_p[np.arange(len(known)), answers.target]
    figures["loss"] = float(-np.average(log_p[known], weights=weight[known]))
  if answers.joined or experiment.decode is not None:
    counts_VV = answers.confusion(len(experiment.labels))
    hits_V, either_V = counts_VV.diagonal(), counts_VV.sum(0) + counts_VV.sum(1)
    there_V = either_V > 0
    figures["accuracy"] = float(hits_V.sum() / counts_VV.sum())
    figures["macro_f1"] = float(
      np.mean(2 * hits_V[there_V] / either_V[there_V])
    )
  return figures


@lru_cache(CACHED_FUNCTIONS)
def totals_of(
  loss: Callable, decide: Callable | None, gives: str
) -> Callable[..., tuple[Carry, tuple[Any, Any]]]:
  """A function params, carry, batch -> carry, (totals, answers).

  Answers to labels are their best ids [B, N]; where a text has one label, the
  log-probabilities of all ids, or its numbers, [B, V]; without `decide` ().

  Args:
    loss: of the experiment.
    decide: as `decider` returns it, or None.
    gives: `Experiment.gives` where a text has one target, else "".
  """

  def count(params, carry, batch):
    after, figures = loss(params, carry, batch, None)[1]
    if decide is None:
      return after, (figures, ())
    _, (outputs_BNV, best_BN) = decide(params, carry, batch)
    if gives:
      outputs_BV = outputs_BNV[:, 0]
      log_p = gives == "softmax"
      return after, (
        figures,
        jax.nn.log_softmax(outputs_BV) if log_p else outputs_BV,
      )
    return after, (figures, best_BN)

  return count


@lru_cache(CACHED_FUNCTIONS)
def adder(
  totals: Callable[..., Any], mesh: Mesh
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Jitted functions that start and extend the sums of batches.

  They map params, carry, batch to sums that are zero, and params, carry, sums,
  batch to carry, sums, answers. Each device has sums of its own rows, because a
  sum over all devices would make them wait for each other at each batch.

  Args:
    totals: as `totals_of` returns it.
    mesh: of the devices.
  """
  by_rows = sharding.by_rows(mesh)

  @partial(sharding.jit, mesh=mesh, out_shardings=by_rows)
  def zeros(params, carry, batch):
    sums = losses.zero_sums(jax.eval_shape(totals, params, carry, batch)[1][0])
    return jax.tree.map(lambda x: jnp.stack([x] * mesh.size), sums)

  @partial(sharding.jit, mesh=mesh, out_shardings=by_rows)
  @partial(sharding.each_device, mesh=mesh)
  def add(params, carry, sums, batch):
    carry, (figures, answers) = totals(params, carry, batch)
    new = losses.add_totals(jax.tree.map(lambda x: x[0], sums), figures)
    return carry, jax.tree.map(lambda x: x[None], new), answers

  return zeros, add
