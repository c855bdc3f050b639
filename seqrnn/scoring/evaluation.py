"""Metrics of a split, summed over its batches."""

from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.data.batches.windows import Batches
from seqrnn.data.read.columns import Arrays
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.experiment import Batch, Carry, Experiment, Params, Totals
from seqrnn.models import losses
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import spans
from seqrnn.scoring.joining import LabelRows, labels_of_texts, numbers_of_texts
from seqrnn.scoring.predictions import decider

# Pending batches; more would take memory and no less time.
_PENDING = 8
# Of a batch, [B, N] or [B].
COLUMNS = "targets", "weights", "spans", "document", "place"

# A function params, carry, batch -> carry, (totals, answers).
CountRows = Callable[
  [Params, Carry, Batch], tuple[Carry, tuple[Totals, jax.Array | tuple[()]]]
]
Figures = dict[str, float]  # By name.
# What a split gives: its figures, and the labels if it has any.
Examined = tuple[Figures, LabelRows | None]


def examiner(
  experiment: Experiment, mesh: Mesh
) -> Callable[..., Examined | None]:
  """A function params, batches, stop -> metrics, and the labels if it has any.

  It is compiled once per experiment. It calls `stop` before each batch; when
  the result is true, it returns None. The windows of a text with labels are
  joined: figures are of whole texts.
  """
  joins = experiment.labels is not None or experiment.figures is not None
  decide = decider(experiment) if joins else None
  gives = experiment.gives if experiment.by_text else ""
  zeros, add = adder(totals_of(experiment.loss, decide, gives), mesh)
  start = sharding.carry_init(experiment.carry, mesh)

  def examine(
    params: Params, batches: Batches, stop: Callable[[], int] = lambda: False
  ) -> Examined | None:
    B = batches.batch_size
    sums, carry, pending, columns = None, (), deque(), []

    def fetch():
      rows, answers, sums = pending.popleft()
      jax.block_until_ready(sums)
      if joins:
        columns.append(flat_columns(rows, sharding.own_rows(answers)))

    for rows in batches.rows(*sharding.local_rows(B, mesh)):
      if stop():
        return None
      known = {name: rows[name] for name in COLUMNS if name in rows}
      for name in ("document", "place", "spans"):
        rows.pop(name, None)
      batch = sharding.put(rows, B, mesh)
      if sums is None:
        carry = start(batch["inputs"].shape[0])
        sums = zeros(params, carry, batch)
      carry, sums, answers = add(params, carry, sums, batch)
      pending.append((known, answers, sums))
      if len(pending) > _PENDING:
        fetch()
    assert sums is not None, "a split has at least one batch"
    while pending:
      fetch()
    sums = sharding.gather_rows(jax.tree.map(sharding.own_rows, sums), mesh)
    totals = jax.tree.map(lambda x: x.sum(axis=0), sums)
    figures = losses.means(totals, experiment.in_bits)
    return _of_texts(experiment, figures, columns, mesh)

  return examine


def examine_split(
  experiment: Experiment, params: Params, split: str
) -> Examined:
  """The metrics of a split, and the labels if it has any, on all devices."""
  mesh = sharding.mesh()
  params = jax.device_put(params, sharding.replicated(mesh))
  batches = experiment.batches(split, None)
  examined = examiner(experiment, mesh)(params, batches)
  assert examined is not None, "nothing stops it"
  return examined


def flat_columns(rows: Arrays, answers: np.ndarray) -> Arrays:
  """The columns of a batch as [B * N], and `best`, or `outputs` [B, V]."""
  B, N = rows["targets"].shape[:2]
  columns = {n: sharding.pad_rows(x, len(answers)) for n, x in rows.items()}
  columns["document"] = np.repeat(columns["document"], N)
  columns["place"] = columns["place"][:, None] + np.arange(N)
  columns["outputs" if answers.dtype.kind == "f" else "best"] = answers
  return {
    name: x if name == "outputs" else x.reshape(-1, *x.shape[2:])
    for name, x in columns.items()
  }


def _of_texts(
  experiment: Experiment, figures: Figures, batches: list[Arrays], mesh: Mesh
) -> Examined:
  """The figures, with those of texts that are cut or decoded; and the labels.

  Args:
    experiment: the task.
    figures: of all batches.
    batches: the columns of each; empty: the task has no labels or numbers.
    mesh: of the devices.
  """
  if not batches:
    return figures, None
  columns = {
    name: np.concatenate([batch[name] for batch in batches])
    for name in batches[0]
  }
  columns = sharding.gather_rows(columns, mesh)
  if experiment.figures is not None:
    return figures | experiment.figures(*numbers_of_texts(columns)), None
  answers = labels_of_texts(columns)
  counts_3K = answers.span_counts(experiment.labels)
  if counts_3K is not None:
    figures |= spans.figures(counts_3K.sum(axis=1))
  if answers.joined:
    assert answers.log_p is not None, "windows of a text with one label"
    weight, known = answers.weight, answers.target > UNKNOWN
    log_p = answers.log_p[np.arange(len(known)), answers.target]
    figures["loss"] = float(-np.average(log_p[known], weights=weight[known]))
  if answers.joined or experiment.decode is not None:
    counts_VV = answers.confusion(len(experiment.labels))
    hits_V, either_V = counts_VV.diagonal(), counts_VV.sum(0) + counts_VV.sum(1)
    some_V = either_V > 0
    f1_V = 2 * hits_V[some_V] / either_V[some_V]
    figures["accuracy"] = float(hits_V.sum() / counts_VV.sum())
    figures["macro_f1"] = float(np.mean(f1_V))
  return figures, answers


@lru_cache(CACHED_FUNCTIONS)
def totals_of(loss: Callable, decide: Callable | None, gives: str) -> CountRows:
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
    _, (outputs_BNV, answers) = decide(params, carry, batch)
    if gives:
      answers = outputs_BNV[:, 0]
    if gives == "softmax":
      answers = jax.nn.log_softmax(answers)
    return after, (figures, answers)

  return count


@lru_cache(CACHED_FUNCTIONS)
def adder(
  totals: CountRows, mesh: Mesh
) -> tuple[
  Callable[..., Totals], Callable[..., tuple[Carry, Totals, jax.Array]]
]:
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
