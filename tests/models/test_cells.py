"""One time step of every cell, against its equations in NumPy.

The equations here are the oracle of test_layers.py and test_network.py, too.
They take complex numbers, so that a step along i gives exact derivatives.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.models import cells

# Compiles faster: for equations, not for what XLA makes of them.
quick_jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def log_sigmoid(x):
  return -np.log1p(np.exp(-x))


def product(kernel, x):
  """What the input adds to the gates: a product, or a row of the table."""
  if "embedding" in kernel:
    return kernel["embedding"][x]
  return x @ kernel["kernel"]


def gates(p, h, x, count):
  """For each gate: x W, h R and b."""
  parts = (product(p["input_kernel"], x), h @ p["recurrent_kernel"], p["bias"])
  return list(
    zip(*(np.split(part, count, axis=-1) for part in parts), strict=True)
  )


def lstm(p, carry, x):
  c, h = carry
  i, f, g, o = map(sum, gates(p, h, x, 4))
  c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
  return c, sigmoid(o) * np.tanh(c)


def gru(p, h, x):
  r, z, (n_x, n_h, n_b) = gates(p, h, x, 3)
  r, z = sigmoid(sum(r)), sigmoid(sum(z))
  n = np.tanh(n_x + n_b + r * (n_h + p["reset_bias"]))
  return n - z * n + z * h


def rnn_tanh(p, h, x):
  return np.tanh(sum(gates(p, h, x, 1)[0]))


def rnn_relu(p, h, x):
  z = sum(gates(p, h, x, 1)[0])
  return np.where(z.real > 0, z, 0)


def odyssey(p, carry, x, variant=""):
  c, h, *before = carry
  absent = {"nig": "i", "nfg": "f", "nog": "o", "cifg": "f"}.get(variant, "")
  names = [name for name in "ifgo" if name != absent]
  a = dict(zip(names, map(sum, gates(p, h, x, len(names))), strict=True))
  if variant == "fgr":  # Nine matrices, from each gate to each gate.
    columns = np.split(p["gate_kernel"], 3, axis=1)
    for name, column in zip("ifo", columns, strict=True):
      blocks = np.split(column, 3)
      a[name] = a[name] + sum(map(np.matmul, before, blocks))

  def gate(name, c):
    peephole = 0 if variant == "np" else p[f"peephole_{name}"] * c
    return sigmoid(a[name] + peephole)

  i = 1 if variant == "nig" else gate("i", c)
  f = 1 if variant == "nfg" else 1 - i if variant == "cifg" else gate("f", c)
  g = a["g"] if variant == "niaf" else np.tanh(a["g"])
  c = f * c + i * g
  o = 1 if variant == "nog" else gate("o", c)
  h = o * (c if variant == "noaf" else np.tanh(c))
  return (c, h, i, f, o) if variant == "fgr" else (c, h)


def normalize(x):
  centred = x - x.mean(axis=-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def layer_norm_lstm(p, carry, x):
  c, h = carry
  from_x = normalize(product(p["input_kernel"], x)) * p["input_gain"]
  from_h = normalize(h @ p["recurrent_kernel"]) * p["recurrent_gain"]
  i, f, g, o = np.split(from_x + from_h + p["bias"], 4, axis=-1)
  c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
  normal = normalize(c) * p["cell_gain"] + p["cell_bias"]
  return c, sigmoid(o) * np.tanh(normal)


def slstm(p, carry, x):
  c, h, n, m = carry
  blocks = np.array(np.split(p["recurrent_kernel"], heads_of(p)))
  h = np.array(np.split(h, heads_of(p), axis=-1))
  u = np.concatenate(np.split(h @ blocks, 4, axis=-1))  # By gate, then head.
  z = product(p["input_kernel"], x) + p["bias"] + np.concatenate(u, axis=-1)
  i, f, g, o = np.split(z, 4, axis=-1)
  last, m = m, np.maximum(log_sigmoid(f) + m, i)
  i, f = np.exp(i - m), sigmoid(f) * np.exp(last - m)
  c, n = f * c + i * np.tanh(g), f * n + i
  return c, sigmoid(o) * c / n, n, m


def heads_of(p):
  """The number of an sLSTM's heads."""
  H, width = p["recurrent_kernel"].shape
  return 4 * H // width


def mlstm(p, carry, x):
  (memory, _, m), (_, N, d, _) = carry, carry[0].shape
  z = product(p["input_kernel"], x) + p["bias"]
  q, k, v, o = np.split(z[..., : 4 * N * d], 4, axis=-1)
  i, f = np.split(z[..., 4 * N * d :], 2, axis=-1)
  q, k, v = (part.reshape(*z.shape[:-1], N, d) for part in (q, k, v))
  last, m = m, np.maximum(log_sigmoid(f) + m, i)
  i, f = np.exp(i - m), sigmoid(f) * np.exp(last - m)
  C, n = memory[..., :-1], memory[..., -1]
  C = f[..., None, None] * C
  C = C + i[..., None, None] * np.einsum("...k,...v->...kv", k, v) / d**0.5
  n = f[..., None] * n + i[..., None] * k / d**0.5
  norm = np.maximum(abs(np.sum(q * n, axis=-1)), np.exp(-m))
  h = np.einsum("...k,...kv->...v", q, C) / norm[..., None]
  h = sigmoid(o) * h.reshape(o.shape)
  return np.concatenate([C, n[..., None]], axis=-1), h, m


def deltanet(p, carry, x, n=1, gated=False, scale=1):
  S, (*_, N, d, _) = carry[0], carry[0].shape
  z = product(p["input_kernel"], x) + p["bias"]
  unit = lambda x: x / np.sqrt(np.sum(x**2, axis=-1, keepdims=True) + 1e-6)
  # Columns: q; the keys of all writes; their values; their betas; the gate.
  q, *kv = np.split(z[..., : (2 * n + 1) * N * d], 2 * n + 1, axis=-1)
  q, *kv = (y.reshape(*z.shape[:-1], N, d) for y in (q, *kv))
  *beta, gate = np.split(z[..., (2 * n + 1) * N * d :], n + gated, axis=-1) + (
    [] if gated else [None]
  )
  if gated:
    rate = np.exp(p["log_rate"]) * np.log1p(np.exp(gate))
    S = np.exp(-rate)[..., None, None] * S
  for k, v, b in zip(kv[:n], kv[n:], beta, strict=True):
    k, b = unit(k * sigmoid(k))[..., None], scale * sigmoid(b)[..., None, None]
    # The memory times I - b k k.T, plus what is written.
    S = S - b * k @ (k.swapaxes(-1, -2) @ S) + b * k * v[..., None, :]
  h = unit(q * sigmoid(q))[..., None, :] @ S
  return S, h.reshape(*z.shape[:-1], N * d)


def gru_reset_before(p, h, x):
  (r_x, r_h, r_b), (z_x, z_h, z_b), (n_x, _, n_b) = gates(p, h, x, 3)
  r, z = sigmoid(r_x + r_h + r_b), sigmoid(z_x + z_h + z_b)
  n = np.tanh(n_x + (r * h) @ np.split(p["recurrent_kernel"], 3, 1)[2] + n_b)
  return (1 - z) * n + z * h


def mgu(p, h, x):
  f, (n_x, _, n_b) = gates(p, h, x, 2)
  f = sigmoid(sum(f))
  n = np.tanh(n_x + (f * h) @ np.split(p["recurrent_kernel"], 2, 1)[1] + n_b)
  return (1 - f) * h + f * n


def min_lstm(p, h, x, form=""):
  z = product(p["input_kernel"], x) + p["bias"]
  f, i, g = np.split(z, 3, axis=-1)
  f, i = sigmoid(f), sigmoid(i)
  if form == "untied":
    return (2 * f - 1) * h + i * g
  share = f / (f + i)
  return (2 * share - 1 if form else share) * h + i / (f + i) * g


def min_gru(p, h, x, form=""):
  z, n = np.split(product(p["input_kernel"], x) + p["bias"], 2, axis=-1)
  z = sigmoid(z)
  return (1 - 2 * z if form else 1 - z) * h + (1 if form == "untied" else z) * n


def rg_lru(p, h, x):
  z = product(p["input_kernel"], x) + p["bias"]
  r, i, g = np.split(z, 3, axis=-1)
  a = np.exp(-8 * np.log1p(np.exp(p["decay"])) * sigmoid(r))
  return a * h + np.sqrt(1 - a**2) * sigmoid(i) * g


def lru(p, carry, x):
  """By matrices that turn and shrink pairs of real numbers."""
  z = product(p["input_kernel"], x) + p["bias"]
  b1, b2, skip = np.split(z, 3, axis=-1)
  size, angle = np.exp(-np.exp(p["nu"])), np.exp(p["theta"])
  s1, s2, _ = carry
  gain = np.exp(p["gamma"])
  r1 = size * (np.cos(angle) * s1 - np.sin(angle) * s2) + gain * b1
  r2 = size * (np.sin(angle) * s1 + np.cos(angle) * s2) + gain * b2
  c1, c2 = np.split(p["output_kernel"], 2)
  return r1, r2, r1 @ c1 - r2 @ c2 + skip


VARIANTS = ("nig", "nfg", "nog", "niaf", "noaf", "cifg", "np", "fgr")
EQUATIONS = {
  "lstm": lstm,
  "gru": gru,
  "rnn_tanh": rnn_tanh,
  "rnn_relu": rnn_relu,
  "odyssey": odyssey,
  **{f"odyssey_{v}": functools.partial(odyssey, variant=v) for v in VARIANTS},
  "layer_norm_lstm": layer_norm_lstm,
  "slstm": slstm,
  "mlstm": mlstm,
  "deltanet": deltanet,
  "deltanet_signed": functools.partial(deltanet, scale=2),
  "gated_deltanet": functools.partial(deltanet, gated=True),
  "gated_deltanet_signed": functools.partial(deltanet, gated=True, scale=2),
  "deltaproduct_2": functools.partial(deltanet, n=2, scale=2),
  "deltaproduct_3": functools.partial(deltanet, n=3, scale=2),
  "gru_reset_before": gru_reset_before,
  "mgu": mgu,
  "min_lstm": min_lstm,
  "min_gru": min_gru,
  **{
    f"{name}_{form}": functools.partial(step, form=form)
    for name, step in (("min_lstm", min_lstm), ("min_gru", min_gru))
    for form in ("signed", "untied")
  },
  "rg_lru": rg_lru,
  "lru": lru,
}
MAKE = cells.CELLS  # name -> hidden size -> a cell


def test_every_cell_has_equations_and_may_be_named():
  assert EQUATIONS.keys() == MAKE.keys()
  rule = config_lib.FIELDS["model.cell"]
  names = ", ".join(sorted(EQUATIONS))
  assert rule.words.startswith(f"must be one of {names}, or, in a Python ")
  assert all(map(rule.holds, EQUATIONS)) and not rule.holds("lstms")


def normal(rng, tree, scale=0.7):
  """Random values in float64 of the shapes in a tree."""
  return jax.tree.map(lambda a: scale * rng.normal(size=a.shape), tree)


def close(actual, expected, tolerance=1e-10, name=""):
  """Asserts that two trees are equal in structure and nearly in values."""
  jax.tree.map(
    lambda a, e: np.testing.assert_allclose(a, e, tolerance, tolerance, name),
    actual,
    expected,
  )


def shapes_of(cell, x):
  """The shapes of a cell's parameters; nothing is computed."""
  init = functools.partial(cell.init, method="inputs")
  return jax.eval_shape(init, jax.random.key(0), x)["params"]


@pytest.mark.usefixtures("x64")
def test_step_equals_equations():
  """Ids and features in turn, both for the LSTM; all cells in one program."""
  rng = np.random.default_rng(1)
  B, T, D, H, V = 3, 2, 4, 6, 7
  names = ["lstm", "slstm", *EQUATIONS]
  made, arguments = [], []
  for number, name in enumerate(names):
    ids = number % 2 == 1
    cell = MAKE[name](H, vocabulary_size=V if ids else None)
    if cell.may_have_heads and number != 1:
      cell = cell.clone(heads=2)
    x = rng.integers(V, size=(B, T)) if ids else rng.normal(size=(B, T, D))
    carry = jax.eval_shape(lambda cell=cell: cell.initial_carry(B))
    made.append(cell)
    arguments.append((normal(rng, shapes_of(cell, x)), normal(rng, carry), x))
  z_u = rng.normal(size=(2, B, 4 * H))

  def step(cell, params, carry, x):
    apply = functools.partial(cell.apply, {"params": params})
    z_BTK = apply(x, method="inputs")
    results = [apply(carry, z_BTK[:, 1])]
    if cell.path == "fused":
      z, u = z_u[..., : cell.gate_count * H]
      for parts in ((z, u), (z + u, 0 * u)):
        results.append(apply(carry, *parts, method="gates"))
    return results

  @quick_jit
  def steps(arguments):
    return [
      step(cell, *each) for cell, each in zip(made, arguments, strict=True)
    ]

  for name, cell, (params, carry, x), (new, *both) in zip(
    names, made, arguments, steps(arguments), strict=True
  ):
    expected = EQUATIONS[name](params, carry, x[:, 1])
    close(new, expected, name=name)
    assert jax.tree.leaves(new)[0].dtype == jnp.float64
    top = (
      expected[-1 if name == "lru" else 1]
      if isinstance(expected, tuple)
      else expected
    )
    close(cell.hidden(new), top, name=name)
    # `additive` is whether the gates read the sum of z and u alone.
    if both:
      equal = map(np.allclose, *map(jax.tree.leaves, both))
      assert all(equal) == cell.additive, name


def test_forget_bias_is_set():
  config = base.get_config().model
  zeros = lambda _, shape, dtype=np.float32: jnp.zeros(shape, dtype)
  places = {}
  for name in MAKE:
    config.update(cell=name, forget_bias=2.5)
    cell = cells.make(config, hidden_size=4)
    if isinstance(cell, cells.Matrix):
      continue
    bias = np.array(cell.initial_bias(zeros)(None, (cell.width,)))
    # f is 1 - i in one of the cells: there the bias of i is negative.
    sign = -1 if name == "odyssey_cifg" else 1
    places[name] = np.flatnonzero(bias == sign * 2.5).tolist()
    assert len(places[name]) == np.count_nonzero(bias), name
  variants = {f"odyssey_{variant}" for variant in VARIANTS}
  lstms = {"lstm", "layer_norm_lstm", "slstm", "odyssey"} | variants
  expected = dict.fromkeys(lstms, [4, 5, 6, 7])
  first = {"min_lstm", "min_lstm_signed", "odyssey_nig", "odyssey_cifg"}
  expected |= dict.fromkeys(first, [0, 1, 2, 3])
  expected |= dict.fromkeys(("odyssey_nfg", "gru", "rnn_tanh"), [])
  assert {name: places[name] for name in expected} == expected


def test_initial_values_of_the_cells_with_a_matrix():
  @quick_jit
  def init(key):
    made = (MAKE[name](8, heads=4) for name in ("mlstm", "gated_deltanet"))
    return [
      cell.init(key, np.ones((2, 3, 5)), method="inputs") for cell in made
    ]

  mlstm, delta = (x["params"] for x in init(jax.random.key(0)))
  assert not mlstm["input_kernel"]["kernel"][:, 32:].any()
  assert mlstm["input_kernel"]["kernel"][:, :32].all()
  close(mlstm["bias"][-4:], [3, 4, 5, 6], 1e-6)
  assert 0 < np.abs(mlstm["bias"][-8:-4]).max() < 0.4
  steps = np.log1p(np.exp(delta["bias"][-4:]))
  assert steps.min() > 0.00099 and steps.max() < 0.101 and np.ptp(steps) > 0.005
  assert delta["log_rate"].max() < np.log(16)


def test_slstm_keeps_in_range_what_exp_does_not():
  """Against the equations without a stabiliser, which only float64 can do."""
  T, H = 30, 4
  z_T4H = np.random.default_rng(12).uniform(-250, 250, (T, 1, 4 * H))
  cell = MAKE["slstm"](H)
  params = {"recurrent_kernel": np.zeros((H, 4 * H)), "bias": np.zeros(4 * H)}
  params = jax.tree.map(np.float32, params)

  def run(z_T4H):
    step = lambda carry, z: [cell.apply({"params": params}, carry, z)] * 2
    return jax.lax.scan(step, cell.initial_carry(1), z_T4H)[1][1]

  @quick_jit
  def both(z_T4H):
    h_T1H, back = jax.vjp(run, z_T4H)
    return h_T1H, back(jnp.ones_like(h_T1H))[0]

  z_T4H = z_T4H.astype(np.float32)
  z_T4H[0, :, :H] = -200  # exp of it is 0.
  h_T1H, gradient = both(z_T4H)
  c = n = 0
  for z, h in zip(z_T4H.astype(np.float64), h_T1H, strict=True):
    i, f, g, o = np.split(z, 4, axis=-1)
    c = sigmoid(f) * c + np.exp(i) * np.tanh(g)
    n = sigmoid(f) * n + np.exp(i)
    close(h, sigmoid(o) * c / n, 1e-5)
  assert np.isfinite(gradient).all()


def test_shares_of_gates_that_vanish():
  cell = MAKE["min_lstm"](1)
  f, i = [-200.0, -200.0, -201.0, 90.0], [-200.0, -201.0, -200.0, -90.0]
  z_43 = np.stack([f, i, np.ones(4)], axis=1, dtype=np.float32)
  terms = functools.partial(cell.apply, method="terms")
  params = {"bias": np.zeros(3, np.float32)}
  forget, write = quick_jit(terms)({"params": params}, z_43)
  close(forget[:, 0], [0.5, *(1 / (1 + np.exp([-1.0, 1.0, -90.0])))], 1e-6)
  close(write[:, 0], [0.5, *(1 / (1 + np.exp([1.0, -1.0, 90.0])))], 1e-6)


def test_a_chunk_is_exact_after_what_is_forgotten():
  """Sums over a chunk of logarithms of about -70 would round those of -0.03."""
  T, H = 64, 16
  cell, rng = MAKE["gated_deltanet"](H), np.random.default_rng(2)
  z_TBK = rng.normal(size=(T, 1, cell.width)).astype(np.float32)
  z_TBK[:, 0, -1] = rng.choice([-6, 6], T)
  params = {"bias": np.zeros(cell.width), "log_rate": np.log([12.0])}

  def compute(params, z_TBK):
    apply = functools.partial(cell.apply, {"params": params})
    carry, ones_TB = cell.initial_carry(1), np.ones((T, 1), bool)
    _, h_TBH = apply(carry, z_TBK, ones_TB, reverse=False, method="parallel")
    step = lambda carry, z_BK: (new := apply(carry, z_BK), new[1])
    return h_TBH, jax.lax.scan(step, carry, z_TBK)[1]

  close(*quick_jit(compute)(jax.tree.map(np.float32, params), z_TBK), 2e-6)


def test_initial_values_of_linear_cells():
  """Factors in the unit disc, or from 0.9 to 0.999; inputs to variance 1."""
  params = {}
  for name in ("lru", "rg_lru"):
    init = functools.partial(MAKE[name](500).init, method="inputs")
    params |= quick_jit(init)(jax.random.key(3), np.ones((1, 1)))["params"]
  size = np.exp(-np.exp(params["nu"]))
  halves = np.sort(size**2)[[50, 250, 450]]  # The area inside a radius.
  close(halves, [0.1, 0.5, 0.9], 0.1)
  close(np.exp(params["gamma"]), np.sqrt(1 - size**2), 1e-2)
  close(np.exp(params["theta"]).mean(), np.pi, 0.1)
  a = np.exp(-8 * np.log1p(np.exp(params["decay"])))
  close([a.min(), a.mean(), a.max()], [0.9, 0.9495, 0.999], 1e-3)


def test_a_gate_that_vanishes_has_a_gradient():
  cell = MAKE["rg_lru"](1)
  params = {"decay": np.ones(1, np.float32), "bias": np.zeros(3, np.float32)}
  terms = functools.partial(cell.apply, {"params": params})
  slope = jax.grad(lambda z: sum(terms(z, method="terms"))[0, 0])
  assert np.isfinite(quick_jit(slope)(np.float32([[-120.0, 1.0, 1.0]]))).all()


class IndRNN(cells.Cell):
  r"""h' = relu(x W + u * h + b), u a vector (Li et al. 2018).

  A cell without a recurrent matrix, as docs/howto/cell.md describes it.
  """

  formula = "HD + 2H"
  recurrent_product = False

  def setup_gates(self, init):
    self.vector = self.param("vector", init, (self.hidden_size,))

  def gates(self, carry, z_BK, u_BK):
    return jax.nn.relu(z_BK + u_BK + self.vector[None] * carry)
