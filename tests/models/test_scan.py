"""The fused scan equals nn.scan: values and gradients of everything."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.models import cells, cpu, layers
from seqrnn.models.products import Products, product, step_dot
from seqrnn.models.scan import loops
from seqrnn.runtime import sharding
from tests.models.test_cells import MAKE, IndRNN, close, normal, quick_jit
from tests.stablehlo import mesh_of

T, D, H, V = 5, 4, 6, 7
# Padding at the end, on both sides, none; a row of nothing else.
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [1] * 5, [0] * 5], bool)
B = len(MASK)


def plain_of(module):
  """The layer by nn.scan and JAX's own products."""
  products = module.cell.products._replace(plain=True)
  return module.clone(cell=module.cell.clone(products=products))


def draw(rng, module, x):
  """Random params, a carry, and weights of outputs and of the last carry."""
  carry = jax.eval_shape(lambda: module.initial_carry(B))
  h_BTH = jax.ShapeDtypeStruct((B, T, H), np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x, MASK, carry)
  return [
    normal(rng, tree) for tree in (shapes["params"], carry, (carry, h_BTH))
  ]


def values_and_gradients(module, x, weights, train=False):
  """Of a sum that rests on all outputs and on the last carry, with weights."""

  def total(params, x, carry):
    rngs = {"dropout": jax.random.key(12)}
    new = module.apply({"params": params}, x, MASK, carry, train, rngs=rngs)
    terms = jax.tree.map(lambda a, w: jnp.sum(a * w), new, weights)
    return sum(jax.tree.leaves(terms)), new

  argnums = (0, 2) if x.dtype == int else (0, 1, 2)
  return jax.value_and_grad(total, argnums, has_aux=True)


class Mixed(cells.MGU):
  """One product by JAX's own operator, one of a part of a kernel."""

  def setup_gates(self, init):
    self.gate_kernel = self.param("gate_kernel", init, (H, H))
    self.gain = self.param("gain", init, (H,))

  def __call__(self, carry, z_BK, mask_BH=None):
    del mask_BH
    a_BH, b_BH = jnp.split(z_BK, 2, axis=-1)
    R_HH = self.recurrent_kernel[:, :H]
    f = jnp.tanh(a_BH + carry @ self.gate_kernel + self.gain[None] * carry)
    return f * jnp.tanh(b_BH + self.products.step(f * carry, R_HH))


CELLS = {**MAKE, "indrnn": IndRNN, "mixed": Mixed}
DROP, DROP_STATE = {"weight_drop": 0.4}, {"recurrent_dropout": 0.4}


CASES = [
  ("lstm", True, True, DROP),
  ("gru", False, True, {**DROP, **DROP_STATE}),
  ("rnn_tanh", False, False, {}),
  ("layer_norm_lstm", True, True, {}),
  ("slstm", True, True, {**DROP, "heads": 2}),
  ("mlstm", True, True, {"heads": 2}),
  ("gated_deltanet", False, False, {"heads": 2}),
  ("deltaproduct_2", False, True, {}),
  ("odyssey", True, False, DROP_STATE),
  ("odyssey_fgr", False, True, {}),
  ("gru_reset_before", True, True, {}),
  ("mgu", False, False, {}),
  ("min_lstm", True, True, {}),
  ("lru", True, True, {}),
]
# All others but variants of which the list has two, and of linear cells, which
# differ in their terms alone.
OTHERS = CELLS.keys() - {name for name, *_ in CASES}
VARIANT = re.compile("odyssey|min_.*_|(gated_)?delta")
OTHERS = sorted(name for name in OTHERS if not VARIANT.match(name))


@pytest.mark.parametrize(
  ("name", "ids", "reverse", "settings"),
  [*CASES, *((name, False, False, {}) for name in OTHERS)],
)
def test_equals_nn_scan(name, ids, reverse, settings, monkeypatch):
  monkeypatch.setattr(cells.Matrix, "chunk_size", 2)  # Three chunks.
  rng = np.random.default_rng(5)
  heads = {key: n for key, n in settings.items() if key == "heads"}
  settings = {key: x for key, x in settings.items() if key != "heads"}
  cell = CELLS[name](H, vocabulary_size=V if ids else None, **heads)
  x = rng.integers(V, size=(B, T)) if ids else rng.normal(size=(B, T, D))
  fused = layers.Recurrent(cell, reverse=reverse, **settings)
  params, carry, weights = draw(rng, fused, x)

  def compare(dtype, tolerance):
    to = functools.partial(jax.tree.map, lambda a: a.astype(dtype))
    arguments = to(params), x if ids else to(x), to(carry)
    run = quick_jit(
      lambda *arguments: [
        values_and_gradients(module, x, to(weights), bool(settings))(*arguments)
        for module in (fused, plain_of(fused))
      ]
    )
    results = run(*arguments)
    close(*results, tolerance)
    assert jax.tree.leaves(results[0])[0].dtype == dtype

  with jax.enable_x64(True):
    compare(np.float64, 1e-10)
  if name in ("rnn_tanh", "min_gru", "mlstm"):  # One of each kind of cells.
    compare(np.float32, 1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("platform", "name", "reverse"),
  [
    ("gpu", "gru", True),
    ("gpu", "lru", True),
    ("tpu", "mgu", False),
    ("tpu", "odyssey_fgr", True),
  ],
)
def test_layouts_of_other_platforms(platform, name, reverse, monkeypatch):
  """The program for a GPU or a TPU, run here, has the values of nn.scan."""
  monkeypatch.setitem(loops.UNROLL, "gpu", 2)  # Two passes, and one step.
  rng = np.random.default_rng(13)
  x = rng.normal(size=(B, T, D))
  fused = layers.Recurrent(MAKE[name](H), reverse=reverse)
  params, carry, weights = draw(rng, fused, x)
  results = [
    sharding.jit(
      values_and_gradients(module, x, weights),
      mesh_of(place),
      **quick_jit.keywords,
    )(params, x, carry)
    for module, place in ((fused, platform), (plain_of(fused), "cpu"))
  ]
  close(*results, 1e-10)


def test_products_in_bfloat16():
  """Near those in float32 and not equal; all that is kept is float32."""
  rng = np.random.default_rng(10)
  x = rng.normal(size=(B, T, D)).astype(np.float32)
  cell = MAKE["gru"](H, products=Products("bfloat16"))
  rounded = layers.Recurrent(cell)
  params, carry, weights = jax.tree.map(np.float32, draw(rng, rounded, x))
  exact = rounded.clone(cell=cell.clone(products=Products()))
  run = lambda *arguments: [
    values_and_gradients(module, x, weights)(*arguments)
    for module in (rounded, plain_of(rounded), exact)
  ]
  results = jax.tree.map(np.asarray, quick_jit(run)(params, x, carry))
  fast, plain, expected = map(jax.tree.leaves, results)
  assert {leaf.dtype for leaf in (*fast, *plain)} == {np.dtype(np.float32)}
  size = lambda leaves: sum((leaf**2).sum() for leaf in leaves)
  apart = lambda a, b: size(x - y for x, y in zip(a, b, strict=True)) / size(b)
  assert 0 < apart(fast, expected) < 1e-3
  assert apart(fast, plain) < 1e-3


def test_memory_of_a_stack():
  """As much as three layers keep, and one of them needs besides."""
  B, T, H = 32, 50, 64
  stack = layers.Stack([layers.Recurrent(MAKE["gru"](H)) for _ in range(3)])
  x, mask = np.ones((B, T, H), np.float32), np.ones((B, T), bool)
  carry = stack.initial_carry(B)
  params = jax.eval_shape(stack.init, jax.random.key(0), x, mask, carry)
  params = params["params"]

  def loss(params, x):
    return jnp.sum(stack.apply({"params": params}, x, mask, carry)[1] ** 2)

  step = jax.jit(jax.grad(loss, (0, 1))).lower(params, x).compile()
  # Measured: 26 and 28 arrays [T, B, H]; with outputs of all loops made before
  # the first of them, 40 and 50.
  assert step.memory_analysis().temp_size_in_bytes <= 32 * 4 * T * B * H


def test_a_gradient_keeps_one_matrix_a_chunk():
  B, T, H, L = 2, 70, 4, 32
  layer = layers.Recurrent(MAKE["mlstm"](H))
  x, mask = np.ones((B, T, H), np.float32), np.ones((B, T), bool)
  carry = layer.initial_carry(B)
  params = jax.eval_shape(layer.init, jax.random.key(0), x, mask, carry)

  def loss(params, x):
    return jnp.sum(layer.apply(params, x, mask, carry)[1] ** 2)

  program = jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, x)
  [forward, _] = [e for e in program.eqns if e.primitive.name == "scan"]
  shapes = [out.aval.shape for out in forward.outvars]
  matrices = [shape for shape in shapes if shape[-2:] == (H, H + 1)]
  assert sorted(matrices) == [(B, 1, H, H + 1), (-(-T // L), B, 1, H, H + 1)]


@pytest.mark.usefixtures("x64")
def test_a_bias_may_be_a_row_of_the_kernel():
  rng = np.random.default_rng(3)
  sizes = (cpu.BIAS_ROW, H), (H, V), (V,), (cpu.BIAS_ROW, V)
  x, kernel, bias, d = (rng.normal(size=size) for size in sizes)

  @quick_jit
  def values_and_gradients(x, kernel, bias):
    y_NV, back = jax.vjp(Products().affine, x, kernel, bias)
    return y_NV, *back(d)

  expected = x @ kernel + bias, d @ kernel.T, x.T @ d, d.sum(0)
  close(values_and_gradients(x, kernel, bias), expected)


@pytest.mark.usefixtures("x64")
def test_a_step_s_product_is_the_product(monkeypatch):
  monkeypatch.setattr(cpu, "_is_amd", lambda: False)
  rng = np.random.default_rng(0)
  a_MD, b_DK = normal(rng, (np.empty((50, 512)), np.empty((512, 512))))
  step = jax.jit(lambda a, b: step_dot(a, b))
  # One step by itself is a step of a loop of the caller.
  alone = jax.jit(lambda a, b: product(a, b)).lower(a_MD[None], b_DK)
  for program in (step.lower(a_MD, b_DK), alone):
    assert "optimization_barrier" in program.as_text()
  assert "optimization_barrier" not in step.lower(a_MD[:24], b_DK).as_text()
  close(step(a_MD, b_DK), a_MD @ b_DK)
  gradient = jax.grad(lambda a, b: jnp.sum(product(a[None], b) ** 2), (0, 1))
  a_1D, b_DK = a_MD[:1], b_DK[:, :8]
  y_1K = 2 * a_1D @ b_DK
  close(quick_jit(gradient)(a_1D, b_DK), (y_1K @ b_DK.T, a_1D.T @ y_1K))
