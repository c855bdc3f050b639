"""A faster scan over time: the values of nn.scan, a backward pass of its own.

The gradient that JAX derives for a scan adds h.T @ du to the gradient of the
recurrent kernel R at every step, and keeps more than it needs. Here the scan
keeps what the cell marks by `cell.save`; the backward scan hands out du, the
gradient of u = h @ R, for all steps; and R's gradient is one product after it:

  dR = sum over t of h[t-1].T @ du[t]

That holds for every cell whose `gates` have no product. Their derivative is
JAX's own. A cell without a recurrent product has no R, and these parts are left
out. `parallel` is for cells whose step is linear.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from seqrnn.experiment import Carry
from seqrnn.models.cell import OUTSIDE_GATES, SAVED, Cell, masked_state
from seqrnn.models.products import kernel_gradient, step_dot, summed, turned


def hold(take: Any, new: Carry, old: Carry) -> Carry:
  """The new carry where `take` is true, the old one elsewhere.

  Args:
    take: for each array of the carry, or for all of them, take_B or take_BH;
      numbers are the share of the new one in a mean of the two. With T before
      B where the carries have it.
    new: where it is taken.
    old: where it is not.
  """

  def one(take, new, old):
    take = take[..., None] if take.ndim < new.ndim else take
    if take.dtype == bool:
      return jnp.where(take, new, old)
    return take * new + (1 - take) * old

  return jax.tree.map(
    lambda take, *carries: jax.tree.map(partial(one, take), *carries),
    take,
    new,
    old,
  )


def scan(cell: Cell, *, reverse: bool) -> Callable[..., Any]:
  """A function params, carry, z_TBK, take, mask_BH -> last carry, h_TBH.

  It has no gradient with respect to `take`, which is as in `hold`, T before B,
  nor to `mask_BH`, by which h is multiplied for the recurrent product.

  Args:
    cell: not bound to parameters.
    reverse: from the last step to the first.
  """
  outside = {*OUTSIDE_GATES, cell.recurrent_bias} - {None}

  @jax.custom_vjp
  def run(params, carry, z_TBK, take, mask_BH=None):
    def step(carry, inputs):
      z_BK, take = inputs
      new = cell.apply({"params": params}, carry, z_BK, mask_BH)
      carry = hold(take, new, carry)
      return carry, cell.hidden(carry)

    return lax.scan(step, carry, (z_TBK, take), reverse=reverse)

  def forward(params, first, z_TBK, take, mask_BH):
    own = {name: p for name, p in params.items() if name not in outside}

    @partial(
      jax.checkpoint,
      policy=jax.checkpoint_policies.save_only_these_names(SAVED),
      prevent_cse=False,  # A loop's body needs no guard against it.
    )
    def gates(own, carry, z_BK, u_BK):
      variables = {"params": {**params, **own}}
      return cell.apply(variables, carry, z_BK, u_BK, method="gates")

    def step(carry, inputs):
      z_BK, take = inputs
      h_BH = masked_state(cell.hidden(carry), mask_BH)
      u_BK = cell.apply({"params": params}, h_BH, method="recurrent")
      if cell.additive:
        new, back = jax.vjp(
          lambda own, carry, a: gates(own, carry, a, jnp.zeros((), a.dtype)),
          own,
          carry,
          z_BK + u_BK,
        )
      else:
        new, back = jax.vjp(gates, own, carry, z_BK, u_BK)
      carry = hold(take, new, carry)
      return carry, (cell.hidden(carry), _unique(back))

    last, (h_TBH, back) = _loop(step, first, (z_TBK, take), reverse=reverse)
    return (last, h_TBH), (params, first, h_TBH, take, mask_BH, back)

  def backward(saved, cotangents):
    params, first, h_TBH, take, mask_BH, back = saved
    own = params.keys() - outside
    dlast, dh_TBH = cotangents
    R_T = None
    if cell.recurrent_product:
      # Left as R.T, XLA would read it across its rows at every step.
      R_T = turned(params["recurrent_kernel"], cell.products)
      R_T = lax.optimization_barrier(R_T)
    spread = jax.linear_transpose(cell.hidden, first)  # dh -> its carry
    add = lambda *trees: jax.tree.map(lambda *leaves: sum(leaves), *trees)

    def step(dcarry, inputs):
      dh_BH, take, back = inputs
      dcarry = add(dcarry, *spread(dh_BH))
      zeros = jax.tree.map(jnp.zeros_like, dcarry)
      dnew = hold(take, dcarry, zeros)
      _, dgates, *dinputs = back()(dnew)
      dcarry = add(hold(take, zeros, dcarry), dgates)
      if R_T is not None:
        dh_BH = masked_state(step_dot(dinputs[-1], R_T, cell.products), mask_BH)
        dcarry = add(dcarry, *spread(dh_BH))
      return dcarry, (dinputs, dnew if own else None)

    dfirst, (dinputs, dnew) = _loop(
      step, dlast, (dh_TBH, take, back), reverse=not reverse
    )
    if own:  # All steps together: in the loop, devices would wait for others.
      down = jax.vmap(lambda back, dnew: back()(dnew)[0])(back, dnew)
      down = jax.tree.map(lambda d: jnp.sum(d, axis=0), down)
    dparams = {
      # None: no gradient by this way.
      **dict.fromkeys(params.keys() & outside),
      **(down if own else {}),
    }
    if cell.recurrent_product:
      edge_1BH = cell.hidden(first)[None]
      if reverse:
        before_TBH = jnp.concatenate([h_TBH[1:], edge_1BH])
      else:
        before_TBH = jnp.concatenate([edge_1BH, h_TBH[:-1]])
      if mask_BH is not None:
        before_TBH *= mask_BH[None]
      dparams["recurrent_kernel"] = kernel_gradient(
        before_TBH, dinputs[-1], cell.products
      )
    if cell.recurrent_bias:
      size = len(params[cell.recurrent_bias])
      dparams[cell.recurrent_bias] = summed(dinputs[-1][..., -size:])
    return dparams, dfirst, dinputs[0], None, None

  run.defvjp(forward, backward)
  return run


def parallel(
  terms: tuple[jax.Array, jax.Array],
  h_BH: jax.Array,
  take: Any,
  *,
  reverse: bool,
) -> tuple[jax.Array, jax.Array]:
  """The last h and h_TBH of the steps h' = a * h + b, in log2(T) rounds.

  Args:
    terms: a_TBH, which is at most 1, and b_TBH.
    h_BH: before the first step.
    take: as in `hold`, T before B.
    reverse: from the last step to the first.
  """
  a_TBH = hold(take, terms[0], jnp.ones_like(terms[0]))
  b_TBH = hold(take, terms[1], jnp.zeros_like(terms[1]))

  def join(first, second):
    (a, b), (then_a, then_b) = first, second
    return then_a * a, then_a * b + then_b

  a_TBH, b_TBH = lax.associative_scan(join, (a_TBH, b_TBH), reverse=reverse)
  h_TBH = a_TBH * h_BH[None] + b_TBH
  return h_TBH[0 if reverse else -1], h_TBH


def _loop(
  step: Callable[..., Any], carry: Any, inputs: Any, *, reverse: bool
) -> tuple[Any, Any]:
  """lax.scan(step, carry, inputs), in memory made for it alone.

  On a CPU a scan begins its outputs as zeros. XLA makes those of all loops
  before the first one, and copies them; they take memory all the time. All of
  it is written over, so here it begins as columns of the first input, another
  one for each output: nothing that is shared, or at hand any sooner.
  """
  if jax.default_backend() != "cpu":  # There nothing is written at first.
    return lax.scan(step, carry, inputs, reverse=reverse)
  first_TBX, *_ = jax.tree.leaves(inputs)
  T, B, X = first_TBX.shape
  step = jax.jit(step)  # Traced once for both of its uses.

  def at(t):
    return jax.tree.map(
      lambda x: lax.dynamic_index_in_dim(x, t, keepdims=False), inputs
    )

  def memory(number, y):
    if y.ndim == 2 and len(y) == B and y.dtype == first_TBX.dtype:
      column_B1 = first_TBX[0, :, number % X, None]
      return jnp.broadcast_to(column_B1, (T, *y.shape))
    return jnp.zeros((T, *y.shape), y.dtype)

  def body(count, state):
    carry, outputs = state
    t = T - 1 - count if reverse else count
    carry, new = step(carry, at(t))
    outputs = jax.tree.map(
      lambda old, new: lax.dynamic_update_index_in_dim(old, new, t, 0),
      outputs,
      new,
    )
    return carry, outputs

  _, shapes = jax.eval_shape(step, carry, at(0))
  leaves, structure = jax.tree.flatten(shapes)
  outputs = structure.unflatten(
    [memory(number, leaf) for number, leaf in enumerate(leaves)]
  )
  return lax.fori_loop(0, T, body, (carry, outputs))


def _unique(tree: Any) -> jax.tree_util.Partial:
  """A function () -> tree, as a tree in which no array stands twice."""
  leaves, structure = jax.tree.flatten(tree)
  ids = [id(leaf) for leaf in leaves]
  first = list(dict.fromkeys(ids))
  places = [first.index(i) for i in ids]
  return jax.tree_util.Partial(
    lambda *unique: structure.unflatten([unique[place] for place in places]),
    *(leaves[ids.index(i)] for i in first),
  )
