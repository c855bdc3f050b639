"""Cells whose memory is a matrix of keys and values for each head.

A step writes to the memory and reads from it. It is linear in the memory, so
`chunk` computes L steps by a few matrix products: what they read of the memory
before the chunk, and what they read of each other. The products are not with
parameters, so `model.products` does not round them.
"""

import jax
import jax.numpy as jnp
from jax import lax

from seqrnn.experiment import Carry
from seqrnn.models.arrays import held
from seqrnn.models.cell import Cell, hold, register
from seqrnn.models.products import align, dot


class Matrix(Cell):
  """A cell whose carry is its memory, h, and what else it has.

  The memory is [B, N, d, d'], with a row for each number of a key; N is
  `heads`, d = H / N.
  """

  recurrent_product = False
  recurrent_bias = None
  path = "parallel"
  may_have_heads = True

  def chunk(
    self, state: Carry, z_LBK: jax.Array, take_LB: jax.Array
  ) -> tuple[Carry, jax.Array]:
    """L steps: the carry after them, without h, and h_LBH.

    Args:
      state: the carry before them, without h.
      z_LBK: as in `gates`.
      take_LB: where it is false, a step changes no state, and h is any number.
    """
    raise NotImplementedError

  def parallel(self, carry, z_TBK, take, *, reverse):
    """As in Linear: T / L scanned chunks of L steps.

    The gradient keeps the state before each chunk, and computes the rest again.
    """
    T = len(take)
    if T == 1:
      carry = hold(take[0], self(carry, z_TBK[0]), carry)
      return carry, self.hidden(carry)[None]
    chunks = -(-T // self.chunk_size)
    L = -(-T // chunks)
    cell, variables = self.unbind()

    def split(x_TBX):
      sides = [(0, chunks * L - T)] + [(0, 0)] * (x_TBX.ndim - 1)
      return jnp.pad(x_TBX, sides).reshape(chunks, L, *x_TBX.shape[1:])

    def in_order(x_LBX):
      return x_LBX[::-1] if reverse else x_LBX

    @jax.checkpoint
    def step(state, inputs):
      inputs = map(in_order, inputs)
      state, h_LBH = cell.apply(variables, state, *inputs, method="chunk")
      return state, in_order(h_LBH)

    memory, h_BH, *more = carry
    inputs = split(z_TBK), split(take)
    state, h = lax.scan(step, (memory, *more), inputs, reverse=reverse)
    h_TBH = h.reshape(-1, *h_BH.shape)[:T]
    h_BH, h_TBH = held(take, h_TBH, h_BH, reverse=reverse)
    memory, *more = state
    return (memory, h_BH, *more), h_TBH

  @property
  def chunk_size(self) -> int:
    """The largest L, near which a chunk is fastest (measured on a CPU)."""
    return min(max(self.hidden_size // self.heads // 2, 32), 128)

  def by_head(self, x: jax.Array) -> jax.Array:
    """x[..., H] as [..., N, d]."""
    return x.reshape(*x.shape[:-1], self.heads, -1)

  def initial_carry(self, batch_size):
    d = self.hidden_size // self.heads
    memory = jnp.zeros((batch_size, self.heads, d, d))
    return memory, super().initial_carry(batch_size)

  def hidden(self, carry):
    return carry[1]


def _by_row(x_LBN: jax.Array) -> jax.Array:
  """[L, B, N, ...] as [B, N, L, ...]."""
  return jnp.moveaxis(x_LBN, 0, 2)


def _since(log_BNL: jax.Array) -> jax.Array:
  """The sum of logarithms of decays after step s up to t, [..., t, s].

  It is -inf where s is after t, so that its exponential is 0. A difference of
  sums from the first step on would have their rounding, which may be larger.
  """
  L = log_BNL.shape[-1]
  until = jnp.tri(L, dtype=bool)
  logs = jnp.where(until, log_BNL[..., None, :], 0)
  sums = dot(logs, jnp.tri(L, k=-1, dtype=logs.dtype))
  return jnp.where(until, sums, -jnp.inf)


def _read_and_write(memory, q, k, u, share, decay):
  """What steps read, [B, N, L, d'], and the memory after them.

  Args:
    memory: before them.
    q: queries [B, N, L, d].
    k: keys that are written [B, N, M, d].
    u: their values [B, N, M, d'].
    share: of a value that is left at a step [B, N, L, M].
    decay: the share of the memory that is left at a step [B, N, L].
  """
  scores = dot(q, k.swapaxes(-1, -2)) * share
  read = dot(scores, u) + decay[..., None] * dot(q, memory)
  left = k * share[..., -1, :, None]
  memory = decay[..., -1, None, None] * memory + dot(left.swapaxes(-1, -2), u)
  return read, memory


@register("mlstm")
class MLSTM(Matrix):
  r"""mLSTM, the matrix memory of xLSTM (Beck et al. 2024), stabilised.

  .. math::
    q, k, v &= x W_q + b_q,\; (x W_k + b_k) / \sqrt{d},\; x W_v + b_v \\
    (\tilde i, \tilde f), \tilde o
      &= x W_{if} + b_{if},\; x W_o + b_o \\
    m' &= \max(\log\sigma(\tilde f) + m, \tilde i) \\
    i &= \exp(\tilde i - m') \\
    f &= \exp(\log\sigma(\tilde f) + m - m') \\
    C' &= f C + i\, k^T v \\
    n' &= f n + i\, k \\
    h' &= \sigma(\tilde o) \odot q C' / \max(|q n'^T|, \exp(-m'))

  i and f are one number for each of `heads` heads, which share nothing; m keeps
  both in range and cancels in h', so it has no gradient. n is stored as the
  last column of C. As in the authors' code, the kernels of i and f start at 0,
  the bias of i at N(0, 0.1), and that of f at 3 to 6 over the heads.
  """

  @property
  def width(self):
    return 4 * self.hidden_size + 2 * self.heads

  @property
  def formula(self):
    return f"(4H + {2 * self.heads})(D + 1)"

  def initial_kernel(self, init):
    return lambda *args: init(*args).at[:, 4 * self.hidden_size :].set(0)

  def initial_bias(self, init, sign=1.0):
    del sign
    N = self.heads

    def with_gates(key, *shape_and_type):
      key, of_i = jax.random.split(key)
      i, f = 0.1 * jax.random.normal(of_i, (N,)), jnp.linspace(3.0, 6.0, N)
      bias_K = init(key, *shape_and_type)
      gates = jnp.concatenate([i, f]).astype(bias_K.dtype)
      return bias_K.at[-2 * N :].set(gates)

    return with_gates

  def _parts(self, z):
    """Of the sizes q, k, v and 1 [..., N, d], o [..., H], log i, f [.., N]."""
    H, N = self.hidden_size, self.heads
    q, k, v, o, i, f = jnp.split(
      z, [H, 2 * H, 3 * H, 4 * H, 4 * H + N], axis=-1
    )
    q, k, v = map(self.by_head, (q, k, v))
    v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
    k *= (H // N) ** -0.5
    return q, k, v, jax.nn.sigmoid(o), i, jax.nn.log_sigmoid(f)

  def _output(self, read, o, m):
    """The output h [..., H] of what a query reads, o, and m [..., N]."""
    n = jnp.maximum(jnp.abs(read[..., -1]), jnp.exp(-m))
    return o * (read[..., :-1] / n[..., None]).reshape(o.shape)

  def __call__(self, carry, z_BK, mask_BH=None):
    del mask_BH
    memory, _, m = carry
    q, k, v, o, log_i, log_f = self._parts(z_BK)
    log_f += m
    m = lax.stop_gradient(jnp.maximum(log_f, log_i))
    i, f = (jnp.exp(log - m)[..., None, None] for log in (log_i, log_f))
    memory = f * memory + i * k[..., :, None] * v[..., None, :]
    read = dot(q[..., None, :], memory)[..., 0, :]
    return memory, self._output(read, o, m), m

  def chunk(self, state, z_LBK, take_LB):
    memory, m_BN = state
    q, k, v, o_LBH, log_i, log_f = self._parts(z_LBK)
    log_i = jnp.where(take_LB[..., None], log_i, -jnp.inf)
    log_f = jnp.where(take_LB[..., None], log_f, 0)
    q, k, v, log_i, log_f = map(_by_row, (q, k, v, log_i, log_f))
    share = _since(log_f) + log_i[..., None, :]
    decay = jnp.cumsum(log_f, axis=-1) + m_BN[..., None]
    m = lax.stop_gradient(jnp.maximum(decay, jnp.max(share, axis=-1)))
    began_BL = jnp.cumsum(take_LB, axis=0).T > 0
    m = jnp.where(began_BL[:, None], m, m_BN[..., None])  # With a gradient.
    share, decay = jnp.exp(share - m[..., None]), jnp.exp(decay - m)
    read, memory = _read_and_write(memory, q, k, v, share, decay)
    read, m_LBN = (jnp.moveaxis(x, 2, 0) for x in (read, m))
    return (memory, m_LBN[-1]), self._output(read, o_LBH, m_LBN)

  def initial_carry(self, batch_size):
    memory, h_BH = super().initial_carry(batch_size)
    memory = jnp.pad(memory, [(0, 0)] * 3 + [(0, 1)])
    return memory, h_BH, jnp.zeros(memory.shape[:2])


_ROWS = 16  # Products of smaller matrices are slower than their rows.


@jax.custom_jvp
def _inverse(below: jax.Array) -> jax.Array:
  """The inverse of I + below, which is zero on and above the diagonal.

  Row by row up to _ROWS, else of each half of the rows and columns: as exact as
  a substitution, and mostly products.
  """
  M = below.shape[-1]
  if M <= _ROWS:
    unit = jnp.broadcast_to(jnp.eye(M, dtype=below.dtype), below.shape)
    inverse = unit[..., :1, :]
    for m in range(1, M):
      earlier = jnp.sum(below[..., m, :m, None] * inverse, axis=-2)
      row = unit[..., m, :] - earlier
      inverse = jnp.concatenate([inverse, row[..., None, :]], axis=-2)
    return inverse
  if M % 2:
    sides = [(0, 0)] * (below.ndim - 2) + [(0, 1)] * 2
    return _inverse(jnp.pad(below, sides))[..., :M, :M]
  M //= 2
  first, second = _inverse(jnp.stack([below[..., :M, :M], below[..., M:, M:]]))
  corner = -dot(dot(second, below[..., M:, :M]), first)
  zeros = jnp.zeros_like(corner)
  return jnp.block([[first, zeros], [corner, second]])


@_inverse.defjvp
def _inverse_jvp(primals, tangents):
  inverse = _inverse(*primals)
  return inverse, -dot(dot(inverse, tangents[0]), inverse)


@register("deltanet")
@register("deltanet_signed", signed=True)
@register("gated_deltanet", gated=True)
@register("gated_deltanet_signed", gated=True, signed=True)
@register("deltaproduct_2", writes=2, signed=True)
@register("deltaproduct_3", writes=3, signed=True)
class DeltaNet(Matrix):
  r"""The delta rule (Yang et al. 2024), with a gate, with several products.

  .. math::
    q, k_j &= N(\mathrm{silu}(x W_q + b_q)),\;
      N(\mathrm{silu}(x W_{k_j} + b_{k_j})) \\
    v_j, \beta_j &= x W_{v_j} + b_{v_j},\;
      c\, \sigma(x W_{\beta_j} + b_{\beta_j}) \\
    S_0 &= a S \\
    S_j &= S_{j-1} + \beta_j k_j^T (v_j - k_j S_{j-1}),\; j = 1 \ldots n \\
    S' &= S_n \\
    h' &= q S'

  N divides by the length of each head's part; :math:`\beta_j` and a are one
  number for each of `heads` heads. A write replaces the share :math:`\beta_j`
  of what the memory has for :math:`k_j`; S is multiplied by
  :math:`I - \beta_j k_j^T k_j`. With c = 2 that has eigenvalues down to -1
  (Grazzi et al. 2025), and n products of such matrices can be any rotation of n
  directions (DeltaProduct, Siems et al. 2025). The gate of Gated DeltaNet (Yang
  et al. 2025) is

  .. math:: a = \exp(-r\, \mathrm{softplus}(x W_a + b_a))

  with a parameter r that starts from U(0, 16), and softplus of :math:`b_a` from
  0.001 to 0.1, uniform in its logarithm, as in the authors' code.

  Attributes:
    writes: n.
    gated: False: a = 1.
    signed: whether c is 2; else 1.
  """

  writes: int = 1
  gated: bool = False
  signed: bool = False

  @property
  def chunk_size(self):
    return -(-super().chunk_size // self.writes)

  @property
  def width(self):
    writes = self.writes * (2 * self.hidden_size + self.heads)
    return self.hidden_size + writes + self.heads * self.gated

  @property
  def formula(self):
    N = self.heads
    gates = N * (self.writes + self.gated)
    rate = f" + {N}" if self.gated else ""
    return f"({2 * self.writes + 1}H + {gates})(D + 1){rate}"

  def initial_bias(self, init, sign=1.0):
    del sign
    if not self.gated:
      return init

    def with_gate(key, *shape_and_type):
      key, of_gate = jax.random.split(key)
      low, high = jnp.log(0.001), jnp.log(0.1)
      log = jax.random.uniform(of_gate, (self.heads,), minval=low, maxval=high)
      gate, bias_K = (
        jnp.log(jnp.expm1(jnp.exp(log))),
        init(key, *shape_and_type),
      )
      return bias_K.at[-self.heads :].set(gate.astype(bias_K.dtype))

    return with_gate

  def setup_gates(self, init):
    del init
    if self.gated:
      draw = jax.random.uniform
      init = lambda *args: jnp.log(draw(*args, minval=1e-3, maxval=16.0))
      self.log_rate = self.param("log_rate", init, (self.heads,))

  def _parts(self, z):
    """Of the sizes q [..., N, d], k, v [..., N, n, d], beta, log a [..., N]."""
    H, N, n = self.hidden_size, self.heads, self.writes
    edges = [H, H + n * H, H + 2 * n * H, H + 2 * n * H + n * N]
    q, k, v, beta, a = jnp.split(z, edges, axis=-1)
    q = self.by_head(q)
    k, v, beta = (
      jnp.moveaxis(x.reshape(*x.shape[:-1], n, N, -1), -3, -2)
      for x in (k, v, beta)
    )
    q, k = (_unit(jax.nn.silu(x)) for x in (q, k))
    beta = (1 + self.signed) * jax.nn.sigmoid(beta[..., 0])
    if not self.gated:
      return q, k, v, beta, jnp.zeros((*z.shape[:-1], N), z.dtype)
    rate = align(jnp.exp(self.log_rate), a)
    return q, k, v, beta, -rate * jax.nn.softplus(a)

  def __call__(self, carry, z_BK, mask_BH=None):
    del mask_BH
    S = carry[0]
    q, k, v, beta, log_a = self._parts(z_BK)
    S = jnp.exp(log_a)[..., None, None] * S
    for j in range(self.writes):
      k_BNd1 = k[..., j, :, None]
      missing = v[..., j, :] - jnp.sum(k_BNd1 * S, axis=-2)
      S += k_BNd1 * (beta[..., j, None] * missing)[..., None, :]
    return S, jnp.sum(q[..., None] * S, axis=-2).reshape(carry[1].shape)

  def chunk(self, state, z_LBK, take_LB):
    # The values that the writes add, u, are the solution of
    #   u[t] = beta[t] (v[t] - k[t] (decay[t] S + sum over s < t of
    #     share[t, s] k[s].T u[s])).
    [S] = state
    q, k, v, beta, log_a = self._parts(z_LBK)
    beta = jnp.where(take_LB[..., None, None], beta, 0)
    log_a = jnp.where(take_LB[..., None], log_a, 0)
    q, k, v, beta, log_a = map(_by_row, (q, k, v, beta, log_a))
    k, v = (x.reshape(*q.shape[:2], -1, q.shape[-1]) for x in (k, v))
    beta = beta.reshape(*k.shape[:-1], 1)
    share, decay = jnp.exp(_since(log_a)), jnp.exp(jnp.cumsum(log_a, axis=-1))
    share = jnp.repeat(share, self.writes, axis=-1)
    each = jnp.repeat(share, self.writes, axis=-2)
    below = jnp.tril(beta * dot(k, k.swapaxes(-1, -2)) * each, -1)
    old = jnp.repeat(decay, self.writes, axis=-1)[..., None] * dot(k, S)
    u = dot(_inverse(below), beta * (v - old))
    read, S = _read_and_write(S, q, k, u, share, decay)
    return (S,), jnp.moveaxis(read, 2, 0).reshape(*take_LB.shape, -1)


def _unit(x: jax.Array) -> jax.Array:
  """Divides the last axis by its length, to whose square 1e-6 is added."""
  return x * lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
