"""Scans of a cell over time, and which of them runs when.

`scan` chooses a path by one `match`:

- plain: nn.scan of `Cell.__call__`. It runs with `model.scan=plain`, while
  parameters are made, and for a cell whose `path` is none of the others. It
  uses nothing of loops.py, cpu.py or products.py, and its values and gradients
  are the definition of every other path.
- fused: a cell with one product a step, u = h @ R, or none.
- several: a cell whose `__call__` has several products a step.
- parallel: a method of the cell, whose step is linear in its carry. A loop over
  chunks, or rounds over all steps, takes the place of the scan.

Without a gradient, `fused` and `several` are `plain`. With one, they replace
what JAX derives for a scan, which would add h.T @ du to the gradient of R at
every step. Here the backward loop computes du for all steps, and the gradient
of R is one product after the loop:

  dR = sum over t of h[t-1].T @ du[t]

With several devices, each step of JAX's own would also wait for the others.

A forward loop keeps for each step the carry and what `Cell.keep` returns (for
`several`: the results of the products). The derivative of a step is JAX's own
derivative of the same functions, which are given what was kept: `recall` and
`activate` return it as their value. So no product is computed twice, and no
activation that a cell keeps. What is kept passes through a custom_vjp as one
explicit tree.

The loops are in loops.py: on a CPU cpu.py's, whose buffers need no zeros; on a
GPU the arrays of a step side by side, and several steps in one pass; on a TPU
apart by gates. The products and their gradients are in products.py. Which
platform it is, `sharding.platform` reads from the mesh.
"""

from functools import partial

import jax
from flax import linen as nn

from seqrnn.experiment import Carry
from seqrnn.models.cell import Cell, hold
from seqrnn.models.scan import fused, several

Inputs = tuple[jax.Array, jax.Array]  # z_TBK, and take_TB as `hold` has it.
Mask = jax.Array | None


def scan(
  cell: Cell, carry: Carry, inputs: Inputs, mask_BH: Mask, *, reverse: bool
) -> tuple[Carry, jax.Array]:
  """The last carry and h_TBH.

  Args:
    cell: bound to its parameters.
    carry: before the first step.
    inputs: of all steps.
    mask_BH: multiplies h for the recurrent product; None: nothing does.
    reverse: from the last step to the first.
  """
  plainly = cell.products.plain or cell.is_initializing()
  match "plain" if plainly else cell.path:
    case "fused":
      over_time = _fused
    case "several":
      over_time = _several
    case "parallel":
      return cell.parallel(carry, *inputs, reverse=reverse)
    case _:
      return plain(cell, reverse, carry, inputs, mask_BH)
  cell, variables = cell.unbind()
  params = dict(variables["params"])
  return over_time(cell, reverse, params, carry, inputs, mask_BH)


def plain(
  cell: Cell, reverse: bool, carry: Carry, inputs: Inputs, mask_BH: Mask
) -> tuple[Carry, jax.Array]:
  """nn.scan of a bound cell, which defines the values of every path."""

  def step(cell, carry, inputs):
    z_BK, take = inputs
    carry = hold(take, cell(carry, z_BK, mask_BH), carry)
    return carry, cell.hidden(carry)

  over_time = nn.scan(
    step,
    variable_broadcast="params",
    split_rngs={"params": False},
    reverse=reverse,
  )
  return over_time(cell, carry, inputs)


def _of_params(cell, reverse, params, *inputs):
  """`plain` of a cell that is not bound."""
  return plain(cell.bind({"params": params}), reverse, *inputs)


# Their masks have no gradients.
_with_gradient = partial(jax.custom_vjp, nondiff_argnums=(0, 1))
_fused, _several = _with_gradient(_of_params), _with_gradient(_of_params)
_fused.defvjp(fused.forward, fused.backward)
_several.defvjp(several.forward, several.backward)
