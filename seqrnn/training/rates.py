"""The learning rates of the parts of a model.

Frozen parts (`train.freeze`) do not learn, and with `optimizer.layer_decay`
each layer learns at a share of the rate of the one above it (ULMFiT: Howard &
Ruder 2018).
"""

import jax
import optax
from optax import GradientTransformation

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, shapes
from seqrnn.models.parts import ModelPart
from seqrnn.training import linear
from seqrnn.training.transfer import Record, named_parts


def shares(
  experiment: Experiment, config: Config, record: Record | None
) -> Params | None:
  """Returns the factor of each array's learning rate; 0: it does not learn.

  Args:
    experiment: of the run.
    config: of the run.
    record: of the run that it has started from; None: from nothing.

  Returns:
    a tree like the parameters; None: all learn at the same rate.

  Raises:
    UserError: a part to freeze does not exist, or no part learns.
  """
  freeze, decay = config.train.freeze, config.optimizer.layer_decay
  fits = linear.is_fitted(experiment, config)
  if freeze is None and decay == 1 and not fits:
    return None
  tree = named_parts(experiment, shapes(experiment))
  parts = {*jax.tree.leaves(tree)}
  layers = max(part.depth for part in parts)

  def names(part: ModelPart) -> set[str]:
    if part.depth:
      return {"layers", f"layer{part.depth}"}
    return {part.name if part.is_input else "head"}

  def factor(part: ModelPart) -> float:
    above = layers + 1 - part.depth  # Heads, then layers, the last one first.
    return 0.0 if part in frozen else decay ** (above * (not part.is_output))

  field = f"config.train.freeze={freeze!r}"
  frozen = {part for part in parts if fits and part.name == "wide"}
  for name in freeze.split(",") if freeze else ():
    if name == "taken":  # As a whole; a part with new rows learns.
      taken = [] if record is None else record.taken
      frozen |= {part for part in parts if str(part) in taken}
    elif named := {part for part in parts if name in names(part)}:
      frozen |= named
    else:
      known = sorted({name for part in parts for name in names(part)})
      raise UserError(
        f"{field}: the model has no {name}; it has {', '.join(known)}"
      )
  if frozen == parts:
    raise UserError(f"{field}: no part is left that learns; freeze fewer parts")
  return jax.tree.map(factor, tree)


def freeze_parts(experiment: Experiment, factors: Params) -> Experiment:
  """Returns the experiment; arrays of factor 0 get no gradients."""

  def loss(params, *more):
    stopped = lambda factor, x: x if factor else jax.lax.stop_gradient(x)
    return experiment.loss(jax.tree.map(stopped, factors, params), *more)

  return experiment._replace(loss=loss)


def scaled(
  optimizer: GradientTransformation, factors: Params
) -> GradientTransformation:
  """Returns the optimizer, with each array's updates multiplied by a factor."""
  learns = jax.tree.map(bool, factors)  # Others need no state.
  one = lambda factor, x: factor * x
  scale = optax.stateless(lambda new, _: jax.tree.map(one, factors, new))
  return optax.chain(optax.masked(optimizer, learns), scale)
