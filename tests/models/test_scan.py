"""The fused scan equals nn.scan: values and gradients of everything."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.models import cells, cpu, layers, products, scan
from seqrnn.models.products import (
  Lookup,
  Products,
  product,
  step_dot,
)
from seqrnn.runtime import sharding
from tests.models.test_cells import MAKE, IndRNN, close, normal, quick_jit
from tests.models.test_cpu import mesh_of

B, T, D, H, V = 3, 6, 4, 5, 7
# Padding at the end, on both sides, none; a row of nothing else.
MASK = np.array(
  [[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [1] * 6, [0] * 6], bool
)


def plain_of(module):
  """The layer by nn.scan and JAX's own products."""
  products = module.cell.products._replace(plain=True)
  return module.clone(cell=module.cell.clone(products=products))


def draw(rng, module, x, mask=MASK):
  carry = jax.eval_shape(lambda: module.initial_carry(len(mask)))
  shapes = jax.eval_shape(module.init, jax.random.key(0), x, mask, carry)
  return normal(rng, shapes["params"]), normal(rng, carry)


def values_and_gradients(module, x, weights, train=False, mask=MASK):
  """Of a sum that rests on all outputs and on the last carry, with weights."""

  def total(params, x, carry):
    rngs = {"dropout": jax.random.key(12)}
    new = module.apply({"params": params}, x, mask, carry, train, rngs=rngs)
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


class Separate(IndRNN):
  """No recurrent product, no bias in the loop, and z and u separate."""

  additive = False
  recurrent_bias = None


CELLS = {**MAKE, "indrnn": IndRNN, "mixed": Mixed, "separate": Separate}
DROP, DROP_STATE = {"weight_drop": 0.4}, {"recurrent_dropout": 0.4}


@pytest.mark.parametrize(
  ("name", "ids", "reverse", "settings"),
  [
    ("lstm", False, False, {}),
    ("lstm", True, True, DROP),
    ("lstm", True, False, DROP_STATE),
    ("gru", True, True, {}),
    ("gru", False, True, {**DROP, **DROP_STATE}),
    ("rnn_tanh", False, False, {}),
    ("layer_norm_lstm", True, True, {}),
    ("slstm", False, False, {}),
    ("odyssey", True, False, {}),
    ("odyssey_fgr", False, True, {}),
    ("gru_reset_before", True, True, {}),
    ("mgu", False, False, {}),
    ("min_lstm", True, True, {}),
    ("min_gru", False, False, {}),
    ("indrnn", False, False, {}),
    ("separate", False, True, {}),
    ("mixed", False, False, {}),
  ],
)
def test_equals_nn_scan(name, ids, reverse, settings):
  rng = np.random.default_rng(5)
  cell = CELLS[name](H, vocabulary_size=V if ids else None)
  shape = (len(MASK), T)
  x = rng.integers(V, size=shape) if ids else rng.normal(size=(*shape, D))
  fused = layers.Recurrent(cell, reverse=reverse, **settings)
  plain = plain_of(fused)
  params, carry = draw(rng, plain, x)
  new = jax.eval_shape(plain.apply, {"params": params}, x, MASK, carry)
  weights = normal(rng, new)

  def compare(dtype, tolerance):
    to = functools.partial(jax.tree.map, lambda a: a.astype(dtype))
    arguments = to(params), x if ids else to(x), to(carry)
    results = [
      quick_jit(values_and_gradients(module, x, to(weights), bool(settings)))(
        *arguments
      )
      for module in (fused, plain)
    ]
    close(*results, tolerance)
    assert jax.tree.leaves(results[0])[0].dtype == dtype

  with jax.enable_x64(True):
    compare(np.float64, 1e-10)
  if name in ("lstm", "min_lstm") and not settings:
    compare(np.float32, 1e-5)


@pytest.mark.parametrize(
  ("platform", "name", "reverse"),
  [
    ("gpu", "gru", True),
    ("gpu", "slstm", False),
    ("gpu", "mgu", False),
    ("tpu", "lstm", False),
    ("tpu", "layer_norm_lstm", True),
    ("tpu", "odyssey_fgr", True),
  ],
)
def test_layouts_of_other_platforms(platform, name, reverse):
  """The program for a GPU or a TPU, run here, has the values of nn.scan."""
  rng = np.random.default_rng(13)
  T = 19  # For a GPU, two passes of eight steps, and three steps.
  x, mask = rng.normal(size=(B, T, D)), rng.random((B, T)) < 0.8
  fused = layers.Recurrent(MAKE[name](H), reverse=reverse)
  params, carry = draw(rng, fused, x, mask)
  new = jax.eval_shape(fused.apply, {"params": params}, x, mask, carry)
  with jax.enable_x64(True):
    given, results = (params, x, carry), []
    weights = normal(rng, new)
    for module, place in ((fused, platform), (plain_of(fused), "cpu")):
      run = values_and_gradients(module, x, weights, mask=mask)
      run = sharding.jit(run, mesh_of(place), **quick_jit.keywords)
      results.append(run(*given))
    close(*results, 1e-10)


def test_products_in_bfloat16():
  """Near those in float32 and not equal; all that is kept is float32."""
  rng = np.random.default_rng(10)
  x = rng.normal(size=(len(MASK), T, D)).astype(np.float32)
  cell = MAKE["gru"](H, products=Products("bfloat16"))
  fused = layers.Recurrent(cell)
  params, carry = jax.tree.map(np.float32, draw(rng, fused, x))
  new = jax.eval_shape(fused.apply, {"params": params}, x, MASK, carry)
  weights = jax.tree.map(np.float32, normal(rng, new))
  exact = layers.Recurrent(cell.clone(products=Products()))
  of = lambda module: quick_jit(values_and_gradients(module, x, weights))(
    params, x, carry
  )
  rounded, plain, expected = map(of, (fused, plain_of(fused), exact))
  for leaf in jax.tree.leaves((rounded, plain)):
    assert leaf.dtype == jnp.float32
  size = lambda tree: sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(tree))
  apart = lambda a, b: size(jax.tree.map(lambda x, y: x - y, a, b)) / size(b)
  assert 0 < apart(rounded, expected) < 1e-3
  assert apart(rounded, plain) < 1e-3


def test_one_step_and_no_batch():
  rng = np.random.default_rng(6)
  module = layers.Recurrent(MAKE["lstm"](H))
  params, carry = draw(rng, module, np.zeros((len(MASK), T, D)))
  for batch, steps in ((3, 1), (0, T)):
    x, mask = rng.normal(size=(batch, steps, D)), np.ones((batch, steps), bool)
    first = jax.tree.map(lambda a, n=batch: a[:n], carry)
    new = [
      quick_jit(m.apply)({"params": params}, x, mask, first)
      for m in (module, plain_of(module))
    ]
    close(*new, 1e-5)


# Of the LSTM: h, c and four gates; the sLSTM: h, its carry, four gates and
# their inputs.
@pytest.mark.parametrize(("name", "count"), [("lstm", 6), ("slstm", 12)])
def test_what_the_backward_pass_keeps(name, count):
  """So many arrays [T, B, H]."""
  cell = MAKE[name](H)
  x, mask = np.zeros((B, T, D), np.float32), np.ones((B, T), bool)
  shapes = jax.eval_shape(
    functools.partial(cell.init, method="inputs"), jax.random.key(0), x
  )
  params = jax.tree.map(np.float32, normal(np.random.default_rng(0), shapes))
  params = params["params"]

  def run(params):
    over_time = scan.scan(cell, reverse=False)
    z_TBK = cell.apply({"params": params}, x.swapaxes(0, 1), method="inputs")
    return over_time(params, cell.initial_carry(B), z_TBK, mask.T)

  _, back = jax.vjp(run, params)
  sizes = [leaf.size for leaf in jax.tree.leaves(back) if leaf.ndim == 3]
  # Beside them, the inputs x.
  assert sum(sizes) <= count * T * B * H + x.size


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


def test_lookup_equals_features():
  rng = np.random.default_rng(8)
  table = rng.normal(size=(V, D)).astype(np.float32)
  ids = rng.integers(V, size=(len(MASK), T))
  module = layers.Recurrent(MAKE["gru"](H))
  params, carry = draw(rng, module, rng.normal(size=(len(MASK), T, D)))
  weights = normal(rng, jax.ShapeDtypeStruct((len(MASK), T, H), np.float32))

  def total(params, table, look):
    x = Lookup(table, ids) if look else jnp.take(table, ids, axis=0)
    _, h_BTH = module.apply({"params": params}, x, MASK, carry)
    return jnp.sum(h_BTH * weights)

  gradient = jax.jit(jax.value_and_grad(total, (0, 1)), static_argnums=2)
  close(gradient(params, table, True), gradient(params, table, False), 1e-5)


@pytest.mark.usefixtures("x64")
def test_a_bias_may_be_a_row_of_the_kernel():
  N = cpu.BIAS_ROW
  rng = np.random.default_rng(3)
  x, kernel, bias = (rng.normal(size=s) for s in [(N, H), (H, V), (V,)])
  weights_NV = rng.normal(size=(N, V))

  def values_and_gradients(affine):
    def total(*arrays):
      y_NV = affine(*arrays)
      return jnp.sum(weights_NV * y_NV), y_NV

    return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(x, kernel, bias)

  close(
    values_and_gradients(lambda *a: products.affine(*a)),
    values_and_gradients(lambda x, k, b: product(x, k) + b[None]),
  )


def test_rounded_factors_lie_by_rows(monkeypatch):
  """Else XLA would widen them, and the product take three times as long."""
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  rng = np.random.default_rng(1)
  x_TBD, d_TBK, kernel_DK = jax.tree.map(
    np.float32,
    normal(rng, [np.empty(s) for s in ((8, 16, 32), (8, 16, 64), (32, 64))]),
  )

  def backward(x, kernel, d):
    _, back = jax.vjp(lambda *of: product(*of, jnp.bfloat16), x, kernel)
    return back(d)

  step = jax.jit(backward).lower(x_TBD, kernel_DK, d_TBK).compile()
  dots = [line for line in step.as_text().splitlines() if " dot(" in line]
  assert len(dots) == 2
  for line in dots:
    assert "lhs_contracting_dims={1}, rhs_contracting_dims={0}" in line
  rounded = lambda x: np.asarray(x.astype(jnp.bfloat16), np.float64)
  x, kernel, d = map(rounded, (x_TBD, kernel_DK, d_TBK))
  expected = d @ kernel.T, np.einsum("tbd,tbk->dk", x, d)
  close(step(x_TBD, kernel_DK, d_TBK), expected, 1e-5)


def test_one_row_is_not_rounded():
  rng = np.random.default_rng(2)
  h_1D, kernel_DK = normal(rng, (np.empty((1, 8)), np.empty((8, 32))))
  close(step_dot(h_1D, kernel_DK, jnp.bfloat16), h_1D @ kernel_DK, 1e-5)


@pytest.mark.usefixtures("x64")
def test_a_step_s_product_is_the_product(monkeypatch):
  wrong = []
  for amd, shape, swapped in (
    (False, (1, 512, 640), True),
    (False, (32, 640, 512), True),
    (False, (50, 512, 512), True),
    (True, (50, 512, 512), False),
    (False, (24, 512, 640), False),
    (False, (128, 512, 512), False),
    (False, (32, 512, 256), False),
  ):
    monkeypatch.setattr(cpu, "_is_amd", lambda amd=amd: amd)
    M, D, K = shape
    rng = np.random.default_rng(0)
    a_MD, b_DK = normal(rng, (np.empty((M, D)), np.empty((D, K))))
    step = jax.jit(lambda a, b: step_dot(a, b))
    # One step by itself is a step of a loop of the caller.
    alone = jax.jit(lambda a, b: product(a, b)).lower(a_MD[None], b_DK)
    for program in (step.lower(a_MD, b_DK), alone):
      if ("optimization_barrier" in program.as_text()) != swapped:
        wrong.append((amd, shape))
    if M == 50:
      close(step(a_MD, b_DK), a_MD @ b_DK)
  assert wrong == []
  gradient = jax.grad(lambda a, b: jnp.sum(product(a[None], b) ** 2), (0, 1))
  expected = jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), (0, 1))
  a_MD, b_DK = a_MD[:1], b_DK[:, :8]
  close(gradient(a_MD, b_DK), expected(a_MD, b_DK))
