"""The shares of the learning rate at which the parts of a model learn.

Frozen parts (`train.freeze`) do not learn, or not before they are unfrozen, the
upper ones first. With `optimizer.layer_decay` each layer learns at a share of
the rate of the one above it (ULMFiT: Howard & Ruder 2018).
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.settings.config import Config
from seqrnn.training.places import Place
from seqrnn.training.started import Record
from seqrnn.training.transfer import named_places, rows_to_learn

_NEVER = 2**31 - 1  # Counts of steps are int32.


class Shares(NamedTuple):
  """How each array of a model learns, as trees like its parameters.

  Attributes:
    factor: of the updates.
    start: the first step that changes an array; -1: none does. An array of
      steps, broadcast, where new rows of a frozen part learn from the start.
    unfreezes: whether frozen arrays learn later.
  """

  factor: Any
  start: Any
  unfreezes: bool

  def held(self, experiment: Experiment) -> int:
    """Returns the number of parameters that do not learn from the start."""
    sizes = jax.tree.map(
      lambda start, x: np.count_nonzero(np.broadcast_to(start, x.shape)),
      self.start,
      shapes(experiment),
    )
    return sum(jax.tree.leaves(sizes))

  def frozen(self, experiment: Experiment) -> Experiment:
    """Returns the experiment; arrays that never learn get no gradients."""

    def held(start, x):
      never = np.less(start, 0)
      if never.all():
        return jax.lax.stop_gradient(x)
      return jnp.where(never, jax.lax.stop_gradient(x), x) if never.any() else x

    def loss(params: Params, *more: Any) -> Any:
      return experiment.loss(jax.tree.map(held, self.start, params), *more)

    return experiment._replace(loss=loss)

  def scale(self) -> optax.GradientTransformation:
    """Returns the last part of an optimizer, which scales the updates.

    Moments of frozen arrays are kept, so that those of Adam are those of the
    gradients once the arrays learn.
    """

    def scaled(updates, count):
      def one(factor, start, update):
        if np.all(np.less(start, 0)):
          return jnp.zeros_like(update)
        learns = (count >= start) & np.greater_equal(start, 0)
        share = jnp.where(learns, factor, 0.0) if np.any(start) else factor
        return share * update

      return jax.tree.map(one, self.factor, self.start, updates)

    if not self.unfreezes:
      return optax.stateless(lambda updates, _: scaled(updates, 0))

    def init(params):
      del params
      return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
      del params
      count = optax.safe_increment(state.count)
      return scaled(updates, state.count), optax.ScaleByScheduleState(count)

    return optax.GradientTransformation(init, update)


def shares(
  experiment: Experiment,
  config: Config,
  steps_per_epoch: int,
  record: Record | None,
  total_steps: float = math.inf,
) -> Shares | None:
  """Returns how the parts of a run's model learn; None: all at the same rate.

  Args:
    experiment: of the run.
    config: of the run.
    steps_per_epoch: of the run.
    record: what it has started from; None: from nothing, or from a run that is
      not trained yet.
    total_steps: of the run, if they are known.

  Raises:
    UserError: a part to freeze does not exist, or no part learns.
  """
  decay, every = config.optimizer.layer_decay, config.train.unfreeze_every
  if config.train.freeze is None and decay == 1:
    return None
  tree = named_places(experiment, shapes(experiment))
  parts = {place.whole for place in jax.tree.leaves(tree)}
  layers = max(part.depth for part in parts)
  named, taken = _frozen(config.train.freeze, parts, record)
  levels = sorted({part.level(layers) for part in named | taken})

  def start(place: Place, array: Any) -> Any:
    if place.whole not in named | taken:
      return 0
    step = -1
    if every is not None:
      nth = 1 + levels.index(place.level(layers))
      step = min(nth * every * steps_per_epoch, _NEVER)
      step = max(round(step), 1)
    if place.whole in named or record is None:
      return step
    fresh = rows_to_learn(place, array.shape, record)
    return step if fresh is None else np.where(fresh, 0, step).astype(np.int32)

  starts = jax.tree.map(start, tree, shapes(experiment))
  first = min(
    np.min(step, initial=_NEVER, where=np.greater_equal(step, 0))
    for step in jax.tree.leaves(starts)
  )
  if first >= min(total_steps, _NEVER):
    why = _nothing_learns(config.train, record, int(first), total_steps)
    raise UserError(why)
  return Shares(
    factor=jax.tree.map(lambda place: decay ** place.level(layers), tree),
    start=starts,
    unfreezes=bool(levels) and every is not None,
  )


def _nothing_learns(
  train: Config, record: Record | None, first: int, total_steps: float
) -> str:
  """The error for a run of which no part learns, or not before its end."""
  field = f"config.train.freeze={train.freeze!r}"
  if first < _NEVER:
    return (
      f"{field}, config.train.unfreeze_every={train.unfreeze_every}: no part"
      f" learns before step {first:,}, and the training ends at step"
      f" {total_steps:,}"
    )
  why = "no part is left that learns"
  if record is not None and not (record.new or record.new_rows):
    why = f"{record.workdir} has all parts of this model, so none learns"
  return f"{field}: {why}; set train.unfreeze_every, or freeze fewer parts"


def _frozen(
  given: str | None, parts: Iterable[Place], record: Record | None
) -> tuple[set[Place], set[Place]]:
  """The parts that `train.freeze` names, and those that it names as taken."""
  field, found = f"config.train.freeze={given!r}", (set(), set())
  for name in given.split(",") if given else ():
    if name == "taken":
      if record is None:  # The run on data.pretrain_path is not trained yet.
        continue
      named = {part for part in parts if str(part) in record.taken}
    else:
      named = {part for part in parts if name in part.names}
    if not named:
      known = sorted({name for part in parts for name in part.names})
      raise UserError(
        f"{field}: the model has no {name}; it has {', '.join(known)}"
      )
    found[name == "taken"].update(named)
  return found
