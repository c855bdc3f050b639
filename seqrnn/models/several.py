"""The scan of cells whose step has several products, one after the other.

As in scan.py, the gradients of the kernels are products after the backward
loop, not sums over its steps; over several devices, each step would wait for
the others. The factors x of each product x @ kernel are saved. A zero that is
added to each product gives its gradient: the loop computes du for all steps,
and the gradient of the kernel is the sum over t of x[t].T @ du[t].
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from seqrnn.models.cell import SAVED, Cell
from seqrnn.models.loops import (
  before,
  loop,
  over_units,
  read_again,
  whole,
  without,
)
from seqrnn.models.products import Products, kernel_gradient
from seqrnn.models.scan import add, hold, plain, step_back


class _Record:
  """Products of one step, recorded in place of `Cell.products`.

  Attributes:
    factors: the first factor of each product.
    kernels: the second.
    results: the products.
  """

  def __init__(
    self,
    products: Products,
    given: Sequence[tuple[jax.Array, jax.Array]] | None,
  ):
    """Records by `products`.

    Args:
      products: computes them.
      given: in the order of the products, the second factor in place of a
        kernel, which then has no gradient, and a zero that is added.
    """
    self._products, self._given = products, given
    self.factors: list[jax.Array] = []
    self.kernels: list[jax.Array] = []
    self.results: list[jax.Array] = []

  def step(self, x_BD: jax.Array, kernel_DK: jax.Array) -> jax.Array:
    self.factors.append(x_BD)
    self.kernels.append(kernel_DK)
    if self._given is None:
      u_BK = self._products.step(x_BD, kernel_DK)
    else:
      kernel_DK, zero_BK = self._given[len(self.results)]
      u_BK = self._products.step(x_BD, kernel_DK) + zero_BK
    self.results.append(u_BK)
    return u_BK


def _record(cell: Cell, given: Any, params: Any, *inputs: Any) -> Any:
  """The carry after a step, and the record of its products."""
  record = _Record(cell.products, given)
  new = cell.clone(products=record).apply({"params": params}, *inputs)
  return new, record


def scan(cell: Cell, *, reverse: bool) -> Callable[..., Any]:
  """The same as scan.scan, for a cell whose `__call__` has several products."""
  run = jax.custom_vjp(plain(cell, reverse))
  run.defvjp(_forward(cell, reverse), _backward(cell, reverse))
  return run


def _read(cell: Cell, params: Any) -> dict[str, Any]:
  """The parameters that a step reads; `inputs` reads the others."""
  outside = (
    {"input_kernel"} if cell.recurrent_bias else {"input_kernel", "bias"}
  )
  return {name: p for name, p in params.items() if name not in outside}


def _forward(cell: Cell, reverse: bool) -> Callable[..., Any]:
  """The forward pass of `scan`."""

  def forward(params, first, z_TBK, take, mask_BH):
    _, record = _record(cell, None, params, first, z_TBK[0], mask_BH)
    zeros = [jnp.zeros(u_BK.shape, u_BK.dtype) for u_BK in record.results]
    own, kernels = _read(cell, params), record.kernels

    @partial(
      jax.checkpoint,
      policy=jax.checkpoint_policies.save_only_these_names(SAVED),
      prevent_cse=False,  # The body of a loop needs no guard against it.
    )
    def one(own, carry, z_BK, zeros):
      given = list(zip(kernels, zeros, strict=True))
      variables = {**params, **own}
      new, record = _record(cell, given, variables, carry, z_BK, mask_BH)
      return new, record.factors

    def step(carry, inputs):
      z_BK, take = inputs
      new, back, factors = jax.vjp(one, own, carry, z_BK, zeros, has_aux=True)
      saved = without((back, factors), (params, kernels, read_again(carry)))
      carry = hold(take, new, carry)
      return carry, (cell.hidden(carry), read_again(carry), saved)

    take = over_units(take, cell.hidden_size)
    last, (h_TBX, after, saved) = loop(
      step, first, (z_TBK, take), reverse=reverse
    )
    kept = params, first, z_TBK[0], take, mask_BH, after, saved
    return (last, whole(h_TBX)), kept

  return forward


def _backward(cell: Cell, reverse: bool) -> Callable[..., Any]:
  """The backward pass of `scan`."""

  def backward(kept, cotangents):
    params, first, z_BK, take, mask_BH, after, saved = kept
    old = before(read_again(first), after, reverse)
    own = _read(cell, params)

    def multiplied(own):
      inputs = params | own, first, z_BK, mask_BH
      return _record(cell, None, *inputs)[1].kernels

    kernels, to_params = jax.vjp(multiplied, own)
    dlast, dh_TBH = cotangents
    spread = jax.linear_transpose(cell.hidden, first)  # dh -> its carry

    def step(dcarry, inputs):
      dh_BH, take, saved, old = inputs
      back, _ = saved((params, kernels, old))
      dcarry = add(dcarry, *spread(dh_BH))
      dcarry, (dz_BK, du), dnew = step_back(back, take, dcarry)
      return dcarry, (dz_BK, du, dnew)

    dfirst, (dz_TBK, du, dnew) = loop(
      step,
      dlast,
      (dh_TBH, take, saved, old),
      reverse=not reverse,
      gate=cell.hidden_size,
    )
    # What follows needs all steps.
    saved, dz_TBK, du, dnew = whole((saved, dz_TBK, du, dnew))
    dparams: dict[str, Any] = dict.fromkeys(params)  # None: no gradient here.
    down = jax.vmap(
      lambda saved, old, d: saved((params, kernels, old))[0](d)[0]
    )(saved, old, dnew)
    down = jax.tree.map(lambda d: jnp.sum(d, axis=0), down)
    factors = jax.vmap(lambda saved, old: saved((params, kernels, old))[1])(
      saved, old
    )
    dkernels = [
      kernel_gradient(x_TBD, du_TBK, cell.products.dtype)
      for x_TBD, du_TBK in zip(factors, du, strict=True)
    ]
    dparams |= add(down, *to_params(dkernels))
    return dparams, dfirst, dz_TBK, None, None

  return backward
