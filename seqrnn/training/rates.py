"""The shares of the learning rate at which the parts of a model learn.

Frozen parts (`train.freeze`) do not learn. With `optimizer.layer_decay` each
layer learns at a share of the rate of the one above it (ULMFiT: Howard & Ruder
2018).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.training.places import Place
from seqrnn.training.started import Record
from seqrnn.training.transfer import named_places, rows_to_learn


class Shares(NamedTuple):
  """How each array of a model learns, as trees like its parameters.

  Attributes:
    factor: of the updates.
    learns: whether an array learns. An array of bools, broadcast, where only
      new rows of a frozen part learn.
  """

  factor: Any
  learns: Any

  def count_frozen(self, experiment: Experiment) -> int:
    """Returns the number of parameters that do not learn."""
    sizes = jax.tree.map(
      lambda learns, x: (
        x.size - np.count_nonzero(np.broadcast_to(learns, x.shape))
      ),
      self.learns,
      shapes(experiment),
    )
    return sum(jax.tree.leaves(sizes))

  def frozen(self, experiment: Experiment) -> Experiment:
    """Returns the experiment; arrays that do not learn get no gradients."""

    def stopped(learns, x):
      if not np.any(learns):
        return jax.lax.stop_gradient(x)
      if np.all(learns):
        return x
      return jnp.where(learns, x, jax.lax.stop_gradient(x))

    def loss(params: Params, *more: Any) -> Any:
      return experiment.loss(jax.tree.map(stopped, self.learns, params), *more)

    return experiment._replace(loss=loss)

  def scale(self) -> optax.GradientTransformation:
    """Returns the last part of an optimizer, which scales the updates."""

    def scaled(factor, learns, update):
      if not np.any(learns):
        return jnp.zeros_like(update)
      share = factor if np.all(learns) else jnp.where(learns, factor, 0.0)
      return share * update

    return optax.stateless(
      lambda updates, _: jax.tree.map(scaled, self.factor, self.learns, updates)
    )


def shares(
  experiment: Experiment, config: Config, record: Record | None
) -> Shares | None:
  """Returns how the parts of a run's model learn; None: all at the same rate.

  Args:
    experiment: of the run.
    config: of the run.
    record: what it has started from; None: from nothing.

  Raises:
    UserError: a part to freeze does not exist, or no part learns.
  """
  decay = config.optimizer.layer_decay
  if config.train.freeze is None and decay == 1:
    return None
  tree = named_places(experiment, shapes(experiment))
  parts = {place.whole for place in jax.tree.leaves(tree)}
  layers = max(part.depth for part in parts)
  named, taken = _frozen(config.train.freeze, parts, record)

  def learns(place: Place, array: Any) -> Any:
    if place.whole in named:
      return False
    if record is None or place.whole not in taken:
      return True
    fresh = rows_to_learn(place, array.shape, record)
    return False if fresh is None else fresh

  learning = jax.tree.map(learns, tree, shapes(experiment))
  if not any(np.any(part) for part in jax.tree.leaves(learning)):
    why = "no part is left that learns"
    if record is not None and not (record.new or record.new_rows):
      why = f"{record.workdir} has all parts of this model, so none learns"
    raise UserError(
      f"config.train.freeze={config.train.freeze!r}: {why}; freeze fewer parts"
    )
  return Shares(
    factor=jax.tree.map(lambda place: decay ** place.level(layers), tree),
    learns=learning,
  )


def _frozen(
  given: str | None, parts: Iterable[Place], record: Record | None
) -> tuple[set[Place], set[Place]]:
  """The parts that `train.freeze` names, and those that it names as taken."""
  field, found = f"config.train.freeze={given!r}", (set(), set())
  for name in given.split(",") if given else ():
    if name == "taken":
      of_source = record.taken if record else []
      named = {part for part in parts if str(part) in of_source}
    else:
      named = {part for part in parts if name in part.names}
    if not named:
      known = sorted({name for part in parts for name in part.names})
      raise UserError(
        f"{field}: the model has no {name}; it has {', '.join(known)}"
      )
    found[name == "taken"].update(named)
  return found
