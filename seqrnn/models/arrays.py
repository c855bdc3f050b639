"""Sums of trees of arrays, and arrays of all steps beside those of one."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Tree = TypeVar("Tree")


def add(*trees: Tree) -> Tree:
  """The sum of trees of arrays."""
  return jax.tree.map(lambda *leaves: sum(leaves), *trees)


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


def before(first: Tree, after: Tree, reverse: bool) -> Tree:
  """The arrays before each step, given those before the first and after each.

  Args:
    first: a tree of arrays [B, X].
    after: a tree of the same form, [T, B, X].
    reverse: from the last step to the first.
  """

  def one(first_BX, after_TBX):
    if reverse:
      return jnp.concatenate([after_TBX[1:], first_BX[None]])
    return jnp.concatenate([first_BX[None], after_TBX[:-1]])

  return jax.tree.map(one, first, after)
