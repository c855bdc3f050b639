"""The scan of a cell with one product a step, or none; see the package."""

from functools import partial

import jax
import jax.numpy as jnp

from seqrnn.experiment import Params
from seqrnn.models import cpu
from seqrnn.models.arrays import add, before, hold
from seqrnn.models.cell import OUTSIDE_GATES, Cell, masked_state
from seqrnn.models.products import kernel_gradient, step_dot
from seqrnn.models.scan.loops import (
  apart_from_product,
  carries_before,
  loop,
  loop_forward,
  over_units,
  step_back,
  whole,
)


def forward(cell, reverse, params, first, inputs, mask_BH):
  def step(carry, inputs):
    z_BK, take = inputs
    h_BH = masked_state(cell.hidden(carry), mask_BH)
    variables = {"params": params}
    u_BK = cell.apply(variables, h_BH, method="recurrent")
    new, kept = cell.apply(variables, carry, z_BK, u_BK, method="keep")
    return hold(take, new, carry), kept

  z_TBK, take = inputs
  take = over_units(take, cell.hidden_size)
  last, h_TBH, carries, kept = loop_forward(
    step, cell.hidden, first, (z_TBK, take), reverse=reverse
  )
  saved = params, first, h_TBH, take, mask_BH, carries, kept
  return (last, h_TBH), saved


def backward(cell, reverse, saved, cotangents):
  params, first, h_TBH, take, mask_BH, carries, kept = saved
  old = carries_before(first, carries, reverse)
  local = _gate_params(cell, params)
  dlast, dh_TBH = cotangents
  zeros_BK = jnp.zeros((h_TBH.shape[1], cell.width), h_TBH.dtype)
  sums = (zeros_BK,) if cell.additive else (zeros_BK, zeros_BK)
  R_T = None
  if cell.recurrent_product:
    R_T = cpu.transpose_before_loop(
      params["recurrent_kernel"], cell.products.dtype
    )
  spread = jax.linear_transpose(cell.hidden, first)  # dh -> its carry

  def after(kept, local, carry, z_BK, u_BK=zeros_BK):
    variables = {"params": {**params, **local}}
    new, _ = cell.apply(variables, carry, z_BK, u_BK, kept, method="keep")
    return new

  def step(dcarry, inputs):
    dh_BH, take, old, kept = inputs
    dcarry = add(dcarry, *spread(dh_BH))
    _, back = jax.vjp(partial(after, kept, local), old, *sums)
    dcarry, dsums, dnew = step_back(back, take, dcarry)
    if R_T is not None:
      dcarry = apart_from_product(dcarry)
      dold_BH = step_dot(dsums[-1], R_T, cell.products.dtype)
      dcarry = add(dcarry, *spread(masked_state(dold_BH, mask_BH)))
    return dcarry, (dsums, dnew if local else None)

  dfirst, (dsums, dnew) = loop(
    step,
    dlast,
    (dh_TBH, take, old, kept),
    reverse=not reverse,
    gate=cell.hidden_size,
  )
  dsums = whole(dsums)
  dparams: Params = dict.fromkeys(params)  # None: no gradient here.
  if local:  # For all steps at once: in the loop, devices would synchronise.

    def of_step(old, kept, dnew):
      _, back = jax.vjp(lambda local: after(kept, local, old, *sums), local)
      return back(dnew)[0]

    down = jax.vmap(of_step)(*whole((old, kept, dnew)))
    dparams |= jax.tree.map(lambda d: jnp.sum(d, axis=0), down)
  if cell.recurrent_product:
    before_TBH = before(cell.hidden(first), h_TBH, reverse)
    if mask_BH is not None:
      before_TBH *= mask_BH[None]
    dparams["recurrent_kernel"] = kernel_gradient(
      before_TBH, dsums[-1], cell.products.dtype
    )
  if cell.recurrent_bias:
    size = len(params[cell.recurrent_bias])
    dparams[cell.recurrent_bias] = cpu.sum_positions(dsums[-1][..., -size:])
  return dparams, dfirst, (dsums[0], None), None


def _gate_params(cell: Cell, params: Params) -> Params:
  """The parameters that only `gates` reads."""
  outside = (*OUTSIDE_GATES, cell.recurrent_bias)
  return {name: p for name, p in params.items() if name not in outside}
