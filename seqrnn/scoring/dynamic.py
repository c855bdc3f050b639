"""Dynamic evaluation: parameters follow the text that was read.

Krause et al. (2018), "Dynamic evaluation of neural sequence models". A text is
read in segments. Each segment is scored first; then the parameters p take a
step against its gradient g, and are pulled back to the trained parameters p':

  p <- p - rate g / (s + e) + min(decay s / m, 1) (p' - p)

s is the root mean square of each parameter's gradients on the training split,
and m its mean over all parameters: parameters that training rarely changes take
larger steps, and are pulled back more slowly.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqrnn.config import combinations, derived
from seqrnn.config.read import Config
from seqrnn.data.batches.windows import Batches
from seqrnn.experiment import Build, Carry, Experiment, Params, Totals
from seqrnn.models import losses
from seqrnn.runtime import sharding
from seqrnn.runtime.compiled import CACHED_FUNCTIONS

RATES = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
DECAYS = (0.0, 1e-3, 1e-2)
_WINDOW = 20  # Symbols of a segment.
_FLOOR = 0.1  # e, in units of m.
_SEGMENTS = 256  # That one call of a program reads.
_ROWS = 16  # Streams of the training split, for the mean squares.
_MEASURED = 400  # Segments of each of them, at most.
_CHOSEN = 1500  # Segments of the validation split, at most.


class UpdateRule(NamedTuple):
  """How parameters follow the text.

  Attributes:
    rate: of a step.
    decay: towards the trained parameters.
  """

  rate: float
  decay: float


STATIC = UpdateRule(0.0, 0.0)


class Adapted(NamedTuple):
  """What changes while a text is read.

  Attributes:
    params: the parameters, after the segments that were read.
    carry: the carry after them.
    squares: the sums of the squares of each parameter's gradients.
  """

  params: Params
  carry: Carry
  squares: Params


def require(experiment: Experiment, config: Config):
  """Refuses `evaluate.dynamic` if a task does not predict each next symbol.

  Raises:
    UserError: the task and the mapping that it needs.
  """
  causal = experiment.forbidden is not None and not experiment.fills_gaps
  holds = not config.evaluate.dynamic or (experiment.in_bits and causal)
  why = (
    "must predict each symbol from all before it, as task='language_model' does"
    " with data.mapping='many_to_many'"
  )
  fields = "evaluate.dynamic", "task", "data.mapping"
  combinations.require(config, holds, why, *fields)


@lru_cache(CACHED_FUNCTIONS)
def adapter(
  loss: Callable[..., tuple[jax.Array, tuple[Carry, Totals]]],
) -> Callable[..., tuple[Adapted, Totals]]:
  """A jitted function trained, scales, rule, adapted, batches_S.

  Returns:
    what was adapted to the last batch, too; and the totals of each batch,
    arrays [S]. A batch is scored with the parameters before it.
  """

  @sharding.jit
  def read(trained, scales, rule, adapted, batches_S):
    leaves = jax.tree.leaves(scales)
    mean = sum(map(jnp.sum, leaves)) / sum(leaf.size for leaf in leaves)

    def step(adapted, batch):
      params, carry, squares = adapted
      score = jax.value_and_grad(loss, has_aux=True)
      (_, (carry, totals)), slopes = score(params, carry, batch, None)
      # A segment that a document's end cuts short counts less.
      share = jnp.mean(batch["weights"])

      def one(p, g, first, s):
        pull = jnp.minimum(rule.decay * s / mean, 1)
        new = p - rule.rate * share * g / (s + _FLOOR * mean)
        return jnp.where(share > 0, new + pull * (first - p), p)

      params = jax.tree.map(one, params, slopes, trained, scales)
      squares = jax.tree.map(lambda a, g: a + g**2, squares, slopes)
      return Adapted(params, carry, squares), totals

    return jax.lax.scan(step, adapted, batches_S)

  return read


def segment_totals(
  experiment: Experiment,
  params: Params,
  scales: Params,
  batches: Batches,
  rule: UpdateRule,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], Params]:
  """The totals and weights of each segment of a stream, float32 [segments].

  Args:
    experiment: whose data are streams, as `as_streams` has them.
    params: as they were trained.
    scales: s of each parameter.
    batches: of the text.
    rule: a rate of 0 is static evaluation.

  Returns:
    the totals, and the root mean squares of the gradients.
  """
  read, chunks = adapter(experiment.loss), []
  zeros = jax.tree.map(jnp.zeros_like, params)
  adapted = Adapted(params, experiment.carry(batches.batch_size), zeros)
  for first in range(0, len(batches), _SEGMENTS):
    some = [*batches[first : first + _SEGMENTS]]
    # Segments without weight fill the last chunk: another size would compile.
    empty = some[-1] | {"weights": np.zeros_like(some[-1]["weights"])}
    some += [empty] * (_SEGMENTS - len(some))
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *some)
    adapted, totals = read(params, scales, rule, adapted, stacked)
    chunks.append(jax.device_get(totals))
  joined = lambda *xs: np.concatenate(xs)[: len(batches)]
  mean = lambda x: jnp.sqrt(x / len(batches))
  return jax.tree.map(joined, *chunks), jax.tree.map(mean, adapted.squares)


def evaluate(
  build: Build, config: Config, experiment: Experiment, params: Params
) -> dict[str, Any]:
  """Static and dynamic figures of `config.evaluate.split`, and the rule.

  They are an entry of evaluation.json: `static` has the figures with fixed
  parameters, `dynamic` those with adapted ones, by the rule `rate` and `decay`.

  Args:
    build: a function config, vocabularies -> Experiment.
    config: of the run.
    experiment: of the run.
    params: as they were trained.
  """
  params = jax.device_get(params)  # One device reads the stream.
  one, many = (
    build(derived.streams(config, _WINDOW, rows), experiment.vocabularies)
    for rows in (1, _ROWS)
  )
  ones = jax.tree.map(jnp.ones_like, params)
  measured = many.batches("train", 0)[:_MEASURED]
  _, scales = segment_totals(many, params, ones, measured, STATIC)

  def figures(rule: UpdateRule, batches: Batches) -> dict[str, float]:
    totals, _ = segment_totals(one, params, scales, batches, rule)
    sums = jax.tree.map(lambda x: x.sum(axis=0, dtype=np.float64)[None], totals)
    return losses.means(sums, one.in_bits)

  def loss(rule: UpdateRule) -> float:
    return figures(rule, one.batches("validation", 0)[:_CHOSEN])["loss"]

  rule = chosen(loss)
  batches = one.batches(config.evaluate.split, 0)
  both = {"static": figures(STATIC, batches), "dynamic": figures(rule, batches)}
  return {**rule._asdict(), **both}


def chosen(loss: Callable[[UpdateRule], float]) -> UpdateRule:
  """The rule of the lowest loss, maybe STATIC: the rate, and then the decay."""
  rate = min(RATES, key=lambda value: loss(UpdateRule(value, DECAYS[1])))
  if not rate:
    return STATIC
  decay = min(DECAYS, key=lambda value: loss(UpdateRule(rate, value)))
  return UpdateRule(rate, decay)
