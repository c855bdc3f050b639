"""Dynamic evaluation: parameters follow the text that was read.

Krause et al. (2018), "Dynamic evaluation of neural sequence models". A text is
read in segments. Each segment is scored first; then the parameters p take a
step against its gradient g, and are pulled back to the trained parameters p':

  p <- p - rate g / (s + e) + min(decay s / m, 1) (p' - p)

s is the root mean square of each parameter's gradients on the training split,
and m its mean over all parameters: parameters that training rarely changes take
larger steps, and are pulled back more slowly.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Batch, Experiment, Params
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS
from seqrnn.scoring import metrics

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
DECAYS = (0.0, 1e-3, 1e-2)
_WINDOW = 20  # Symbols of a segment.
_FLOOR = 0.1  # e, in units of m.
_SEGMENTS = 256  # That one call of a program reads.
_ROWS = 16  # Streams of the training split, for the mean squares.
_MEASURED = 400  # Segments of each of them, at most.
_CHOSEN = 1500  # Segments of the validation split, at most.


class Rule(NamedTuple):
  """How parameters follow the text.

  Attributes:
    rate: of a step.
    decay: towards the trained parameters.
  """

  rate: float
  decay: float


class Followed(NamedTuple):
  """What was found on a split.

  Attributes:
    rule: that was applied.
    static: figures with the trained parameters.
    dynamic: figures with parameters that follow the text.
  """

  rule: Rule
  static: dict[str, float]
  dynamic: dict[str, float]

  def record(self) -> dict[str, Any]:
    """What evaluation.json has of it."""
    return {
      **self.rule._asdict(),
      "static": self.static,
      "dynamic": self.dynamic,
    }


def require(experiment: Experiment, config: Config):
  """Refuses `evaluate.dynamic` if a task does not predict each next symbol.

  Raises:
    UserError: says why.
  """
  causal = experiment.forbidden is not None and not experiment.fills_gaps
  if config.evaluate.dynamic and not (experiment.in_bits and causal):
    raise UserError(
      f"config.evaluate.dynamic=True: task={config.task!r} with"
      f" data.mapping={config.data.mapping!r} does not predict each symbol from"
      " all those before it, as task='language_model' does with"
      " data.mapping='many_to_many'"
    )


def as_streams(config: Config, segment: int, rows: int) -> Config:
  """The config with data that are read as streams, in segments."""
  config = copy.deepcopy(config)
  config.data.update(
    stateful=True,
    window=segment,
    step=None,
    offset=0,
    random_offset=False,
    buckets=None,
    repeats="each",
  )
  config.train.update(
    batch_size=rows, batches_per_epoch=None, samples_per_epoch=None
  )
  return config


def _chunks(batches: Iterable[Batch]) -> Iterator[Batch]:
  """Yields batches, _SEGMENTS of them stacked; the last are without weight."""
  found: list[Batch] = []
  for batch in batches:
    found.append(batch)
    if len(found) == _SEGMENTS:
      yield _stacked(found)
      found = []
  if found:
    nothing = found[-1] | {"weights": np.zeros_like(found[-1]["weights"])}
    yield _stacked(found + [nothing] * (_SEGMENTS - len(found)))


def _stacked(batches: list[Batch]) -> Batch:
  return jax.tree.map(lambda *xs: np.stack(xs), *batches)


@lru_cache(CACHED_FUNCTIONS)
def squares_adder(
  loss: Callable[..., Any], mesh: Mesh | None = None
) -> Callable[..., Any]:
  """A jitted function params, carry, sums, batches_S -> carry, sums.

  It adds the squares of each batch's gradients.
  """

  @partial(sharding.jit, mesh=mesh)
  def read(params, carry, sums, batches_S):
    def step(state, batch):
      carry, sums = state
      slopes, (carry, _) = jax.grad(loss, has_aux=True)(
        params, carry, batch, None
      )
      return (carry, jax.tree.map(lambda a, g: a + g**2, sums, slopes)), None

    return jax.lax.scan(step, (carry, sums), batches_S)[0]

  return read


def scales(experiment: Experiment, params: Params, split: Any) -> Params:
  """The root mean squares of gradients on a split, which is read as streams."""
  batches = experiment.batches(split, 0)[:_MEASURED]
  add = squares_adder(experiment.loss)
  carry = experiment.carry(batches.batch_size)
  sums = jax.tree.map(jnp.zeros_like, params)
  for chunk in _chunks(batches):
    carry, sums = add(params, carry, sums, chunk)
  return jax.tree.map(lambda x: jnp.sqrt(x / len(batches)), sums)


@lru_cache(CACHED_FUNCTIONS)
def follower(
  loss: Callable[..., Any], mesh: Mesh | None = None
) -> Callable[..., Any]:
  """A jitted function trained, scales, rule, (own, carry), batches_S.

  Returns:
    (own, carry) after the last batch, and the totals of each, arrays [S]. A
    batch is scored with the parameters `own` before it.
  """

  @partial(sharding.jit, mesh=mesh)
  def read(trained, scales, rule, state, batches_S):
    leaves = jax.tree.leaves(scales)
    mean = sum(map(jnp.sum, leaves)) / sum(leaf.size for leaf in leaves)

    def step(state, batch):
      own, carry = state
      score = jax.value_and_grad(loss, has_aux=True)
      (_, (carry, totals)), slopes = score(own, carry, batch, None)
      # A segment that a document's end cuts short counts less.
      share = jnp.mean(batch["weights"])

      def one(p, g, first, s):
        pull = jnp.minimum(rule.decay * s / mean, 1)
        new = p - rule.rate * share * g / (s + _FLOOR * mean)
        return jnp.where(share > 0, new + pull * (first - p), p)

      own = jax.tree.map(one, own, slopes, trained, scales)
      return (own, carry), totals

    return jax.lax.scan(step, state, batches_S)

  return read


def segments(
  experiment: Experiment,
  params: Params,
  scales: Params,
  batches: Any,
  rule: Rule,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """The totals and weights of each segment of a stream, float32 [segments].

  Args:
    experiment: whose data are streams, as `as_streams` has them.
    params: as they were trained.
    scales: as the function of this name.
    batches: of the text.
    rule: without None; a rate of 0 is static evaluation.
  """
  read = follower(experiment.loss)
  state = params, experiment.carry(batches.batch_size)
  found = []
  for chunk in _chunks(batches):
    state, totals = read(params, scales, rule, state, chunk)
    found.append(jax.device_get(totals))
  joined = jax.tree.map(lambda *xs: np.concatenate(xs), *found)
  return jax.tree.map(lambda x: x[: len(batches)], joined)


def evaluate(
  build: Callable[..., Experiment],
  config: Config,
  experiment: Experiment,
  params: Params,
) -> Followed:
  """Static and dynamic figures of `config.evaluate.split`.

  Args:
    build: a function config, vocabularies -> Experiment.
    config: of the run, with the rule in `config.evaluate`.
    experiment: of the run.
    params: as they were trained.
  """
  settings = config.evaluate
  params = jax.device_get(params)  # One device reads the stream.
  reads = [
    build(
      as_streams(config, _WINDOW, rows),
      experiment.vocabularies,
    )
    for rows in (1, _ROWS)
  ]
  one, many = reads
  scale = scales(many, params, "train")

  def loss(rule: Rule) -> float:
    batches = one.batches("validation", 0)[:_CHOSEN]
    return figures(one, segments(one, params, scale, batches, rule))["loss"]

  rule = chosen(loss)
  batches = one.batches(settings.split, 0)
  static, dynamic = (
    figures(one, segments(one, params, scale, batches, each))
    for each in (Rule(0.0, 0.0), rule)
  )
  return Followed(rule, static, dynamic)


def chosen(loss: Callable[[Rule], float]) -> Rule:
  """The rule of the lowest loss: the rate, and then the decay."""
  rate = min(RATES, key=lambda value: loss(Rule(value, DECAYS[1])))
  decay = min(DECAYS, key=lambda value: loss(Rule(rate, value)))
  return Rule(rate, decay)


def figures(
  experiment: Experiment, totals: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
  """The figures of a text, from the totals of its segments."""
  sums = jax.tree.map(lambda x: x.sum(axis=0, dtype=np.float64)[None], totals)
  return metrics.finish(sums, experiment.in_bits)
