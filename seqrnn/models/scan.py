"""Scans over time that equal nn.scan and take less time.

The gradient that JAX derives for a scan adds h.T @ du to the gradient of the
recurrent kernel R at every step, and saves more arrays than it needs. `scan`
saves the arrays that the cell marks by `cell.save`. Its backward loop computes
du, the gradient of u = h @ R, for all steps; the gradient of R is one product
after the loop:

  dR = sum over t of h[t-1].T @ du[t]

This holds for every cell whose `gates` have no product; their derivative is
JAX's own. A cell without a recurrent product has no R, and these parts are left
out. `parallel` is for cells whose step is linear.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from seqrnn.experiment import Carry
from seqrnn.models import cpu
from seqrnn.models.arrays import platform
from seqrnn.models.cell import OUTSIDE_GATES, SAVED, Cell, masked_state
from seqrnn.models.loops import (
  apart_from_product,
  before,
  loop,
  over_units,
  read_again,
  whole,
  without,
)
from seqrnn.models.products import Products, kernel_gradient, step_dot

# A decorator: the backward function has what `cell.save` marks.
_saving_marked = partial(
  jax.checkpoint,
  policy=jax.checkpoint_policies.save_only_these_names(SAVED),
  prevent_cse=False,  # The body of a loop needs no guard against it.
)


def hold(take: jax.Array, new: Carry, old: Carry) -> Carry:
  """The new carry where take_B is true, the old carry elsewhere.

  T comes before B where the carries have it.
  """

  def one(new, old):
    rest = (None,) * (new.ndim - take.ndim)
    return jnp.where(take[(..., *rest)], new, old)

  return jax.tree.map(one, new, old)


def scan(cell: Cell, *, reverse: bool) -> Callable[..., Any]:
  """A function params, carry, z_TBK, take, mask_BH -> last carry, h_TBH.

  It has no gradient with respect to `take`, which is as in `hold` with T before
  B, nor to `mask_BH`, which multiplies h for the recurrent product.

  Args:
    cell: not bound to parameters.
    reverse: from the last step to the first.
  """
  run = jax.custom_vjp(plain(cell, reverse))
  run.defvjp(_forward(cell, reverse), _backward(cell, reverse))
  return run


def plain(cell: Cell, reverse: bool) -> Callable[..., Any]:
  """`scan` with JAX's own gradient."""

  def run(params, carry, z_TBK, take, mask_BH=None):
    def step(carry, inputs):
      z_BK, take = inputs
      new = cell.apply({"params": params}, carry, z_BK, mask_BH)
      carry = hold(take, new, carry)
      return carry, cell.hidden(carry)

    return lax.scan(step, carry, (z_TBK, take), reverse=reverse)

  return run


def add(*trees: Any) -> Any:
  """The sum of trees of arrays."""
  return jax.tree.map(lambda *leaves: sum(leaves), *trees)


def step_back(
  back: Callable[..., Any], take: Any, dcarry: Carry
) -> tuple[Carry, list[Any], Carry]:
  """A step of a backward pass.

  Args:
    back: the backward function of the step, whose results are the gradients
      of parameters, of the carry before the step, and of other inputs.
    take: as in `hold`, of this step.
    dcarry: the gradient of the carry after `hold`.

  Returns:
    the gradients of the carry before the step, of the other inputs, and of the
    carry before `hold`.
  """
  zeros = jax.tree.map(jnp.zeros_like, dcarry)
  dnew = hold(take, dcarry, zeros)
  _, dgates, *dinputs = back(dnew)
  return add(hold(take, zeros, dcarry), dgates), dinputs, dnew


def _gate_params(cell: Cell, params: Any) -> dict[str, Any]:
  """The parameters that only `gates` reads."""
  outside = (*OUTSIDE_GATES, cell.recurrent_bias)
  return {name: p for name, p in params.items() if name not in outside}


def _forward(cell: Cell, reverse: bool) -> Callable[..., Any]:
  """The forward pass of `scan`; it saves the backward function of each step."""

  def forward(params, first, z_TBK, take, mask_BH):
    @_saving_marked
    def gates(local, carry, z_BK, u_BK):
      variables = {"params": {**params, **local}}
      return cell.apply(variables, carry, z_BK, u_BK, method="gates")

    def gates_of_sum(local, carry, a_BK):
      return gates(local, carry, a_BK, jnp.zeros((), a_BK.dtype))

    def step(carry, inputs):
      z_BK, take = inputs
      h_BH = masked_state(cell.hidden(carry), mask_BH)
      u_BK = cell.apply({"params": params}, h_BH, method="recurrent")
      local = _gate_params(cell, params)
      if cell.additive:
        new, back = jax.vjp(gates_of_sum, local, carry, z_BK + u_BK)
      else:
        new, back = jax.vjp(gates, local, carry, z_BK, u_BK)
      back = without(back, (local, read_again(carry)))
      carry = hold(take, new, carry)
      return carry, (cell.hidden(carry), read_again(carry), back)

    take = over_units(take, cell.hidden_size)
    last, (h_TBX, after, back) = loop(
      step, first, (z_TBK, take), reverse=reverse
    )
    h_TBH = whole(h_TBX)
    return (last, h_TBH), (params, first, h_TBH, take, mask_BH, after, back)

  return forward


def _backward(cell: Cell, reverse: bool) -> Callable[..., Any]:
  """The backward pass of `scan`."""

  def backward(saved, cotangents):
    params, first, h_TBH, take, mask_BH, after, back = saved
    old = before(read_again(first), after, reverse)
    local = _gate_params(cell, params)
    dlast, dh_TBH = cotangents
    R_T = None
    if cell.recurrent_product:
      R_T = cpu.transpose_before_loop(
        params["recurrent_kernel"], cell.products.dtype
      )
    spread = jax.linear_transpose(cell.hidden, first)  # dh -> its carry

    def step(dcarry, inputs):
      dh_BH, take, back, old = inputs
      dcarry = add(dcarry, *spread(dh_BH))
      dcarry, dinputs, dnew = step_back(back((local, old)), take, dcarry)
      if R_T is not None:
        dcarry = apart_from_product(dcarry)
        dold_BH: Any = step_dot(dinputs[-1], R_T, cell.products.dtype)
        dcarry = add(dcarry, *spread(masked_state(dold_BH, mask_BH)))
      return dcarry, (dinputs, dnew if local else None)

    inputs = (dh_TBH, take, back, old)
    dfirst, (dinputs, dnew) = loop(
      step, dlast, inputs, reverse=not reverse, gate=cell.hidden_size
    )
    dinputs = whole(dinputs)
    dparams: dict[str, Any] = dict.fromkeys(params)  # None: no gradient here.
    if local:  # For all steps at once: in the loop, devices would synchronise.
      down = jax.vmap(lambda back, old, dnew: back((local, old))(dnew)[0])(
        *whole((back, old, dnew))
      )
      dparams |= jax.tree.map(lambda d: jnp.sum(d, axis=0), down)
    if cell.recurrent_product:
      before_TBH = before(cell.hidden(first), h_TBH, reverse)
      if mask_BH is not None:
        before_TBH *= mask_BH[None]
      dparams["recurrent_kernel"] = kernel_gradient(
        before_TBH, dinputs[-1], cell.products.dtype
      )
    if cell.recurrent_bias:
      size = len(params[cell.recurrent_bias])
      dparams[cell.recurrent_bias] = cpu.sum_positions(dinputs[-1][..., -size:])
    return dparams, dfirst, dinputs[0], None, None

  return backward


def scan_several(cell: Cell, *, reverse: bool) -> Callable[..., Any]:
  """`scan` for a cell whose `__call__` has several products, one after another.

  Here, too, the gradients of the kernels are products after the backward loop,
  not sums over its steps; over several devices, each step would wait for the
  others. The factors x of each product x @ kernel are saved. A zero that is
  added to each product gives its gradient: the loop computes du for all steps,
  and the gradient of the kernel is the sum over t of x[t].T @ du[t].
  """
  run = jax.custom_vjp(plain(cell, reverse))
  run.defvjp(_forward_several(cell, reverse), _backward_several(cell, reverse))
  return run


@dataclass(eq=False)
class _Record:
  """Products of one step, recorded in place of `Cell.products`.

  Attributes:
    products: computes them.
    replacements: in the order of the products, the second factor in place of
      a kernel, which then has no gradient, and a zero that is added.
    factors: the first factor of each product.
    kernels: the second.
    results: the products.
  """

  products: Products
  replacements: Sequence[tuple[jax.Array, jax.Array]] | None
  factors: list[jax.Array] = field(default_factory=list)
  kernels: list[jax.Array] = field(default_factory=list)
  results: list[jax.Array] = field(default_factory=list)

  def step(self, x_BD: jax.Array, kernel_DK: jax.Array) -> jax.Array:
    self.factors.append(x_BD)
    self.kernels.append(kernel_DK)
    if self.replacements is None:
      u_BK = self.products.step(x_BD, kernel_DK)
    else:
      kernel_DK, zero_BK = self.replacements[len(self.results)]
      u_BK = self.products.step(x_BD, kernel_DK) + zero_BK
    self.results.append(u_BK)
    return u_BK


def _record(cell: Cell, replacements: Any, params: Any, *inputs: Any) -> Any:
  """The carry after a step, and the record of its products."""
  record = _Record(cell.products, replacements)
  new = cell.clone(products=record).apply({"params": params}, *inputs)
  return new, record


def _step_params(cell: Cell, params: Any) -> dict[str, Any]:
  """The parameters that a step reads; `inputs` reads the others."""
  outside = (
    {"input_kernel"} if cell.recurrent_bias else {"input_kernel", "bias"}
  )
  return {name: p for name, p in params.items() if name not in outside}


def _forward_several(cell: Cell, reverse: bool) -> Callable[..., Any]:
  """The forward pass of `scan_several`."""

  def forward(params, first, z_TBK, take, mask_BH):
    _, record = _record(cell, None, params, first, z_TBK[0], mask_BH)
    zeros = [jnp.zeros(u_BK.shape, u_BK.dtype) for u_BK in record.results]
    local, kernels = _step_params(cell, params), record.kernels

    @_saving_marked
    def one(local, carry, z_BK, zeros):
      pairs = list(zip(kernels, zeros, strict=True))
      variables = {**params, **local}
      new, record = _record(cell, pairs, variables, carry, z_BK, mask_BH)
      return new, record.factors

    def step(carry, inputs):
      z_BK, take = inputs
      new, back, factors = jax.vjp(one, local, carry, z_BK, zeros, has_aux=True)
      saved = without((back, factors), (params, kernels, read_again(carry)))
      carry = hold(take, new, carry)
      return carry, (cell.hidden(carry), read_again(carry), saved)

    take = over_units(take, cell.hidden_size)
    last, (h_TBX, after, saved) = loop(
      step, first, (z_TBK, take), reverse=reverse
    )
    residuals = params, first, z_TBK[0], take, mask_BH, after, saved
    return (last, whole(h_TBX)), residuals

  return forward


def _backward_several(cell: Cell, reverse: bool) -> Callable[..., Any]:
  """The backward pass of `scan_several`."""

  def backward(residuals, cotangents):
    params, first, z_BK, take, mask_BH, after, saved = residuals
    old = before(read_again(first), after, reverse)
    local = _step_params(cell, params)

    def multiplied(local):
      inputs = params | local, first, z_BK, mask_BH
      return _record(cell, None, *inputs)[1].kernels

    kernels, to_params = jax.vjp(multiplied, local)
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


# Cell.path -> its scan; `parallel` is a method of the cell.
SCANS = {"fused": scan, "several": scan_several}


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear(
  a_TBH: jax.Array, b_TBH: jax.Array, h_BH: jax.Array, reverse: bool
) -> jax.Array:
  """h_TBH of the steps h' = a * h + b; see `parallel`."""
  if platform() == "cpu":
    # Rounds over all steps take five to ten times longer.
    step = lambda h_BH, terms: (terms[0] * h_BH + terms[1],) * 2
    return lax.scan(step, h_BH, (a_TBH, b_TBH), reverse=reverse)[1]

  def join(first, second):
    (a, b), (then_a, then_b) = first, second
    return then_a * a, then_a * b + then_b

  terms = lax.associative_scan(join, (a_TBH, b_TBH), reverse=reverse)
  return terms[0] * h_BH[None] + terms[1]


def _linear_forward(a_TBH, b_TBH, h_BH, reverse):
  h_TBH = linear(a_TBH, b_TBH, h_BH, reverse)
  return h_TBH, (a_TBH, h_BH, h_TBH)


def _linear_backward(reverse, saved, dh_TBH):
  # The gradient of h is such a recurrence, too, in the other direction.
  a_TBH, h_BH, h_TBH = saved
  zeros_BH = jnp.zeros_like(h_BH)
  then_TBH = before(zeros_BH, a_TBH, not reverse)
  db_TBH: Any = linear(then_TBH, dh_TBH, zeros_BH, not reverse)
  first = -1 if reverse else 0
  da_TBH = db_TBH * before(h_BH, h_TBH, reverse)
  return da_TBH, db_TBH, a_TBH[first] * db_TBH[first]


linear.defvjp(_linear_forward, _linear_backward)


def parallel(
  terms: tuple[jax.Array, jax.Array],
  h_BH: jax.Array,
  take: Any,
  *,
  reverse: bool,
) -> tuple[jax.Array, jax.Array]:
  """The last h and h_TBH of the steps h' = a * h + b.

  On a CPU, a loop has one multiplication and one addition a step; elsewhere,
  log2(T) rounds compute all steps.

  Args:
    terms: a_TBH, which is at most 1, and b_TBH; both may be complex.
    h_BH: the state before the first step.
    take: as in `hold`, T before B.
    reverse: from the last step to the first.
  """
  a_TBH = hold(take, terms[0], jnp.ones_like(terms[0]))
  b_TBH = hold(take, terms[1], jnp.zeros_like(terms[1]))
  h_TBH: Any = linear(a_TBH, b_TBH, h_BH, reverse)
  return h_TBH[0 if reverse else -1], h_TBH


def held(
  take: jax.Array, y_TBH: jax.Array, first_BH: jax.Array, *, reverse: bool
) -> tuple[jax.Array, jax.Array]:
  """The last y_BH and all y_TBH, where padding repeats the y before it.

  It is to `parallel` what `hold` is to a scan, for outputs that depend on the
  input besides the state.

  Args:
    take: as in `hold`, T before B; padding stands at the ends alone.
    y_TBH: of all positions.
    first_BH: the y before the first step.
    reverse: from the last step to the first.
  """
  last = 0 if reverse else -1
  steps_TB1 = lax.cumsum(take.astype(jnp.int32), reverse=reverse)[..., None]
  take, count_1B1 = take[..., None], steps_TB1[last][None]
  final_TBH = jnp.where(take & (steps_TB1 == count_1B1), y_TBH, 0)
  final_1BH = jnp.sum(final_TBH, axis=0, keepdims=True)
  before_TBH = jnp.where(steps_TB1 == 0, first_BH[None], final_1BH)
  y_TBH = jnp.where(take, y_TBH, before_TBH)
  return y_TBH[last], y_TBH
