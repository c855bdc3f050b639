"""The base class of all cells, and the register of their names.

A cell is one time step in three parts. `inputs` computes all that depends on
the input alone, as one product for the whole sequence. `recurrent` computes the
recurrent product h @ recurrent_kernel and adds its bias. `gates` computes the
rest of a step, which has no product. `Cell.__call__`, one step, is `recurrent`
and then `gates`; `layers.Recurrent` scans it over time.

A cell whose step has another form sets `path`: "several" where `__call__` has
several products, "parallel" where a method `parallel` computes all steps, which
needs no scan of single steps (`cells.Linear`, `cells.Matrix`).
"""

import inspect
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from seqrnn.config.read import Config
from seqrnn.errors import UserError
from seqrnn.experiment import Carry
from seqrnn.models.arrays import Tree
from seqrnn.models.products import Lookup, Products

# `model.cell` -> the class, with the attributes that the name stands for.
CELLS: dict[str, partial["Cell"]] = {}
Kind = TypeVar("Kind", bound=Callable[..., "Cell"])
Initializer = Callable[..., jax.Array]
# What a cell keeps of a step: a tuple of arrays [B, X]; None: nothing.
Kept = Any


def register(name: str, **attributes: Any) -> Callable[[Kind], Kind]:
  """A class decorator: `model.cell=name` is this class with these attributes.

  The rule of `model.cell`, its warnings and every place that makes a cell read
  this register, so a name is written nowhere else. A notebook that defines a
  class again registers it again.

  Raises:
    UserError: another class has this name.
  """

  def add(kind: Kind) -> Kind:
    new, old = (
      f"{x.__module__}.{x.__qualname__}"
      for x in (kind, CELLS.get(name, partial(kind)).func)
    )
    if new != old:
      raise UserError(f"model.cell={name!r}: is the name of {old}, too")
    CELLS[name] = partial(kind, **attributes)
    return kind

  return add


def source_crc32(name: str) -> int:
  """The checksum of the code of a cell; 0: seqrnn's own, or it has no file."""
  kind = CELLS[name].func
  if kind.__module__.startswith("seqrnn."):
    return 0
  try:
    return zlib.crc32(inspect.getsource(kind).encode())
  except (OSError, TypeError):
    return 0


def code_of(name: str) -> list[Any]:
  """The code of the methods of a cell, which a notebook may have replaced."""
  every = (x for kind in CELLS[name].func.__mro__ for x in vars(kind).values())
  functions = (inspect.unwrap(x) for x in every if inspect.isfunction(x))
  return [getattr(x, "__code__", x) for x in functions]


def uniform(scale: float) -> Initializer:
  """An initializer: U(-scale, scale)."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -scale, scale)

  return init


def hold(take: jax.Array, new: Tree, old: Tree) -> Tree:
  """The new carry where take_B is true, the old carry elsewhere.

  T comes before B where the carries have it.
  """

  def one(new, old):
    rest = (None,) * (new.ndim - take.ndim)
    return jnp.where(take[(..., *rest)], new, old)

  return jax.tree.map(one, new, old)


def masked_state(h_BH: jax.Array, mask_BH: jax.Array | None) -> jax.Array:
  """The state that a recurrent product reads: h times the dropout mask."""
  return h_BH if mask_BH is None else h_BH * mask_BH


# Parameters that `gates` does not read.
OUTSIDE_GATES = ("input_kernel", "recurrent_kernel", "bias")
SIGMOID, TANH = 0.5, 1.0  # Kinds of `activate`: the scales in its equation.


@jax.custom_jvp
def recall(x: Tree, kept: Tree) -> Tree:
  """`kept`, which is the value of x from a forward pass, with x's derivative.

  So a backward pass differentiates x, but does not compute it again.
  """
  del x
  return kept


@recall.defjvp
def _recall_jvp(primals, tangents):
  return primals[1], tangents[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def activate(
  kinds: tuple[float, ...],
  a_BK: jax.Array,
  kept: Sequence[jax.Array] | None = None,
) -> list[jax.Array]:
  """The activation of each gate, [B, H], from one tanh over all gates.

  sigmoid(x) = (1 + tanh(x / 2)) / 2, so one tanh over [B, K] serves both kinds.
  If the gates are split first, XLA computes each activation by itself, and some
  of them twice.

  Args:
    kinds: SIGMOID or TANH for each gate.
    a_BK: the inputs of all gates, side by side.
    kept: the results, if a forward pass has kept them; they are not computed.
  """
  if kept is not None:
    return list(kept)
  shape = (1, a_BK.shape[-1] // len(kinds))
  scale_1K = jnp.concatenate(
    [jnp.full(shape, kind, a_BK.dtype) for kind in kinds], axis=-1
  )
  parts = jnp.split(jnp.tanh(scale_1K * a_BK), len(kinds), axis=-1)
  return [
    kind * part_BH + (1 - kind)
    for kind, part_BH in zip(kinds, parts, strict=True)
  ]


@activate.defjvp
def _activate_jvp(kinds, primals, tangents):
  # One slope for each gate. The slope of the one tanh would be another array
  # [B, K] in the backward pass.
  y = activate(kinds, *primals)
  parts = jnp.split(tangents[0], len(kinds), axis=-1)
  slopes = [
    y_BH * (1 - y_BH) if kind == SIGMOID else 1 - y_BH * y_BH
    for kind, y_BH in zip(kinds, y, strict=True)
  ]
  return y, [s * part for s, part in zip(slopes, parts, strict=True)]


class Cell(nn.Module):
  """The input product and the recurrent product, which all cells share.

  Attributes:
    hidden_size: H, the number of units.
    vocabulary_size: V, where the inputs are ids: each id selects a row of the
      input kernel, which equals the product with a one-hot vector. None: the
      inputs are features x_BTD.
    initial_scale: kernels and biases start from U(-a, a); None: 1/sqrt(H).
    products: how products with parameters are computed.
    forget_bias: the initial bias of the forget gate, where the cell has one.
    heads: N parts of the state that do not read each other, where the cell has
      such parts.
  """

  hidden_size: int
  vocabulary_size: int | None = None
  initial_scale: float | None = None
  products: Products = Products()
  forget_bias: float = 1.0
  heads: int = 1

  # Whether `heads` may be more than 1; H is a multiple of it.
  may_have_heads: ClassVar[bool] = False
  gate_count = 1  # K = gate_count * H, unless `width` says otherwise.
  # The place of the forget gate among the gates; None: there is none.
  forget_place: ClassVar[Any] = None
  # The number of parameters of a layer with D inputs; D is V for ids.
  formula: ClassVar[str] = "HD + H² + H"
  additive = True  # Whether `gates` reads z and u only as their sum.
  # Whether h is multiplied by a recurrent kernel. If it is not, `recurrent`
  # gives the bias alone, and `gates` computes all that depends on the carry.
  recurrent_product: ClassVar[bool] = True
  # The name of the bias that `recurrent` adds to its last outputs, or to all;
  # None: `inputs` adds the bias, which takes one more pass over all of z.
  recurrent_bias: ClassVar[str | None] = "bias"
  # How the cell is scanned: fused, several (scan.py), or parallel.
  path: ClassVar[str] = "fused"

  def setup(self):
    scale, K = self.initial_scale or self.hidden_size**-0.5, self.width
    kernel_init = self.initial_kernel(uniform(scale))
    if self.vocabulary_size is None:
      self.input_kernel = nn.Dense(
        K,
        use_bias=False,
        kernel_init=kernel_init,
        dot_general=lambda x, kernel, *_, **__: self.products.product(
          x, kernel
        ),
      )
    else:
      self.input_kernel = nn.Embed(
        self.vocabulary_size, K, embedding_init=kernel_init
      )
    if self.recurrent_product:
      self.recurrent_kernel = self.param(
        "recurrent_kernel", uniform(scale), (self.hidden_size, K // self.heads)
      )
    self.bias = self.param("bias", self.initial_bias(uniform(scale)), (K,))
    self.setup_gates(uniform(scale))

  @property
  def width(self) -> int:
    """K, the size of z."""
    return self.gate_count * self.hidden_size

  def initial_kernel(self, init: Initializer) -> Initializer:
    """The initializer of the input kernel."""
    return init

  def initial_bias(self, init: Initializer, sign: float = 1.0) -> Initializer:
    """The initializer of the bias.

    Args:
      init: of all biases but the forget gate's.
      sign: of `forget_bias`, where the forget gate's starts.
    """
    if self.forget_place is None:
      return init

    def init_all(key, shape, dtype=jnp.float32):
      parts = jnp.split(init(key, shape, dtype), self.gate_count)
      place = self.forget_place
      parts[place] = jnp.full_like(parts[place], sign * self.forget_bias)
      return jnp.concatenate(parts)

    return init_all

  def setup_gates(self, init: Initializer):
    """Makes the parameters that only `gates` reads, where a cell has any."""

  def inputs(self, x_TBD: jax.Array | Lookup) -> jax.Array:
    """All that depends on the input alone: z_TBK.

    Args:
      x_TBD: features, or a Lookup of them; ids_TB where V is given.
    """
    if isinstance(x_TBD, Lookup):
      table_VK, ids = self.input_kernel(x_TBD.table_VD), x_TBD.ids
    elif self.vocabulary_size is not None:
      table_VK, ids = self.input_kernel.embedding, x_TBD
    else:
      return self.shift(self.input_kernel(x_TBD))
    return self.products.rows(self.shift(table_VK), ids)

  def shift(self, x: jax.Array) -> jax.Array:
    """The input product, x_NK or x_TBK, plus the bias that is not recurrent."""
    if self.recurrent_bias == "bias":
      return x
    return self.products.add_bias(x, self.bias)

  def recurrent(self, h_BH: jax.Array) -> jax.Array:
    """The recurrent product u_BK, if there is one, plus `recurrent_bias`."""
    if self.recurrent_product:
      u_BK = self.products.step(h_BH, self.recurrent_kernel)
    else:
      u_BK = jnp.zeros((len(h_BH), self.width), h_BH.dtype)
    if self.recurrent_bias is None:
      return u_BK
    bias = getattr(self, self.recurrent_bias)
    return u_BK + jnp.pad(bias, (u_BK.shape[-1] - len(bias), 0))[None]

  def gates(self, carry: Carry, z_BK: jax.Array, u_BK: jax.Array) -> Carry:
    """The rest of a step; `u_BK` is the result of `recurrent`.

    A cell defines this method. If its backward pass is to keep other arrays
    than z and u, it defines `activations` and `update` instead.
    """
    return self.update(carry, self.activations(carry, z_BK, u_BK))

  def activations(
    self, carry: Carry, z_BK: jax.Array, u_BK: jax.Array, kept: Kept = None
  ) -> Kept:
    """The part of `gates` that takes long; the backward pass keeps it.

    Args:
      carry: before the step.
      z_BK: as in `gates`.
      u_BK: as in `gates`.
      kept: the result, in the backward pass. There z and u have no values, and
        `recall`, `activate` and `normalize` take theirs from it.
    """
    raise NotImplementedError

  def update(self, carry: Carry, kept: Kept) -> Carry:
    """The rest of `gates`, which the backward pass computes again."""
    raise NotImplementedError

  def keep(
    self, carry: Carry, z_BK: jax.Array, u_BK: jax.Array, kept: Kept = None
  ) -> tuple[Carry, Kept]:
    """`gates`, and what the backward pass of the fused scan keeps of it.

    That is z and u for a cell which defines `gates`: the backward pass computes
    it again.
    """
    if type(self).gates is Cell.gates:
      kept = self.activations(carry, z_BK, u_BK, kept)
      return self.update(carry, kept), kept
    sums = (z_BK + u_BK,) if self.additive else (z_BK, u_BK)
    sums = sums if kept is None else recall(sums, kept)
    z_BK, *u = sums
    return self.gates(carry, z_BK, *u or [jnp.zeros((), z_BK.dtype)]), sums

  def __call__(
    self, carry: Carry, z_BK: jax.Array, mask_BH: jax.Array | None = None
  ) -> Carry:
    """One time step; the recurrent product reads h times `mask_BH`."""
    u_BK = self.recurrent(masked_state(self.hidden(carry), mask_BH))
    return self.gates(carry, z_BK, u_BK)

  def initial_carry(self, batch_size: int) -> Carry:
    """The carry before the first step: zeros."""
    return jnp.zeros((batch_size, self.hidden_size))

  def hidden(self, carry: Carry) -> jax.Array:
    """h_BH, which the layer above and the next step read."""
    return carry


def make(model: Config, **shape: Any) -> Cell:
  """The cell that `config.model` names, not bound to parameters.

  Raises:
    UserError: the units cannot be divided into the heads.
  """
  cell = CELLS[model.cell](forget_bias=model.forget_bias, **shape)
  if not cell.may_have_heads:
    return cell
  if cell.hidden_size % model.cell_heads:
    raise UserError(
      f"model.cell_heads={model.cell_heads} with model.hidden_size="
      f"{cell.hidden_size}: the units must be a multiple of the heads"
    )
  return cell.clone(heads=model.cell_heads)
