"""A faster scan over time: the values of nn.scan, a backward pass of its own.

The gradient that JAX derives for a scan adds h.T @ du to the gradient of the
recurrent kernel R at every step, and keeps more than it needs. Here the scan
keeps what the cell marks by `cells.keep`; the backward scan hands out du, the
gradient of u = h @ R, for all steps; and R's gradient is one product after it:

  dR = sum over t of h[t-1].T @ du[t]

That holds for every cell whose `gates` have no product. Their derivative is
JAX's own. `parallel` is for cells whose step is linear.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from seqrnn.cells import KEPT, OUTSIDE, Cell
from seqrnn.experiment import Carry
from seqrnn.products import dot, kernel_gradient


def hold(keep_B: jax.Array, new: Carry, old: Carry) -> Carry:
  """The new carry in the rows where `keep_B` is true, the old one elsewhere."""
  return jax.tree.map(lambda n, o: jnp.where(keep_B[:, None], n, o), new, old)


def scan(cell: Cell, *, reverse: bool) -> Callable[..., Any]:
  """A function params, carry, z_TBK, mask_TB -> last carry, h_TBH.

  Args:
    cell: not bound to parameters.
    reverse: from the last step to the first.
  """

  @jax.custom_vjp
  def run(params, carry, z_TBK, mask_TB):
    def step(carry, inputs):
      z_BK, mask_B = inputs
      new = cell.apply({"params": params}, carry, z_BK)
      carry = hold(mask_B, new, carry)
      return carry, cell.hidden(carry)

    return lax.scan(step, carry, (z_TBK, mask_TB), reverse=reverse)

  def forward(params, first, z_TBK, mask_TB):
    own = {name: p for name, p in params.items() if name not in OUTSIDE}

    @functools.partial(
      jax.checkpoint,
      policy=jax.checkpoint_policies.save_only_these_names(KEPT),
      prevent_cse=False,  # A loop's body needs no guard against it.
    )
    def gates(own, carry, z_BK, u_BK):
      variables = {"params": {**params, **own}}
      return cell.apply(variables, carry, z_BK, u_BK, method="gates")

    def step(carry, inputs):
      z_BK, mask_B = inputs
      u_BK = dot(cell.hidden(carry), params["recurrent_kernel"], cell.products)
      if cell.additive:
        new, back = jax.vjp(
          lambda own, carry, a: gates(own, carry, a, jnp.zeros_like(a)),
          own,
          carry,
          z_BK + u_BK,
        )
      else:
        new, back = jax.vjp(gates, own, carry, z_BK, u_BK)
      carry = hold(mask_B, new, carry)
      return carry, (cell.hidden(carry), _unique(back))

    last, (h_TBH, back) = lax.scan(
      step, first, (z_TBK, mask_TB), reverse=reverse
    )
    return (last, h_TBH), (params, first, h_TBH, mask_TB, back)

  def backward(saved, cotangents):
    params, first, h_TBH, mask_TB, back = saved
    own = params.keys() - set(OUTSIDE)
    dlast, dh_TBH = cotangents
    # Left as R.T, XLA would read it across its rows at every step.
    R_T = lax.optimization_barrier(params["recurrent_kernel"].T)
    spread = jax.linear_transpose(cell.hidden, first)  # dh -> its carry
    add = lambda *trees: jax.tree.map(lambda *leaves: sum(leaves), *trees)

    def step(dcarry, inputs):
      back, mask_B, dh_BH = inputs
      dcarry = add(dcarry, *spread(dh_BH))
      zeros = jax.tree.map(jnp.zeros_like, dcarry)
      dnew = hold(mask_B, dcarry, zeros)
      _, dgates, *dinputs = back()(dnew)
      held = hold(mask_B, zeros, dcarry)
      dcarry = add(held, dgates, *spread(dot(dinputs[-1], R_T, cell.products)))
      return dcarry, (dinputs, dnew if own else None)

    dfirst, (dinputs, dnew) = lax.scan(
      step, dlast, (back, mask_TB, dh_TBH), reverse=not reverse
    )
    if own:  # All steps together: in the loop, devices would wait for others.
      down = jax.vmap(lambda back, dnew: back()(dnew)[0])(back, dnew)
      down = jax.tree.map(lambda d: jnp.sum(d, axis=0), down)
    edge_1BH = cell.hidden(first)[None]
    if reverse:
      before_TBH = jnp.concatenate([h_TBH[1:], edge_1BH])
    else:
      before_TBH = jnp.concatenate([edge_1BH, h_TBH[:-1]])
    dparams = {
      **dict.fromkeys(OUTSIDE),  # None: no gradient by this way.
      **(down if own else {}),
      "recurrent_kernel": kernel_gradient(
        before_TBH, dinputs[-1], cell.products
      ),
    }
    return dparams, dfirst, dinputs[0], None

  run.defvjp(forward, backward)
  return run


def parallel(
  terms: tuple[jax.Array, jax.Array],
  h_BH: jax.Array,
  mask_TB: jax.Array,
  *,
  reverse: bool,
) -> tuple[jax.Array, jax.Array]:
  """The last h and h_TBH of the steps h' = a * h + b, in log2(T) rounds.

  Args:
    terms: a_TBH, which is at most 1, and b_TBH.
    h_BH: before the first step.
    mask_TB: false where h is held.
    reverse: from the last step to the first.
  """
  a_TBH = jnp.where(mask_TB[..., None], terms[0], 1)
  b_TBH = jnp.where(mask_TB[..., None], terms[1], 0)

  def join(first, second):
    (a, b), (then_a, then_b) = first, second
    return then_a * a, then_a * b + then_b

  a_TBH, b_TBH = lax.associative_scan(join, (a_TBH, b_TBH), reverse=reverse)
  h_TBH = a_TBH * h_BH[None] + b_TBH
  return h_TBH[0 if reverse else -1], h_TBH


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
