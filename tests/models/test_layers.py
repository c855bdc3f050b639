"""Scan, two directions and stacks, against loops in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.models import layers
from tests.models.test_cells import EQUATIONS, MAKE, close, normal, quick_jit

B, T, D, H, V = 3, 6, 4, 3, 7
# Padding at the end, on both sides, none.
MASK = np.array([[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [1] * 6], bool)


def top(carry):
  return carry[1] if isinstance(carry, tuple) else carry


def scan(step, p, x, mask, carry, reverse=False):
  """Each row on its own, step by step; padding is passed over."""
  carries, ys = [], []
  for b, positions in enumerate(mask):
    state = jax.tree.map(lambda a, b=b: a[b], carry)
    y = [top(state)] * len(positions)
    order = range(len(positions))
    for t in reversed(order) if reverse else order:
      if positions[t]:
        state = step(p["cell"], state, x[b, t])
      y[t] = top(state)
    carries.append(state)
    ys.append(y)
  return jax.tree.map(lambda *rows: np.stack(rows), *carries), np.array(ys)


def stack(step, p, x, mask, carry, reverse=False):
  carries = []
  for n, below in enumerate(carry):
    layer = p[f"layers_{n}"]
    if "forward" in layer:
      below, x = two(scan, step, layer, x, mask, below)
    else:
      below, x = scan(step, layer, x, mask, below, reverse)
    carries.append(below)
  return tuple(carries), x


def before(step, p, x, mask, carry, reverse=False):
  first = top(carry[-1])
  carry, y = stack(step, p["tower"], x, mask, carry, reverse)
  y = np.roll(y, -1 if reverse else 1, axis=1)
  y[:, -1 if reverse else 0] = first
  return carry, y


def merged(merge, a, b):
  if merge == "concat":
    return np.concatenate([a, b], axis=-1)
  return (a + b) / {"sum": 1, "mean": 2}[merge]


def two(one, step, p, x, mask, carry, merge="concat"):
  ahead, y_ahead = one(step, p["forward"], x, mask, carry[0])
  back, y_back = one(step, p["backward"], x, mask, carry[1], reverse=True)
  return (ahead, back), merged(merge, y_ahead, y_back)


def recurrent(name, reverse=False, ids=False, size=H):
  return layers.Recurrent(
    MAKE[name](size, vocabulary_size=V if ids else None), reverse=reverse
  )


def recurrents(name, reverse=False, depth=2, ids=False):
  return layers.Stack(
    [recurrent(name, reverse, ids and n == 0) for n in range(depth)]
  )


def bidirectional(name, merge="concat", **settings):
  return layers.Bidirectional(
    recurrent(name, **settings), recurrent(name, True, **settings), merge
  )


def towers(name, merge="concat"):
  return layers.Bidirectional(
    layers.Before(recurrents(name)),
    layers.Before(recurrents(name, True), reverse=True),
    merge,
  )


def arrays(seed, module, ids=False):
  """Random params, inputs and a carry that is not zero, in float64."""
  rng = np.random.default_rng(seed)
  x = rng.integers(V, size=(B, T)) if ids else rng.normal(size=(B, T, D))
  carry = jax.eval_shape(lambda: module.initial_carry(B))
  init = jax.eval_shape(module.init, jax.random.key(0), x, MASK, carry)
  return normal(rng, init["params"]), x, normal(rng, carry)


def apply(module, params, x, mask, carry):
  return quick_jit(module.apply)({"params": params}, x, mask, carry)


# name -> module, equations, whether it reads ids
CASES = {
  f"{name}-both": (
    bidirectional(name),
    functools.partial(two, scan, EQUATIONS[name]),
    False,
  )
  for name in ("layer_norm_lstm", "odyssey_fgr", "mgu", "min_lstm")
}
for _name in ("lstm", "gru"):
  for _reverse in (False, True):
    CASES[f"{_name}-reverse={_reverse}"] = (
      recurrent(_name, _reverse, _reverse),
      functools.partial(scan, EQUATIONS[_name], reverse=_reverse),
      _reverse,
    )
CASES |= {
  "sum": (
    bidirectional("lstm", "sum", ids=True),
    functools.partial(two, scan, EQUATIONS["lstm"], merge="sum"),
    True,
  ),
  "stack-lstm": (
    recurrents("lstm", ids=True),
    functools.partial(stack, EQUATIONS["lstm"]),
    True,
  ),
  "stack-bidirectional": (
    layers.Stack([bidirectional("gru"), bidirectional("gru")]),
    functools.partial(stack, EQUATIONS["gru"]),
    False,
  ),
  "towers-lstm": (
    towers("lstm", "mean"),
    functools.partial(two, before, EQUATIONS["lstm"], merge="mean"),
    False,
  ),
}


def check_gradients(grads, function, tree):
  """Compares gradients with derivatives along random directions of each leaf.

  The imaginary part of a step by 1e-30i is exact to rounding.
  """
  rng = np.random.default_rng(0)
  leaves, structure = jax.tree.flatten(tree)
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  for n, gradient in enumerate(jax.tree.leaves(grads)):
    for _ in range(3):
      direction = rng.normal(size=leaves[n].shape)
      stepped = list(leaves)
      stepped[n] = leaves[n] + 1e-30j * direction
      expected = function(jax.tree.unflatten(structure, stepped)).imag / 1e-30
      slope = (gradient * direction).sum()
      np.testing.assert_allclose(slope, expected, 1e-9, 1e-9, err_msg=paths[n])
      assert abs(expected) > 1e-5, paths[n]  # Else this shows nothing.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_carry_equal_equations(case):
  module, equations, ids = CASES[case]
  params, x, carry = arrays(2, module, ids)
  new, y_BTH = apply(module, params, x, MASK, carry)
  expected, y = equations(params, x, MASK, carry)
  assert y_BTH.dtype == jnp.float64
  close(y_BTH, y)
  close(new, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "case",
  # The towers: in test_network.py. Other cells: in test_scan.py.
  ["lstm-reverse=True", "stack-bidirectional", "layer_norm_lstm-both"],
)
def test_gradients_equal_complex_steps(case):
  module, equations, ids = CASES[case]
  params, x, carry = arrays(3, module, ids)
  carry_shapes, y_shape = jax.eval_shape(
    lambda: module.apply({"params": params}, x, MASK, carry)
  )
  rng = np.random.default_rng(4)
  by_y, by_carry = normal(rng, y_shape), normal(rng, carry_shapes)

  def loss(apply, params, carry):
    new, y = apply(params, x, MASK, carry)
    parts = jax.tree.map(lambda a, w: (a * w).sum(), new, by_carry)
    return (y * by_y).sum() + sum(jax.tree.leaves(parts))

  def ours(params, carry):
    variables = lambda params, *rest: module.apply({"params": params}, *rest)
    return loss(variables, params, carry)

  grads = quick_jit(jax.grad(ours, argnums=(0, 1)))(params, carry)
  check_gradients(grads, lambda tree: loss(equations, *tree), (params, carry))


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "min_gru"])
def test_parts_with_the_carry_equal_the_whole(name):
  """Steps one at a time, as in sampling, and then the other half."""
  module = recurrent(name, ids=True)
  params, x, carry = jax.tree.map(
    lambda a: a.astype(np.float32 if a.dtype.kind == "f" else np.int32),
    arrays(6, module, ids=True),
  )
  run = quick_jit(module.apply)
  new, y_BTH = run({"params": params}, x, MASK, carry)
  parts, edges = [], [0, 1, 2, 3, T]
  for part in map(slice, edges, edges[1:]):
    carry, y = run({"params": params}, x[:, part], MASK[:, part], carry)
    parts.append(y)
  close(np.concatenate(parts, axis=1), y_BTH, 1e-6)
  close(carry, new, 1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  ("name", "ids", "reverse"),
  [("lstm", False, False), ("gru", True, True)],
)
def test_padding_at_either_end_changes_nothing(name, ids, reverse):
  module = recurrent(name, reverse, ids)
  params, x, carry = arrays(7, module, ids)
  by_y = np.random.default_rng(8).normal(size=(B, T, H))

  @quick_jit
  def run(params, carry, x, mask, by_y):
    def loss(params, carry):
      new, y_BTH = module.apply({"params": params}, x, mask, carry)
      valid = (y_BTH * by_y * mask[..., None]).sum()
      last = sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(new))
      return valid + last, (new, y_BTH)

    return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, carry)

  plain = np.ones((B, T), bool)
  grads, (new, y_BTH) = run(params, carry, x, plain, by_y)
  for front in (0, 2, 4):

    def widen(a, front=front, fill=0):
      sides = [(0, 0), (front, 4 - front)] + [(0, 0)] * (a.ndim - 2)
      return np.pad(a, sides, constant_values=fill)

    # The padding is not zero, because it must not matter.
    wide = widen(x, fill=3), widen(plain), widen(by_y, fill=9)
    padded_grads, (padded_new, padded_y) = run(params, carry, *wide)
    close(padded_y[:, front : front + T], y_BTH, 1e-12)
    close(padded_new, new, 1e-12)
    close(padded_grads, grads, 1e-12)


def test_summary_is_the_output_after_the_last_step():
  module = layers.Stack([bidirectional("lstm", "sum") for _ in range(2)])
  params, x, carry = jax.tree.map(np.float32, arrays(10, module))
  mask = np.ones((B, T), bool)
  # The two directions of the upper layer end at opposite ends.
  (_, (ahead, back)), _ = apply(module, params, x, mask, carry)
  new, _ = apply(module, params, x, mask, carry)
  summary = module.apply({"params": params}, new, method="summary")
  close(summary, top(ahead) + top(back), 1e-6)


def test_dropout_falls_on_outputs_and_never_along_time():
  one = layers.Stack([recurrent("lstm", size=16)], dropout=0.25)
  module = layers.Stack(
    [recurrent("lstm", size=16), recurrent("lstm", size=16)], dropout=0.25
  )
  rng = np.random.default_rng(11)
  x = rng.normal(size=(4, 20, D)).astype(np.float32)
  mask = np.ones((4, 20), bool)
  carry = module.initial_carry(4)
  init = jax.eval_shape(module.init, jax.random.key(0), x, mask, carry)
  params = jax.tree.map(np.float32, normal(rng, init["params"]))
  run = quick_jit(functools.partial(module.apply, train=True))
  train = lambda key: run(
    {"params": params}, x, mask, carry, rngs={"dropout": jax.random.key(key)}
  )

  new, y_eval = apply(module, params, x, mask, carry)
  again, y_again = apply(module.clone(dropout=0.0), params, x, mask, carry)
  close((new, y_eval), (again, y_again), 0)  # Off in evaluation.

  (below, _), y_train = train(1)
  close(below, new[0], 0)  # The lower layer's own state knows no dropout.
  dropped = np.asarray(y_train == 0)
  assert dropped.mean() == pytest.approx(0.25, abs=0.05)
  # Another mask at each position: no unit is dropped at all of them.
  assert not dropped.all(axis=1).any()
  assert not np.array_equal(y_train, train(2)[1])

  # One layer alone: its outputs that are left are those of evaluation, scaled.
  one_params = {"layers_0": params["layers_0"]}
  first, rngs = one.initial_carry(4), {"dropout": jax.random.key(3)}
  _, y_one = apply(one, one_params, x, mask, first)
  last, y_drop = quick_jit(functools.partial(one.apply, train=True))(
    {"params": one_params}, x, mask, first, rngs=rngs
  )
  close(y_drop, np.where(y_drop != 0, y_one / 0.75, 0), 1e-6)
  close(last[0], new[0], 0)
  summary = one.apply(
    {"params": one_params}, last, True, method="summary", rngs=rngs
  )
  left = np.asarray(summary != 0)
  close(summary, np.where(left, y_one[:, -1] / 0.75, 0), 1e-6)
  assert 0 < left.mean() < 1


def training(module, rows=64, steps=5, seed=13):
  """Random params and input; a function of them that draws with a key."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(rows, steps, D)).astype(np.float32)
  mask = np.ones((rows, steps), bool)
  carry = jax.eval_shape(lambda: module.initial_carry(rows))
  init = jax.eval_shape(module.init, jax.random.key(0), x, mask, carry)
  draw = lambda shapes: jax.tree.map(np.float32, normal(rng, shapes))

  def run(params, carry, key=1, x=x, train=True):
    rngs = {"dropout": jax.random.key(key)}
    return module.apply({"params": params}, x, mask, carry, train, rngs=rngs)

  return run, draw(init["params"]), draw(carry), x


def test_variational_dropout_drops_units_for_a_whole_sequence():
  module = layers.Stack(
    [recurrent("lstm", size=16) for _ in range(2)], variational_dropout=0.25
  )
  run, params, carry, _ = training(module)
  (below, _), y_BTH = quick_jit(run)(params, carry)
  (plain, _), _ = quick_jit(functools.partial(run, train=False))(params, carry)
  close(below, plain, 0)  # The lower layer's own state knows nothing of it.
  dropped = np.asarray(y_BTH == 0)
  assert np.array_equal(dropped, dropped[:, :1].repeat(5, axis=1))
  # 1024 units: within four standard deviations.
  assert dropped[:, 0].mean() == pytest.approx(0.25, abs=0.054)
  # Each sequence has units of its own; two of 64 may agree by chance.
  assert len(np.unique(dropped[:, 0], axis=0)) > len(dropped) - 8
  assert not np.array_equal(dropped, quick_jit(run)(params, carry, 2)[1] == 0)

  # The state before the first step is dropped as the outputs are.
  before = layers.Before(layers.Stack(module.layers[:1], 0, 0.25))
  run, params, carry, _ = training(before)
  dropped = np.asarray(quick_jit(run)(params, carry)[1] == 0)
  assert np.array_equal(dropped, dropped[:, :1].repeat(5, axis=1))
  assert dropped.any()


def test_weight_drop_takes_entries_of_the_recurrent_kernel_alone():
  module = layers.Recurrent(MAKE["lstm"](16), weight_drop=0.4)
  run, params, carry, x = training(module)
  total = lambda params, key: jnp.sum(run(params, carry, key)[1] ** 2)
  gradient = quick_jit(jax.grad(total))
  grads = gradient(params, 1)["cell"]
  kept = np.asarray(grads.pop("recurrent_kernel") != 0)
  assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(grads))
  assert kept.mean() == pytest.approx(0.6, abs=0.062)  # Of 1024, again.
  assert np.any(kept != (gradient(params, 2)["cell"]["recurrent_kernel"] != 0))
  new, y_BTH = quick_jit(run)(params, carry)
  # Not in place: the run before may still be reading it.
  kernel = params["cell"]["recurrent_kernel"] * (kept / np.float32(0.6))
  params = {"cell": {**params["cell"], "recurrent_kernel": kernel}}
  mask = np.ones(x.shape[:2], bool)
  close((new, y_BTH), scan(EQUATIONS["lstm"], params, x, mask, carry), 1e-4)


def test_recurrent_dropout_hides_units_from_the_recurrent_product():
  module = layers.Recurrent(MAKE["gru"](16), recurrent_dropout=0.4)
  run, params, carry, x = training(module, steps=1)
  # Only by the product does one unit of the state reach another.
  outputs = lambda carry: run(params, carry)[1][:, 0]
  jacobian = np.asarray(quick_jit(jax.jacobian(outputs))(carry))
  rows = np.arange(len(x))
  jacobian_BHH = jacobian[rows, :, rows]
  kept_BH = (jacobian_BHH * (1 - np.eye(16)) != 0).any(axis=1)
  assert kept_BH.mean() == pytest.approx(0.6, abs=0.062)
  assert len(np.unique(kept_BH, axis=0)) == len(x)

  # The same units at all steps.
  run, _, _, x = training(module, steps=5)
  _, y_BTH = quick_jit(run)(params, carry)
  step = EQUATIONS["gru"]
  for b, kept_H in enumerate(kept_BH[:8]):
    p = dict(params["cell"])
    p["recurrent_kernel"] = p["recurrent_kernel"] * kept_H[:, None] / 0.6
    h = carry[b]
    for t in range(5):
      h = step(p, h, x[b, t])
      close(y_BTH[b, t], h, 1e-4)
