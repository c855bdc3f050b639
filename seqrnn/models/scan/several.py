"""The scan of a cell with several products a step; see the package."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import lax

from seqrnn.experiment import Params
from seqrnn.models.arrays import add
from seqrnn.models.cell import recall
from seqrnn.models.products import Products, kernel_gradient
from seqrnn.models.scan import loops


@dataclass(eq=False)
class _RecordedProducts:
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


def _step(cell, params, mask_BH, carry, z_BK, *kept_and_zeros):
  """The carry after a step, and the record of its products."""
  record = _RecordedProducts(cell.products, *kept_and_zeros)
  recorded = cell.clone(products=record)
  return recorded.apply({"params": params}, carry, z_BK, mask_BH), record


def forward(cell, reverse, params, first, inputs, mask_BH):
  def step(carry, z_BK):
    new, record = _step(cell, params, mask_BH, carry, z_BK)
    return new, record.results

  last, h_TBH, steps = loops.loop_forward(step, cell, first, inputs, reverse)
  return (last, h_TBH), (params, first, mask_BH, inputs[0], steps)


def backward(cell, reverse, saved, cotangents):
  params, first, mask_BH, z_TBK, (take, carries, kept) = saved
  old = loops.carries_before(first, carries, reverse)
  # `inputs` reads these parameters, a step reads the others.
  outside = "input_kernel", "" if cell.recurrent_bias else "bias"
  local = {name: p for name, p in params.items() if name not in outside}

  def after(local, *inputs):
    return _step(cell, {**params, **local}, mask_BH, *inputs)

  kernels, to_params = jax.vjp(
    lambda local: after(local, first, z_TBK[0])[1].kernels, local
  )
  zeros = [jnp.zeros_like(u_TBK[0]) for u_TBK in loops.whole(kept)]

  def step(dnew, dheld, old, z_BK, kept):
    def after_of(carry, z_BK, zeros):
      return after(local, carry, z_BK, kept, zeros)[0]

    _, back = jax.vjp(after_of, old, z_BK, zeros)
    dold, dz_BK, du = back(dnew)
    return add(dheld, dold), (dz_BK, du, dnew)

  dfirst, (dz_TBK, du, dnew) = loops.loop_backward(
    step, cell, cotangents, (take, old, z_TBK, kept), reverse
  )

  def of_step(old, z_BK, kept, dnew):
    def factors_after(local):
      new, record = after(local, old, z_BK, kept, zeros)
      return new, record.factors

    _, back, factors = jax.vjp(factors_after, local, has_aux=True)
    return back(dnew)[0], factors

  down, factors = jax.vmap(of_step)(old, z_TBK, loops.whole(kept), dnew)
  down = jax.tree.map(lambda d: jnp.sum(d, axis=0), down)
  dkernels = [
    kernel_gradient(x_TBD, du_TBK, cell.products.dtype)
    for x_TBD, du_TBK in zip(factors, du, strict=True)
  ]
  dparams: Params = dict.fromkeys(params)  # None: no gradient here.
  dparams |= add(down, *to_params(dkernels))
  return dparams, dfirst, (dz_TBK, None), None
