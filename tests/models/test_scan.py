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
  add_bias,
  product,
  rows,
  step_dot,
)
from seqrnn.runtime import sharding
from tests.models.test_cells import MAKE, close, normal, quick_jit
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


PATHS = {name: make(H).path for name, make in MAKE.items()}
# All ways for two cells, one for each other that has a path of its own.
CASES = [
  (name, ids, reverse, {}, False)
  for n, name in enumerate(MAKE)
  for ids in (False, True)
  for reverse in (False, True)
  if name in ("lstm", "gru") or ids == reverse == bool(n % 2)
]
DROP, DROP_STATE = {"weight_drop": 0.4}, {"recurrent_dropout": 0.4}


@pytest.mark.parametrize(
  ("name", "ids", "reverse", "settings", "train"),
  [
    *CASES,
    ("lstm", True, False, DROP, True),
    ("lstm", False, True, DROP_STATE, True),
    ("gru", False, True, {**DROP, **DROP_STATE}, True),
  ],
)
def test_equals_nn_scan(name, ids, reverse, settings, train):
  rng = np.random.default_rng(5)
  cell = MAKE[name](H, vocabulary_size=V if ids else None)
  shape = (len(MASK), T)
  x = rng.integers(V, size=shape) if ids else rng.normal(size=(*shape, D))
  fused = layers.Recurrent(cell, reverse=reverse, **settings)
  plain = plain_of(fused)
  params, carry = draw(rng, plain, x)
  new = jax.eval_shape(plain.apply, {"params": params}, x, MASK, carry)
  weights = normal(rng, new)

  def compare(dtype, tolerance):
    to = functools.partial(jax.tree.map, lambda a: a.astype(dtype))
    given = to(params), x if ids else to(x), to(carry)
    results = [
      quick_jit(values_and_gradients(module, x, to(weights), train))(*given)
      for module in (fused, plain)
    ]
    close(*results, tolerance)
    assert jax.tree.leaves(results[0])[0].dtype == dtype

  with jax.enable_x64(True):
    compare(np.float64, 1e-10)
  if name in ("lstm", "gru", "min_lstm") and not settings and ids == reverse:
    compare(np.float32, 1e-5)


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


def test_a_cell_may_multiply_in_other_ways():
  rng = np.random.default_rng(14)
  x = rng.normal(size=(len(MASK), T, D))
  fused = layers.Recurrent(Mixed(H))
  params, carry = draw(rng, fused, x)
  new = jax.eval_shape(fused.apply, {"params": params}, x, MASK, carry)
  weights = normal(rng, new)
  with jax.enable_x64(True):
    results = [
      quick_jit(values_and_gradients(module, x, weights))(params, x, carry)
      for module in (fused, plain_of(fused))
    ]
    close(*results, 1e-10)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize(
  ("name", "reverse"),
  [
    ("lstm", False),
    ("gru", True),
    ("slstm", False),
    ("layer_norm_lstm", True),
    ("mgu", False),
    ("odyssey_fgr", True),
  ],
)
def test_layouts_of_other_platforms(name, reverse, platform):
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


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["lstm", "mgu"])
def test_gradients_of_gradients(name):
  rng = np.random.default_rng(14)
  x = rng.normal(size=(len(MASK), T, D))
  fused = layers.Recurrent(MAKE[name](H))
  given = *draw(rng, fused, x), x

  def slopes(module):
    total = lambda params, carry, x: jnp.sum(
      module.apply({"params": params}, x, MASK, carry)[1] ** 2
    )
    size = lambda *args: sum(
      jnp.sum(leaf**2) for leaf in jax.tree.leaves(jax.grad(total, 0)(*args))
    )
    return quick_jit(jax.grad(size, (0, 1, 2)))(*given)

  close(slopes(fused), slopes(plain_of(fused)), 1e-10)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_products_in_bfloat16(name):
  """Near those in float32 and not equal; all that is kept is float32."""
  rng = np.random.default_rng(10)
  x = rng.normal(size=(len(MASK), T, D)).astype(np.float32)
  cell = MAKE[name](H, products=Products("bfloat16"))
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
  cell = MAKE["lstm"](H)
  module = layers.Recurrent(cell)
  params, carry = draw(rng, module, np.zeros((len(MASK), T, D)))
  for rows_, steps in ((3, 1), (0, T)):
    x = rng.normal(size=(rows_, steps, D))
    mask = np.ones((rows_, steps), bool)
    first = jax.tree.map(lambda a, n=rows_: a[:n], carry)
    new = [
      m.apply({"params": params}, x, mask, first)
      for m in (module, plain_of(module))
    ]
    close(*new, 1e-5)


@pytest.mark.parametrize("name", [n for n in MAKE if PATHS[n] == "fused"])
def test_additive_cells_see_the_sum_alone(name):
  rng = np.random.default_rng(7)
  cell = MAKE[name](H)
  K = cell.gate_count * H
  shapes = jax.eval_shape(
    functools.partial(cell.init, method="inputs"),
    jax.random.key(0),
    np.zeros((1, 1, D)),
  )
  variables = {"params": normal(rng, shapes["params"])}
  carry = normal(rng, jax.eval_shape(lambda: cell.initial_carry(B)))
  z, u = rng.normal(size=(2, B, K)).astype(np.float32)
  gates = functools.partial(cell.apply, variables, carry, method="gates")
  apart, together = gates(z, u), gates(z + u, np.zeros_like(u))
  same = all(
    np.allclose(a, b, atol=1e-5)
    for a, b in zip(
      jax.tree.leaves(apart), jax.tree.leaves(together), strict=True
    )
  )
  assert same == cell.additive


# Of the LSTM: h, c and four gates; the GRU: h twice, three gates and a part of
# the recurrent product; the sLSTM: h, its carry, four gates and their inputs.
@pytest.mark.parametrize(
  ("name", "count"), [("lstm", 6), ("gru", 6), ("slstm", 12)]
)
def test_what_the_backward_pass_keeps(name, count):
  """So many arrays [T, B, H]."""
  cell = MAKE[name](H)
  x, mask = np.zeros((B, T, D), np.float32), np.ones((B, T), bool)
  module = layers.Recurrent(cell)
  carry = module.initial_carry(B)
  made = quick_jit(module.init)(jax.random.key(0), x, mask, carry)
  params = made["params"]["cell"]

  def run(params):
    over_time = scan.scan(cell, reverse=False)
    z_TBK = cell.apply({"params": params}, x.swapaxes(0, 1), method="inputs")
    return over_time(params, carry, z_TBK, mask.T)

  _, back = jax.vjp(run, params)
  sizes = [leaf.size for leaf in jax.tree.leaves(back) if leaf.ndim == 3]
  # Beside them, the inputs x.
  assert sum(sizes) <= count * T * B * H + x.size


def products_in_loops(jaxpr, inside=False):
  """How many matrix products a step of all loops has."""
  count = 0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    count += inside and name == "dot_general"
    for part in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
    ):
      inner = getattr(part, "jaxpr", part)
      if hasattr(inner, "eqns"):
        count += products_in_loops(inner, inside or name == "scan")
  return count


@pytest.mark.parametrize("name", ["lstm", "gru", "slstm"])
def test_a_step_back_has_one_product(name):
  """The recurrent kernel's gradient is one product outside of the loop."""
  cell = MAKE[name](H)
  x, mask = np.ones((B, T, D), np.float32), np.ones((B, T), bool)
  found = {}
  for fused in (True, False):
    module = layers.Recurrent(cell)
    module = module if fused else plain_of(module)
    carry = module.initial_carry(B)
    params = quick_jit(module.init)(jax.random.key(0), x, mask, carry)

    def loss(params, x, module=module, carry=carry):
      return jnp.sum(module.apply(params, x, mask, carry)[1] ** 2)

    jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, x).jaxpr
    found[fused] = products_in_loops(jaxpr)
  # Forward and back; in nn.scan's backward loop the kernel's gradient, too.
  assert found == {True: 2, False: 3}


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_memory_of_a_stack(name):
  """As much as three layers keep, and one of them needs besides."""
  B, T, H = 32, 50, 64
  stack = layers.Stack([layers.Recurrent(MAKE[name](H)) for _ in range(3)])
  x, mask = np.ones((B, T, H), np.float32), np.ones((B, T), bool)
  carry = stack.initial_carry(B)
  params = quick_jit(stack.init)(jax.random.key(0), x, mask, carry)["params"]

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

  results = [
    jax.value_and_grad(total, (0, 1))(params, table, look)
    for look in (True, False)
  ]
  close(*results, 1e-5)


@pytest.mark.parametrize("V", [7, 2000])  # By a product, and row by row.
def test_rows(V):
  rng = np.random.default_rng(9)
  table = rng.normal(size=(V, D)).astype(np.float32)
  ids = rng.integers(V, size=(5, 400))
  weights = rng.normal(size=(5, 400, D)).astype(np.float32)
  value, gradient = jax.value_and_grad(
    lambda table: jnp.sum(rows(table, ids) * weights)
  )(table)
  assert value == pytest.approx(np.sum(table[ids] * weights), rel=1e-4)
  expected = np.zeros_like(table, np.float64)
  np.add.at(expected, ids, weights)
  close(gradient, expected, 1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(7, 5), (6, 8, 5), (3, 7, 5)])
def test_a_bias_and_its_gradient(shape):
  rng = np.random.default_rng(3)
  x, d, bias_K = normal(rng, [np.empty(s) for s in (shape, shape, (5,))])
  new, back = jax.vjp(add_bias, x, bias_K)
  close(new, x + bias_K)
  close(back(d), (d, np.sum(d, axis=tuple(range(len(shape) - 1)))))


@pytest.mark.parametrize("N", [5, cpu.BIAS_ROW])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.usefixtures("x64")
def test_a_bias_may_be_a_row_of_the_kernel(N, dtype):
  rng = np.random.default_rng(3)
  x, kernel, bias = (rng.normal(size=s) for s in [(N, H), (H, V), (V,)])
  weights_NV = rng.normal(size=(N, V))

  def values_and_gradients(affine):
    def total(*arrays):
      y_NV = affine(*arrays)
      return jnp.sum(weights_NV * y_NV), y_NV

    return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(x, kernel, bias)

  close(
    values_and_gradients(lambda *a: products.affine(*a, dtype)),
    values_and_gradients(lambda x, k, b: product(x, k, dtype) + b[None]),
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
@pytest.mark.parametrize(
  "amd, shape, swapped",
  [
    (False, (1, 512, 640), True),
    (False, (32, 640, 512), True),
    (False, (50, 512, 512), True),
    (True, (50, 512, 512), False),
    (False, (24, 512, 640), False),
    (False, (128, 512, 512), False),
    (False, (32, 512, 256), False),
  ],
)
def test_a_step_s_product_is_the_product(amd, shape, swapped, monkeypatch):
  monkeypatch.setattr(cpu, "_is_amd", lambda: amd)
  M, D, K = shape
  rng = np.random.default_rng(0)
  a_MD, b_DK = normal(rng, (np.empty((M, D)), np.empty((D, K))))
  step = jax.jit(lambda a, b: step_dot(a, b))
  close(step(a_MD, b_DK), np.asarray(a_MD) @ np.asarray(b_DK))
  assert ("optimization_barrier" in step.lower(a_MD, b_DK).as_text()) == swapped
  # One step by itself is a step of somebody's loop.
  alone = jax.jit(lambda a, b: product(a, b))
  alone = alone.lower(a_MD[None], b_DK).as_text()
  assert ("optimization_barrier" in alone) == swapped
  made = jax.grad(lambda a, b: jnp.sum(product(a[None], b) ** 2), (0, 1))
  want = jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), (0, 1))
  for one, other in zip(made(a_MD, b_DK), want(a_MD, b_DK), strict=True):
    close(one, other)
