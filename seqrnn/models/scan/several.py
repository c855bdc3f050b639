"""The scan of a cell with several products a step; see the package."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import lax

from seqrnn.experiment import Params
from seqrnn.models.arrays import add, hold
from seqrnn.models.cell import Cell, recall
from seqrnn.models.products import Products, kernel_gradient
from seqrnn.models.scan.loops import (
  carries_before,
  loop,
  loop_forward,
  over_units,
  step_back,
  whole,
)


@dataclass(eq=False)
class _Record:
  """The products of one step, in place of `Cell.products`, in their order.

  Attributes:
    products: computes them.
    kept: their results, in a backward pass, which computes none.
    zeros: in a backward pass, a zero that is added to each result; the gradient
      of the zero is that of the result.
    factors: the first factor of each product.
    kernels: the second.
    results: the products.
  """

  products: Products
  kept: Sequence[jax.Array] | None = None
  zeros: Sequence[jax.Array] = ()
  factors: list[jax.Array] = field(default_factory=list)
  kernels: list[jax.Array] = field(default_factory=list)
  results: list[jax.Array] = field(default_factory=list)

  def step(self, x_BD: jax.Array, kernel_DK: jax.Array) -> jax.Array:
    n = len(self.results)
    self.factors.append(x_BD)
    self.kernels.append(kernel_DK)
    if self.kept is not None:
      kernel_DK = lax.stop_gradient(kernel_DK)
    u_BK = self.products.step(x_BD, kernel_DK)
    if self.kept is not None:
      u_BK = recall(u_BK + self.zeros[n], self.kept[n])
    self.results.append(u_BK)
    return u_BK


def forward(cell, reverse, params, first, inputs, mask_BH):
  def step(carry, inputs):
    z_BK, take = inputs
    record = _Record(cell.products)
    new = cell.clone(products=record).apply(
      {"params": params}, carry, z_BK, mask_BH
    )
    return hold(take, new, carry), record.results

  z_TBK, take = inputs
  take = over_units(take, cell.hidden_size)
  last, h_TBH, carries, kept = loop_forward(
    step, cell.hidden, first, (z_TBK, take), reverse=reverse
  )
  saved = params, first, (z_TBK, take), mask_BH, carries, kept
  return (last, h_TBH), saved


def backward(cell, reverse, saved, cotangents):
  params, first, (z_TBK, take), mask_BH, carries, kept = saved
  old = carries_before(first, carries, reverse)
  local = _step_params(cell, params)
  dlast, dh_TBH = cotangents
  spread = jax.linear_transpose(cell.hidden, first)  # dh -> its carry

  def after(local, carry, z_BK, *kept_and_zeros):
    record = _Record(cell.products, *kept_and_zeros)
    new = cell.clone(products=record).apply(
      {"params": {**params, **local}}, carry, z_BK, mask_BH
    )
    return new, record

  kernels, to_params = jax.vjp(
    lambda local: after(local, first, z_TBK[0])[1].kernels, local
  )
  zeros = [jnp.zeros_like(u_TBK[0]) for u_TBK in whole(kept)]

  def step(dcarry, inputs):
    dh_BH, take, old, z_BK, kept = inputs
    dcarry = add(dcarry, *spread(dh_BH))
    _, back = jax.vjp(
      lambda carry, z_BK, zeros: after(local, carry, z_BK, kept, zeros)[0],
      old,
      z_BK,
      zeros,
    )
    dcarry, (dz_BK, du), dnew = step_back(back, take, dcarry)
    return dcarry, (dz_BK, du, dnew)

  dfirst, steps = loop(
    step,
    dlast,
    (dh_TBH, take, old, z_TBK, kept),
    reverse=not reverse,
    gate=cell.hidden_size,
  )
  dz_TBK, du, dnew = whole(steps)

  def of_step(old, z_BK, kept, dnew):
    def factors_after(local):
      new, record = after(local, old, z_BK, kept, zeros)
      return new, record.factors

    _, back, factors = jax.vjp(factors_after, local, has_aux=True)
    return back(dnew)[0], factors

  down, factors = jax.vmap(of_step)(old, z_TBK, whole(kept), dnew)
  down = jax.tree.map(lambda d: jnp.sum(d, axis=0), down)
  dkernels = [
    kernel_gradient(x_TBD, du_TBK, cell.products.dtype)
    for x_TBD, du_TBK in zip(factors, du, strict=True)
  ]
  dparams: Params = dict.fromkeys(params)  # None: no gradient here.
  dparams |= add(down, *to_params(dkernels))
  return dparams, dfirst, (dz_TBK, None), None


def _step_params(cell: Cell, params: Params) -> Params:
  """The parameters that a step reads; `inputs` reads the others."""
  outside = (
    {"input_kernel"} if cell.recurrent_bias else {"input_kernel", "bias"}
  )
  return {name: p for name, p in params.items() if name not in outside}
