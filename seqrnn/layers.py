"""Modules over whole sequences: the scan over time, two directions, a stack.

A sequence module is called with x_BTD (or ids x_BT), mask_BT, a carry and
`train`, and returns its last carry and y_BTH. The carry of a row is held still
where the mask is false, so padding may stand at either end and a reversed scan
needs no flipping. `summary` of a carry is y after the last step of each
direction; `initial_carry` is the carry before the first step.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.cells import Cell
from seqrnn.experiment import Carry
from seqrnn.products import Lookup
from seqrnn.scan import hold, parallel, scan


class Recurrent(nn.Module):
  """A cell scanned over time.

  Attributes:
    cell: one time step.
    reverse: from the last position to the first; the output stands where its
      input does.
    fused: by the cell's own path, which computes the same in less time.
  """

  cell: Cell
  reverse: bool = False
  fused: bool = True

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    del train  # Nothing is random here.
    x_TBD = x_BTD.swap() if isinstance(x_BTD, Lookup) else x_BTD.swapaxes(0, 1)
    z_and_mask = (self.cell.inputs(x_TBD), mask_BT.T)
    own = self.fused and not self.is_initializing()
    if own and self.cell.path == "fused":
      cell, variables = self.cell.unbind()
      over_time = scan(cell, reverse=self.reverse)
      carry, h_TBH = over_time(variables["params"], carry, *z_and_mask)
    elif own and self.cell.path == "parallel":
      z_TBK, mask_TB = z_and_mask
      terms = self.cell.terms(z_TBK)
      carry, h_TBH = parallel(terms, carry, mask_TB, reverse=self.reverse)
    else:
      carry, h_TBH = self._plain(carry, z_and_mask)
    return carry, h_TBH.swapaxes(0, 1)

  def _plain(self, carry, z_and_mask):
    """The definition of what a scan over time is."""

    def step(cell, carry, z_and_mask):
      z_BK, mask_B = z_and_mask
      carry = hold(mask_B, cell(carry, z_BK), carry)
      return carry, cell.hidden(carry)

    over_time = nn.scan(
      step,
      variable_broadcast="params",
      split_rngs={"params": False},
      reverse=self.reverse,
    )
    return over_time(self.cell, carry, z_and_mask)

  def initial_carry(self, batch_size: int) -> Carry:
    return self.cell.initial_carry(batch_size)

  def summary(self, carry: Carry, train: bool = False) -> jax.Array:
    del train
    return self.cell.hidden(carry)


MERGES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "concat": lambda a, b: jnp.concatenate([a, b], axis=-1),
  "sum": lambda a, b: a + b,
  "mean": lambda a, b: (a + b) / 2,
}


class Bidirectional(nn.Module):
  """Two sequence modules over the same input, and their merge.

  Attributes:
    forward: reads from the first position on.
    backward: reads from the last position on: its scans are reversed.
    merge: a name of MERGES.
  """

  forward: nn.Module
  backward: nn.Module
  merge: str = "concat"

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    ahead, back = carry
    ahead, y_ahead_BTH = self.forward(x_BTD, mask_BT, ahead, train)
    back, y_back_BTH = self.backward(x_BTD, mask_BT, back, train)
    return (ahead, back), MERGES[self.merge](y_ahead_BTH, y_back_BTH)

  def initial_carry(self, batch_size: int) -> Carry:
    return (
      self.forward.initial_carry(batch_size),
      self.backward.initial_carry(batch_size),
    )

  def summary(self, carry: Carry, train: bool = False) -> jax.Array:
    ahead, back = carry
    return MERGES[self.merge](
      self.forward.summary(ahead, train), self.backward.summary(back, train)
    )


class Stack(nn.Module):
  """Sequence modules one above the other, with dropout after each.

  Attributes:
    layers: from the input up.
    dropout: share of outputs set to zero in training (Zaremba et al. 2014:
      between layers and before the head, never along time).
  """

  layers: Sequence[nn.Module]
  dropout: float = 0.0

  def setup(self):
    self.drop = nn.Dropout(self.dropout)

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    carries = []
    for layer, layer_carry in zip(self.layers, carry, strict=True):
      layer_carry, x_BTD = layer(x_BTD, mask_BT, layer_carry, train)
      x_BTD = self.drop(x_BTD, deterministic=not train)
      carries.append(layer_carry)
    return tuple(carries), x_BTD

  def initial_carry(self, batch_size: int) -> Carry:
    return tuple(layer.initial_carry(batch_size) for layer in self.layers)

  def summary(self, carry: Carry, train: bool = False) -> jax.Array:
    y_BH = self.layers[-1].summary(carry[-1])
    return self.drop(y_BH, deterministic=not train)


class Before(nn.Module):
  """A tower whose output at t is its state before it reads t.

  Two of them, one reversed, read both sides of every position and not the
  position itself: the towers of the gap model.

  Attributes:
    tower: a causal stack, or a reversed one.
    reverse: whether the tower's scans are reversed.
  """

  tower: nn.Module
  reverse: bool = False

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    first_B1H = self.tower.summary(carry, train)[:, None]
    carry, y_BTH = self.tower(x_BTD, mask_BT, carry, train)
    if self.reverse:
      return carry, jnp.concatenate([y_BTH[:, 1:], first_B1H], axis=1)
    return carry, jnp.concatenate([first_B1H, y_BTH[:, :-1]], axis=1)

  def initial_carry(self, batch_size: int) -> Carry:
    return self.tower.initial_carry(batch_size)
