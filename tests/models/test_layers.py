"""Scan, two directions and stacks, against loops in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.data.vocabulary import PAD
from seqrnn.models import features, layers, losses
from seqrnn.models.layers import Dropout, keep_mask
from tests.models.test_cells import (
  EQUATIONS,
  MAKE,
  close,
  normal,
  normalize,
  quick_jit,
)

B, T, D, H, V = 3, 5, 4, 3, 7
# Padding at the end, on both sides, none.
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [1] * 5], bool)


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


def gelu(x):
  return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def blocks(step, p, x, mask, carry, reverse=False):
  """A stack whose layers are residual blocks."""
  carries = []
  for n, below in enumerate(carry):
    read = normalize(x) if n else x
    below, h = scan(step, p[f"layers_{n}"], read, mask, below, reverse)
    unit = p[f"blocks_{n}"]
    a, b = np.split(gelu(h) @ unit["kernel"] + unit["bias"], 2, axis=-1)
    x = (x if n else 0) + a / (1 + np.exp(-b))
    carries.append(below)
  return tuple(carries), x


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


def bidirectional(name, merge="concat", **settings):
  return layers.Bidirectional(
    recurrent(name, **settings), recurrent(name, True, **settings), merge
  )


def towers(name, merge):
  def tower(reverse):
    below, above = (recurrent(name, reverse, n == 0) for n in range(2))
    return layers.Before(layers.Stack([below, above]), reverse=reverse)

  return layers.Bidirectional(tower(False), tower(True), merge)


def residual(name, **settings):
  below, above = recurrent(name, **settings), recurrent(name)
  return layers.Stack([below, above], blocks=[layers.Block(), layers.Block()])


def arrays(seed, module, ids=False):
  """Random params, inputs and a carry that is not zero, in float64."""
  rng = np.random.default_rng(seed)
  x = rng.integers(V, size=(B, T)) if ids else rng.normal(size=(B, T, D))
  carry = jax.eval_shape(lambda: module.initial_carry(B))
  init = jax.eval_shape(module.init, jax.random.key(0), x, MASK, carry)
  return normal(rng, init["params"]), x, normal(rng, carry)


# name -> module, equations, whether it reads ids
CASES = {
  "both": (
    bidirectional("layer_norm_lstm", "sum"),
    functools.partial(two, scan, EQUATIONS["layer_norm_lstm"], merge="sum"),
    False,
  ),
  "stack": (
    layers.Stack([bidirectional("gru"), bidirectional("gru")]),
    functools.partial(stack, EQUATIONS["gru"]),
    False,
  ),
  "blocks": (
    residual("gru", ids=True),
    functools.partial(blocks, EQUATIONS["gru"]),
    True,
  ),
  "towers": (
    towers("lstm", "mean"),
    functools.partial(two, before, EQUATIONS["lstm"], merge="mean"),
    True,
  ),
}


def check_gradients(grads, function, tree):
  """Compares gradients with derivatives along a random direction of each leaf.

  The imaginary part of a step by 1e-30i is exact to rounding.
  """
  rng = np.random.default_rng(0)
  leaves, structure = jax.tree.flatten(tree)
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  for n, gradient in enumerate(jax.tree.leaves(jax.device_get(grads))):
    direction = rng.normal(size=leaves[n].shape)
    stepped = list(leaves)
    stepped[n] = leaves[n] + 1e-30j * direction
    expected = function(jax.tree.unflatten(structure, stepped)).imag / 1e-30
    slope = (gradient * direction).sum()
    np.testing.assert_allclose(slope, expected, 1e-9, 1e-9, err_msg=paths[n])
    assert abs(expected) > 1e-5, paths[n]  # Else this shows nothing.


def attend(p, x, mask):
  rows = []
  for x_TD, mask_T in zip(x, mask, strict=True):
    x_ND = x_TD[mask_T]
    place = np.minimum(np.arange(len(x_ND)), T - 2)
    score = x_ND @ p["vector"] + p["place"][place]
    weight = np.exp(score - score.real.max())
    rows.append(weight @ x_ND / weight.sum())
  return np.array(rows)


def convolve(p, x, mask):
  x = np.pad(np.where(mask[..., None], x, 0), ((0, 0), (2, 1), (0, 0)))
  kernel = p["kernel"].reshape(4, D, -1)  # From two before to one after.
  parts = [x[:, k : k + T] @ kernel[k] for k in range(4)]
  y = sum(parts) + p["bias"]
  return np.where(y.real > 0, y, 0)


@pytest.mark.usefixtures("x64")
def test_attention_and_convolution_equal_equations():
  rng = np.random.default_rng(5)
  for module, equations in (
    (features.Attention(T - 1), attend),
    (features.Convolution(4, H), convolve),
  ):
    x = rng.normal(size=(B, T, D))
    init = jax.eval_shape(module.init, jax.random.key(0), x, MASK)
    params = normal(rng, init["params"])
    expected = equations(params, x, MASK)
    weights = normal(rng, expected)

    def loss(params, x, module=module, weights=weights):
      y = module.apply({"params": params}, x, MASK)
      return (y * weights).sum(), y

    gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)
    (_, y), grads = quick_jit(gradient)(params, x)
    close(y, expected)
    weighed = lambda both, e=equations, w=weights: (e(*both, MASK) * w).sum()
    check_gradients(grads, weighed, (params, x))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_equations(case):
  module, equations, ids = CASES[case]
  params, x, carry = arrays(3, module, ids)
  expected = equations(params, x, MASK, carry)
  weights = normal(np.random.default_rng(4), expected)

  def total(new):
    terms = jax.tree.map(lambda a, w: (a * w).sum(), new, weights)
    return sum(jax.tree.leaves(terms))

  def run(params, carry):
    new = module.apply({"params": params}, x, MASK, carry)
    return total(new), new

  grads, new = quick_jit(jax.grad(run, (0, 1), has_aux=True))(params, carry)
  assert new[1].dtype == jnp.float64
  close(new, expected)
  function = lambda tree: total(equations(tree[0], x, MASK, tree[1]))
  check_gradients(grads, function, (params, carry))


@pytest.mark.usefixtures("x64")
def test_letters_are_the_last_states_over_the_characters_of_a_word():
  module, rng = (
    features.Letters(bidirectional("gru"), V, D),
    np.random.default_rng(5),
  )
  ids_BTL = rng.integers(1, V, (B, 2, T)) * (
    np.arange(T) < 3 + np.arange(B)[:, None, None]
  )
  init = jax.eval_shape(module.init, jax.random.key(0), ids_BTL)
  params, ids_NL = normal(rng, init["params"]), ids_BTL.reshape(-1, T)
  x_NLD = params["Embed_0"]["embedding"][ids_NL]
  start = (np.zeros((len(ids_NL), H)),) * 2
  (ahead, back), _ = two(
    scan, EQUATIONS["gru"], params["body"], x_NLD, ids_NL != PAD, start
  )
  expected = np.concatenate([ahead, back], axis=-1).reshape(B, 2, 2 * H)
  close(quick_jit(module.apply)({"params": params}, ids_BTL), expected)


def nade_logits(p, biases, notes):
  """The equations of Nade for one frame, note by note; V + N biases."""
  (V, _), logits = p["note_kernel"].shape, []
  for i in range(V):
    below = sum(notes[j] * p["note_kernel"][j] for j in range(i))
    h = 1 / (1 + np.exp(-(biases[V:] + below)))
    logits.append(biases[i] + h @ p["output_kernel"][i])
  return np.array(logits)


def chances(logits, notes):
  """The probability of the notes of a frame."""
  return np.prod(1 / (1 + np.exp(np.where(notes, -1, 1) * logits)), axis=-1)


@pytest.mark.usefixtures("x64")
def test_each_note_has_a_logit_from_the_notes_below_it():
  module, rng = losses.Nade(4, 3), np.random.default_rng(6)
  chords = np.array([*itertools.product((0.0, 1.0), repeat=4)])[None]
  biases = rng.normal(size=(1, 1, 7)).repeat(16, 1)
  init = jax.eval_shape(module.init, jax.random.key(0), biases, chords)
  tree = {"params": normal(rng, init["params"], 2.0), "biases": biases}

  def loss(tree):
    logits = module.apply({"params": tree["params"]}, tree["biases"], chords)
    return (jnp.logaddexp(0, logits) - chords * logits)[0, 3:9].sum(), logits

  grads, logits = quick_jit(jax.grad(loss, has_aux=True))(tree)
  rows = lambda tree: np.array(
    [*map(nade_logits, [tree["params"]] * 16, tree["biases"][0], chords[0])]
  )
  close(logits[0], rows(tree))
  assert abs(chances(np.asarray(logits), chords).sum() - 1) < 1e-12
  check_gradients(
    grads, lambda tree: -np.log(chances(rows(tree), chords[0]))[3:9].sum(), tree
  )


def test_pooling_is_over_the_positions_of_the_mask():
  mask = np.append(MASK, [[False] * T], axis=0)  # The last row is padding.
  y = np.random.default_rng(9).normal(size=(B + 1, T, H)).astype(np.float32)

  def total(y):
    pooled = {name: pool(y, mask) for name, pool in features.POOLINGS.items()}
    return sum(y_BH.sum() for y_BH in pooled.values()), pooled

  grads, pooled = quick_jit(jax.grad(total, has_aux=True))(y)
  assert np.isfinite(grads).all()
  for b, row in enumerate(mask[:B]):
    close(pooled["mean"][b], y[b, row].mean(0), 1e-6)
    close(pooled["max"][b], y[b, row].max(0), 0)
  assert not pooled["mean"][B].any() and not pooled["max"][B].any()


def test_wide_logits_are_linear_in_the_terms_of_a_text():
  rng = np.random.default_rng(3)
  table = rng.normal(size=(9, 3)).astype(np.float32)
  terms = rng.normal(size=(4, 9)).astype(np.float32)
  wide = features.Wide(terms=9, features=3)
  layers = rng.normal(size=(4, 1, 3)).astype(np.float32)
  joined = quick_jit(wide.apply)({"params": {"table": table}}, layers, terms)
  close((joined - layers)[:, 0], 3 * terms @ table, 1e-5)


def training(module, rows=64, steps=5):
  """Random params, carry and input; a function that draws with a key."""
  rng = np.random.default_rng(13)
  x = rng.normal(size=(rows, steps, D)).astype(np.float32)
  mask = np.ones((rows, steps), bool)
  carry = jax.eval_shape(lambda: module.initial_carry(rows))
  init = jax.eval_shape(module.init, jax.random.key(0), x, mask, carry)
  draw = lambda shapes: jax.tree.map(np.float32, normal(rng, shapes))

  def run(params, carry, key=1, train=True):
    rngs = {"dropout": jax.random.key(key)}
    return module.apply({"params": params}, x, mask, carry, train, rngs=rngs)

  return run, draw(init["params"]), draw(carry), x


def test_dropout_falls_on_outputs_and_never_along_time():
  two_layers = [recurrent("lstm", size=16) for _ in range(2)]
  module = layers.Stack(two_layers, dropout=0.25)
  run, params, carry, _ = training(module, rows=4, steps=20)

  @quick_jit
  def runs(params, carry):
    return run(params, carry, train=False), run(params, carry)

  (plain, y_BTH), (new, y_drop) = runs(params, carry)
  close(new[0], plain[0], 0)  # The lower layer's own state knows no dropout.
  dropped = np.asarray(y_drop == 0)
  assert not np.any(y_BTH == 0)  # Off in evaluation.
  assert dropped.mean() == pytest.approx(0.25, abs=0.05)
  # Another mask at each position: no unit is dropped at all of them.
  assert not dropped.all(axis=1).any()
  # The upper layer reads what is left of the lower one's outputs.
  assert not np.allclose(y_drop[~dropped] * 0.75, y_BTH[~dropped])


def test_variational_dropout_drops_units_for_a_whole_sequence():
  # The state before the first step is dropped as the outputs are.
  one_layer = layers.Stack([recurrent("lstm", size=16)], 0, 0.25)
  run, params, carry, _ = training(layers.Before(one_layer))

  @quick_jit
  def runs(params, carry):
    return run(params, carry)[1], run(params, carry, 2)[1]

  dropped, other = (np.asarray(y_BTH == 0) for y_BTH in runs(params, carry))
  assert np.array_equal(dropped, dropped[:, :1].repeat(5, axis=1))
  # 1024 units: within four standard deviations.
  assert dropped[:, 0].mean() == pytest.approx(0.25, abs=0.054)
  # Each sequence has units of its own; two of 64 may agree by chance.
  assert len(np.unique(dropped[:, 0], axis=0)) > len(dropped) - 8
  assert not np.array_equal(dropped, other)


def test_weight_drop_takes_entries_of_the_recurrent_kernel_alone():
  module = layers.Recurrent(MAKE["lstm"](16), weight_drop=0.4)
  run, params, carry, x = training(module)

  @quick_jit
  def gradient(params, key):
    def total(params):
      new = run(params, carry, key)
      return jnp.sum(new[1] ** 2), new

    return jax.grad(total, has_aux=True)(params)

  grads, new = gradient(params, 1)
  kernel_grad = grads["cell"].pop("recurrent_kernel")
  left = np.asarray(kernel_grad != 0)
  assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(grads))
  assert left.mean() == pytest.approx(0.6, abs=0.062)  # Of 1024, again.
  other = gradient(params, 2)[0]["cell"]["recurrent_kernel"]
  assert np.any(left != (other != 0))
  kernel = params["cell"]["recurrent_kernel"] * (left / np.float32(154 / 256))
  params = {"cell": {**params["cell"], "recurrent_kernel": kernel}}
  mask = np.ones(x.shape[:2], bool)
  close(new, scan(EQUATIONS["lstm"], params, x, mask, carry), 1e-4)


def test_recurrent_dropout_hides_units_from_the_recurrent_product():
  module = layers.Recurrent(MAKE["gru"](16), recurrent_dropout=0.4)
  run, params, carry, x = training(module)

  @quick_jit
  def values_and_gradients(params, carry):
    def half(carry, units):
      y_BTH = run(params, carry)[1]
      return jnp.sum(y_BTH[:, 0, units]), y_BTH

    gradient = jax.grad(half, has_aux=True)
    return gradient(carry, slice(8)), gradient(carry, slice(8, 16))

  (low, y_BTH), (high, _) = values_and_gradients(params, carry)
  # Only by the product does one half of the state reach the other.
  left_BH = np.concatenate([high[:, :8], low[:, 8:]], axis=1) != 0
  assert left_BH.mean() == pytest.approx(0.6, abs=0.062)
  assert len(np.unique(left_BH, axis=0)) == len(x)
  # The same units at all steps.
  for b, left_H in enumerate(left_BH[:8]):
    p = dict(params["cell"])
    p["recurrent_kernel"] = p["recurrent_kernel"] * left_H[:, None] * 256 / 154
    h = carry[b]
    for t in range(5):
      h = EQUATIONS["gru"](p, h, x[b, t])
      close(y_BTH[b, t], h, 1e-4)


def drop(rate, x, key):
  return Dropout(rate).apply({}, x, deterministic=False, rng=key)


def test_the_share_is_kept():
  shapes = (3, 64, 257), (50_001,), (200, 1, 250)
  cases = [(180, shape) for shape in shapes]
  cases += [(count, shapes[0]) for count in (128, 3, 1, 255)]
  draw = quick_jit(
    lambda key: [keep_mask(key, jnp.float32(n), shape) for n, shape in cases]
  )
  for (count, shape), mask in zip(cases, draw(jax.random.key(0)), strict=True):
    assert mask.shape == shape and mask.dtype == bool
    share = count / 256
    # Five standard deviations of a binomial share.
    spread = 5 * (share * (1 - share) / mask.size) ** 0.5
    error = abs(np.mean(mask) - share)
    assert error < max(spread, 1e-3), (share, shape)


def test_numbers_of_one_draw_are_independent():
  keys, half = jax.random.split(jax.random.key(1), 2), jnp.float32(128)
  draw = quick_jit(lambda keys: [keep_mask(k, half, (4000, 32)) for k in keys])
  mask, other = map(np.float64, draw(keys))
  correlation = np.corrcoef(mask.T) - np.eye(32)
  assert np.abs(correlation).max() < 5 / 4000**0.5
  assert 0.48 < np.mean(mask == other) < 0.52


def test_rows_do_not_depend_on_how_many_alive_are():
  x = np.ones((6, 5, 9), np.float32)
  run = quick_jit(
    lambda key: (
      drop(0.3, x, key),
      drop(0.3, x[:4], key),
      keep_mask(key, jnp.float32(179), x.shape),
    )
  )
  whole, part, mask = map(np.asarray, run(jax.random.key(5)))
  np.testing.assert_array_equal(whole[:4], part)
  np.testing.assert_array_equal(whole != 0, mask)


def test_what_is_left_is_scaled_and_so_is_its_gradient():
  x = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)

  @quick_jit
  def run(x, key):
    y, back = jax.vjp(lambda x: drop(0.3, x, key), x)
    return y, back(jnp.ones_like(y))[0]

  y, dx = map(np.asarray, run(x, jax.random.key(4)))
  alive = y != 0
  scale = 256 / 179  # 1 / 0.7, rounded.
  np.testing.assert_allclose(y, np.where(alive, x * scale, 0), rtol=1e-6)
  np.testing.assert_allclose(dx, np.where(alive, scale, 0), rtol=1e-6)
  assert 0.6 < alive.mean() < 0.8
  # Evaluation and rate zero need no key.
  assert Dropout(0.0).apply({}, x, deterministic=False) is x
  assert Dropout(0.5).apply({}, x, deterministic=True) is x
