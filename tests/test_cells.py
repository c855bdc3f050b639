"""One time step of every cell, against its equations in NumPy.

The equations here are the oracle of test_layers.py and test_models.py, too.
They take complex numbers, so that a step along i gives exact derivatives.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn import cells

# Compiles faster: for equations, not for what XLA makes of them.
quick_jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


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


EQUATIONS = {f.__name__: f for f in (lstm, gru, rnn_tanh, rnn_relu)}
MAKE = {
  "lstm": cells.LSTM,
  "gru": cells.GRU,
  "rnn_tanh": cells.RNN,
  "rnn_relu": functools.partial(cells.RNN, activation=jax.nn.relu),
}


def normal(rng, tree, scale=0.7):
  """Random values in float64 of the shapes in a tree."""
  return jax.tree.map(lambda a: scale * rng.normal(size=a.shape), tree)


def close(actual, expected, tolerance=1e-10):
  """Asserts that two trees are equal in structure and nearly in values."""
  jax.tree.map(
    lambda a, e: np.testing.assert_allclose(a, e, tolerance, tolerance),
    actual,
    expected,
  )


def shapes_of(cell, x):
  """The shapes of a cell's parameters; nothing is computed."""
  init = functools.partial(cell.init, method="inputs")
  return jax.eval_shape(init, jax.random.key(0), x)["params"]


def initial(cell, x):
  """The parameters of a new cell."""
  init = quick_jit(functools.partial(cell.init, method="inputs"))
  return init(jax.random.key(3), x)["params"]


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("name", EQUATIONS)
def test_step_equals_equations(name, ids):
  rng = np.random.default_rng(1)
  B, T, D, H, V = 3, 2, 4, 5, 7
  cell = MAKE[name](H, vocabulary_size=V if ids else None)
  x = rng.integers(V, size=(B, T)) if ids else rng.normal(size=(B, T, D))
  params = normal(rng, shapes_of(cell, x))
  carry = normal(rng, jax.eval_shape(lambda: cell.initial_carry(B)))

  z_BTK = cell.apply({"params": params}, x, method="inputs")
  new = cell.apply({"params": params}, carry, z_BTK[:, 1])

  expected = EQUATIONS[name](params, carry, x[:, 1])
  close(new, expected)
  assert jax.tree.leaves(new)[0].dtype == jnp.float64
  top = expected[1] if name == "lstm" else expected
  close(cell.hidden(new), top)


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_carry_starts_at_zero(name):
  carry = MAKE[name](5).initial_carry(3)
  leaves = jax.tree.leaves(carry)
  assert len(leaves) == (2 if name == "lstm" else 1)
  for leaf in leaves:
    assert leaf.shape == (3, 5) and not leaf.any()


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("name", EQUATIONS)
def test_parameter_counts(name, ids):
  D, H = 6, 5  # With ids, D is the vocabulary size.
  cell = MAKE[name](H, vocabulary_size=D if ids else None)
  x = np.zeros((1, 1), int) if ids else np.zeros((1, 1, D))
  one = H * D + H * H + H
  expected = {"lstm": 4 * one, "gru": 3 * one + H}.get(name, one)
  assert count(shapes_of(cell, x)) == expected


@pytest.mark.parametrize(
  ("name", "ids", "scale"),
  [
    ("lstm", False, None),
    ("lstm", True, 0.03),
    ("gru", True, None),
    ("gru", False, 0.03),
  ],
)
def test_initial_values(name, ids, scale):
  H = 16
  cell = MAKE[name](H, vocabulary_size=40 if ids else None, initial_scale=scale)
  x = np.zeros((1, 1), int) if ids else np.zeros((1, 1, 40))
  params = initial(cell, x)
  bound = scale or 1 / 4
  forget = params["bias"][H : 2 * H]
  if name == "lstm":
    assert np.array_equal(forget, np.ones(H))
    params["bias"] = jnp.delete(params["bias"], slice(H, 2 * H))
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    leaf = np.asarray(leaf, np.float64)
    assert np.abs(leaf).max() <= bound, path
    assert np.abs(leaf).max() > 0.7 * bound, path
    # Of U(-a, a); the smallest leaf has 16 values.
    assert leaf.std() == pytest.approx(bound / 3**0.5, rel=0.4), path
    if leaf.size > 500:
      assert leaf.std() == pytest.approx(bound / 3**0.5, rel=0.05), path


def test_forget_bias_is_set():
  cell = cells.LSTM(4, forget_bias=-2.5)
  params = initial(cell, np.zeros((1, 1, 3), np.float32))
  bias = np.asarray(params["bias"])
  assert np.array_equal(bias[4:8], np.full(4, -2.5))
  assert np.abs(np.delete(bias, slice(4, 8))).max() <= 0.5
