"""The scan of a cell with one product a step, or none; see the package."""

from functools import partial

import jax
import jax.numpy as jnp

from seqrnn.experiment import Params
from seqrnn.models import cpu
from seqrnn.models.arrays import add, before
from seqrnn.models.cell import OUTSIDE_GATES, masked_state
from seqrnn.models.products import kernel_gradient, step_dot
from seqrnn.models.scan import loops


def forward(cell, reverse, params, first, inputs, mask_BH):
  def step(carry, z_BK):
    h_BH = masked_state(cell.hidden(carry), mask_BH)
    variables = {"params": params}
    u_BK = cell.apply(variables, h_BH, method="recurrent")
    return cell.apply(variables, carry, z_BK, u_BK, method="keep")

  last, h_TBH, steps = loops.loop_forward(step, cell, first, inputs, reverse)
  return (last, h_TBH), (params, first, h_TBH, mask_BH, steps)


def backward(cell, reverse, saved, cotangents):
  params, first, h_TBH, mask_BH, (take, carries, kept) = saved
  old = loops.carries_before(first, carries, reverse)
  # Of these parameters, `gates` alone reads the others.
  outside = *OUTSIDE_GATES, cell.recurrent_bias
  local = {name: p for name, p in params.items() if name not in outside}
  zeros_BK = jnp.zeros_like(cotangents[1], shape=(take.shape[1], cell.width))
  sums = (zeros_BK,) if cell.additive else (zeros_BK, zeros_BK)
  dtype, R_T = cell.products.dtype, None
  if cell.recurrent_product:
    R_T = cpu.transpose_before_loop(params["recurrent_kernel"], dtype)
  spread = jax.linear_transpose(cell.hidden, first)  # dh -> its carry

  def after(kept, local, carry, z_BK, u_BK=zeros_BK):
    variables = {"params": {**params, **local}}
    new, _ = cell.apply(variables, carry, z_BK, u_BK, kept, method="keep")
    return new

  def step(dnew, dheld, old, kept):
    _, back = jax.vjp(partial(after, kept, local), old, *sums)
    dold, *dsums = back(dnew)
    dcarry = add(dheld, dold)
    if R_T is not None:
      dh_BH = masked_state(step_dot(dsums[-1], R_T, dtype), mask_BH)
      dcarry = add(loops.apart_from_product(dcarry), *spread(dh_BH))
    return dcarry, (dsums, dnew if local else None)

  dfirst, (dsums, dnew) = loops.loop_backward(
    step, cell, cotangents, (take, old, kept), reverse
  )
  dparams: Params = dict.fromkeys(params)  # None: no gradient here.
  if local:
    # For all steps at once: in the loop, devices would synchronise.
    def of_step(old, kept, dnew):
      _, back = jax.vjp(lambda local: after(kept, local, old, *sums), local)
      return back(dnew)[0]

    down = jax.vmap(of_step)(old, loops.whole(kept), dnew)
    dparams |= jax.tree.map(lambda d: jnp.sum(d, axis=0), down)
  if cell.recurrent_product:
    before_TBH = before(cell.hidden(first), h_TBH, reverse)
    if mask_BH is not None:
      before_TBH *= mask_BH[None]
    dparams["recurrent_kernel"] = kernel_gradient(before_TBH, dsums[-1], dtype)
  if cell.recurrent_bias:
    size = len(params[cell.recurrent_bias])
    dparams[cell.recurrent_bias] = cpu.sum_positions(dsums[-1][..., -size:])
  return dparams, dfirst, (dsums[0], None), None
