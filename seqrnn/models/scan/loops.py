"""Loops over time, with arrays laid out for the compiler of each platform.

On a GPU each array that a step writes costs a kernel, and so does each step's
counter. There, the arrays of a step lie side by side in one array, and one pass
of the loop makes several steps. On a TPU each operation of a step takes long,
however small it is, and the compiler joins operations only if they read and
write the same gates. There, arrays of several gates are read and written gate
by gate. The layout changes no value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seqrnn.experiment import Carry
from seqrnn.models import cpu
from seqrnn.models.arrays import Tree, add, before
from seqrnn.models.cell import Cell, hold
from seqrnn.models.cpu import Carried, Read, Written
from seqrnn.runtime.sharding import platform

UNROLL = {"gpu": 8}  # Steps of one pass. More than one makes a TPU slower.
_static = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Columns:
  """The part [T, B, start:stop] of an array that holds several.

  The next loop reads its part itself, so it is not copied before the loop.
  """

  array_TBX: jax.Array
  start: int = field(metadata=_static)
  stop: int = field(metadata=_static)

  def whole(self) -> jax.Array:
    return self.array_TBX[..., self.start : self.stop]

  def at(self, t: jax.Array, gate: int | None) -> jax.Array:
    """The part of step t, read gate by gate if the size of one is given."""
    size = self.stop - self.start
    if gate and size % gate == 0:
      size = gate
    shape = (1, self.array_TBX.shape[1], size)
    parts = [
      lax.dynamic_slice(
        self.array_TBX, (t, 0, start), shape, allow_negative_indices=False
      )[0]
      for start in range(self.start, self.stop, size)
    ]
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def _is_part(x: object) -> bool:
  return isinstance(x, Columns)


def whole(tree: Tree) -> Tree:
  """The arrays of all steps, [T, B, X], in place of Columns."""
  return jax.tree.map(
    lambda x: x.whole() if _is_part(x) else x, tree, is_leaf=_is_part
  )


def _at(tree: Tree, t: jax.Array, gate: int | None) -> Tree:
  """The arrays of step t."""

  def one(x):
    if not _is_part(x) and x.ndim == 3:
      x = Columns(x, 0, x.shape[-1])
    if _is_part(x):
      return x.at(t, gate)
    return lax.dynamic_index_in_dim(
      x, t, keepdims=False, allow_negative_indices=False
    )

  return jax.tree.map(one, tree, is_leaf=_is_part)


def loop(
  step: Callable[[Carried, Read], tuple[Carried, Written]],
  carry: Carried,
  inputs: Read,
  *,
  reverse: bool,
  gate: int | None = None,
) -> tuple[Carried, Written]:
  """lax.scan(step, carry, inputs, reverse=reverse).

  Args:
    step: carry, inputs of one step -> carry, outputs.
    carry: before the first step.
    inputs: arrays [T, ...], or Columns.
    reverse: from the last step to the first.
    gate: the size of one of the gates, whose arrays a TPU reads and writes one
      by one; None: it does not.

  Returns:
    the last carry, and the outputs of all steps, which may be Columns.
  """
  target, T = platform(), len(jax.tree.leaves(inputs)[0])
  if target == "cpu":
    return cpu.loop(step, carry, whole(inputs), reverse=reverse)
  gate = gate if target == "tpu" else None
  first = jnp.asarray(T - 1 if reverse else 0)
  _, like = jax.eval_shape(lambda t: step(carry, _at(inputs, t, gate)), first)
  like, structure = jax.tree.flatten(like)
  write, read = _together(like) if target == "gpu" else _apart(gate)

  def numbered(state, _):
    t, carry = state
    carry, outputs = step(carry, _at(inputs, t, gate))
    if target == "gpu":
      # Else the later steps of a pass compute the carry of the earlier again.
      carry = lax.optimization_barrier(carry)
    return (t - 1 if reverse else t + 1, carry), write(jax.tree.leaves(outputs))

  (_, carry), outputs = lax.scan(
    numbered,
    (first, carry),
    length=T,
    reverse=reverse,
    unroll=UNROLL.get(target, 1),
  )
  return carry, structure.unflatten(read(outputs))


def _together(leaves: Sequence[jax.Array]) -> tuple[Callable, Callable]:
  """Functions: arrays of a step -> one array, and of all steps -> Columns.

  Arrays that are not [B, X], or of another type than the first, stay apart.
  """
  (B, *_), dtype = leaves[0].shape, leaves[0].dtype
  joined = [
    x.ndim == 2 and x.shape[0] == B and x.dtype == dtype for x in leaves
  ]
  sizes = [
    x.shape[-1] if join else 0 for x, join in zip(leaves, joined, strict=True)
  ]
  stops = np.cumsum(sizes).tolist()

  def write(arrays):
    wide = [x for x, join in zip(arrays, joined, strict=True) if join]
    others = [x for x, join in zip(arrays, joined, strict=True) if not join]
    return jnp.concatenate(wide, axis=-1), others

  def read(written):
    wide_TBX, others = written
    others = iter(others)
    return [
      Columns(wide_TBX, stop - size, stop) if join else next(others)
      for join, size, stop in zip(joined, sizes, stops, strict=True)
    ]

  return write, read


def _apart(gate: int | None) -> tuple[Callable, Callable]:
  """Functions: arrays of a step -> their gates, and of all steps -> arrays."""

  def gates(x):
    several = gate and x.ndim == 2 and x.shape[-1] % gate == 0
    return jnp.split(x, x.shape[-1] // gate, axis=-1) if several else [x]

  def array(parts):
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

  return (
    lambda arrays: [gates(x) for x in arrays],
    lambda written: [array(parts) for parts in written],
  )


def loop_forward(
  step: Callable[[Carry, jax.Array], tuple[Carry, Written]],
  cell: Cell,
  first: Carry,
  inputs: tuple[jax.Array, jax.Array],
  reverse: bool,
) -> tuple[Carry, jax.Array, tuple[jax.Array, Carry, Written]]:
  """The loop of a forward pass.

  Args:
    step: carry, z_BK -> carry, what the backward pass keeps of the step.
    cell: what is scanned.
    first: the carry before the first step.
    inputs: as in `scan`.
    reverse: as in `loop`.

  Returns:
    the last carry, h_TBH, and what `loop_backward` reads: masks, carries, and
    what the steps keep.
  """
  on_cpu = platform() == "cpu"

  def writing(carry, inputs):
    z_BK, take = inputs
    new, kept = step(carry, z_BK)
    new = hold(take, new, carry)
    # A CPU writes h and the old carry: there, a copy of the new carries, one
    # step later, takes longer.
    return new, ((cell.hidden(new), carry) if on_cpu else new, kept)

  z_TBK, take = inputs
  if platform() == "tpu":  # Else each step would spread the masks.
    take = jnp.broadcast_to(take[..., None], (*take.shape, cell.hidden_size))
  last, (carries, kept) = loop(writing, first, (z_TBK, take), reverse=reverse)
  if on_cpu:
    h_TBH, carries = carries
  else:
    h_TBH = jax.vmap(cell.hidden)(whole(carries))
  return last, h_TBH, (take, carries, kept)


def carries_before(first: Carry, carries: Carry, reverse: bool) -> Carry:
  """The carry before each step, of the carries of `loop_forward`."""
  if platform() == "cpu":
    return carries
  return before(first, whole(carries), reverse)


def loop_backward(
  step: Callable[..., tuple[Carry, Written]],
  cell: Cell,
  cotangents: tuple[Carry, jax.Array],
  inputs: tuple[jax.Array, Carry, *tuple[Tree, ...]],
  reverse: bool,
) -> tuple[Carry, Written]:
  """The loop of a backward pass: the gradient of the first carry, and outputs.

  Args:
    step: the gradients of the carry that a step computes and of the carry that
      it holds, and the step's inputs but the mask -> the gradient of the carry
      before the step, and outputs.
    cell: what is scanned.
    cotangents: the gradients of the last carry and of h_TBH.
    inputs: masks, the carries before the steps, and others.
    reverse: as in the forward pass.
  """
  dlast, dh_TBH = cotangents
  spread = jax.linear_transpose(cell.hidden, dlast)  # dh -> its carry

  def one(dcarry, inputs):
    dh_BH, take, *others = inputs
    dcarry = add(dcarry, *spread(dh_BH))
    zeros = jax.tree.map(jnp.zeros_like, dcarry)
    dnew = hold(take, dcarry, zeros)
    return step(dnew, hold(take, zeros, dcarry), *others)

  dfirst, outputs = loop(
    one, dlast, (dh_TBH, *inputs), reverse=not reverse, gate=cell.hidden_size
  )
  return dfirst, whole(outputs)


def apart_from_product(carry: Carry) -> Carry:
  """The carry, which a TPU then computes before the product that is added.

  Merged with it, the product would read every array that the carry is made of.
  """
  return lax.optimization_barrier(carry) if platform() == "tpu" else carry
