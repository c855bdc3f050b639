"""Whole models: their equations, their visible inputs, and the leak probe."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from seqrnn import experiments
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.models import network
from seqrnn.models.products import Lookup, rows
from seqrnn.runtime import sharding
from seqrnn.training.probe import probe
from seqrnn.training.step import make_start, make_step
from tests.conftest import tiny
from tests.models.test_cells import EQUATIONS, close, normal, quick_jit
from tests.models.test_layers import before, check_gradients, stack, two

SYMBOLS = {"symbols": Vocabulary("char", tuple("abcde"))}
V = 9
B, T = 4, 6


def build(tmp_path, **fields):
  """An experiment; `model__cell` is model.cell."""
  overrides = {name.replace("__", "."): v for name, v in fields.items()}
  return experiments.build(
    tiny(tmp_path, {"data.window": T, **overrides}), SYMBOLS
  )


def draw(experiment, dtype=np.float32):
  """Random params, without the seconds that compiling `init` takes."""
  shapes = jax.eval_shape(experiment.init, jax.random.key(0))
  params = normal(np.random.default_rng(0), shapes)
  return jax.tree.map(dtype, params)


def batch_of(inputs, targets, weights):
  reset = np.ones(len(inputs), bool)
  return {
    "inputs": inputs,
    "targets": targets,
    "weights": weights,
    "reset": reset,
  }


def head(p, y):
  if "embedding" in p and "head" not in p:
    return y @ p["embedding"]["embedding"].T + p["head_bias"]
  return y @ p["head"]["kernel"] + p["head"]["bias"]


def softmax_loss(logits, targets, weights):
  """Mean cross-entropy, of complex logits, too."""
  logits = logits - logits.real.max(axis=-1, keepdims=True)
  logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  nll = -np.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]
  return (nll * weights).sum() / weights.sum()


def zeros(cell, rows, depth, size=3):
  zero = np.zeros((rows, size))
  return ((zero, zero) if cell == "lstm" else zero,) * depth


def language_model(cell, depth=1, pooled=False):
  """Its equations: params, ids -> logits."""

  def logits(p, ids):
    x = p["embedding"]["embedding"][ids] if "embedding" in p else ids
    start = zeros(cell, len(ids), depth)
    step, mask = EQUATIONS[cell], ids != PAD
    if not pooled:
      _, y = stack(step, p["body"], x, mask, start)
      return head(p, y)
    start = tuple((one, one) for one in start)
    _, y = stack(step, p["body"], x, mask, start)
    # Forward: the last position. Backward: the first. Held over padding.
    H = y.shape[-1] // 2
    ends = np.concatenate([y[:, -1:, :H], y[:, :1, H:]], axis=-1)
    return head(p, ends)

  return logits


def gap_model(cell, depth):
  def logits(p, ids):
    start = zeros(cell, len(ids), depth)
    _, y = two(
      before, EQUATIONS[cell], p["body"], ids, ids != PAD, (start, start)
    )
    return head(p, y)

  return logits


MODELS = {
  "embedding": (
    {"model__cell": "gru", "model__embedding_size": 4, "model__layers": 2},
    language_model("gru", 2),
  ),
  "tied": (
    {"model__cell": "gru", "model__embedding_size": 3, "model__tied": True},
    language_model("gru"),
  ),
  "pooled": (
    {
      "model__cell": "lstm",
      "data__mapping": "many_to_one",
      "model__bidirectional": True,
    },
    language_model("lstm", pooled=True),
  ),
  "gap": (
    {"task": "gap_model", "model__cell": "lstm", "model__layers": 2},
    gap_model("lstm", 2),
  ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MODELS)
def test_logits_loss_and_gradients_equal_equations(tmp_path, name):
  fields, equations = MODELS[name]
  experiment = build(tmp_path, model__hidden_size=3, **fields)
  params = draw(experiment, np.float64)
  rng = np.random.default_rng(1)
  ids = rng.integers(BEGIN, V, (B, T))
  ids[0, 4:] = ids[1, :2] = ids[2, 5:] = PAD
  N = 1 if name == "pooled" else T
  targets = rng.integers(BEGIN, V, (B, N))
  weights = (rng.random((B, N)) < 0.8) * rng.uniform(0.5, 2, (B, N))
  weights[3] = 1
  batch = batch_of(ids, targets, weights)

  @quick_jit
  def run(params):
    loss = lambda params: experiment.loss(params, (), batch, None)[0]
    _, logits_BNV = experiment.predict(params, (), batch)
    _, nll_BN = experiment.score(params, (), batch)
    return logits_BNV, nll_BN, *jax.value_and_grad(loss)(params)

  logits_BNV, nll_BN, loss, grads = run(params)
  expected = equations(params, ids)
  valid = np.ones((B, 1), bool) if name == "pooled" else ids != PAD
  assert logits_BNV.dtype == jnp.float64
  close(logits_BNV[valid], expected[valid])
  close(float(loss), softmax_loss(expected, targets, weights))
  close(float(nll_BN.sum() / weights.sum()), float(loss))
  check_gradients(
    grads, lambda p: softmax_loss(equations(p, ids), targets, weights), params
  )


@pytest.mark.parametrize(
  ("fields", "inputs", "targets", "weights"),
  [
    ({}, "^abcd$", "abcd$", [1, 1, 1, 1, 1]),
    # The last symbol is asked for, so it is no input.
    ({"data__mapping": "many_to_one"}, "^abcd", "$", [1]),
    ({"task": "gap_model"}, "^abcd$", "^abcd$", [0, 1, 1, 1, 1, 0]),
    (
      {"task": "gap_model", "model__heads": "all"},
      "^abcd$",
      "^abcd$",
      [0, 1, 1, 1, 1, 1],
    ),
  ],
)
def test_no_target_is_an_input_that_may_be_read(
  tmp_path, fields, inputs, targets, weights
):
  experiment = build(tmp_path, **fields)
  ids = lambda text: ["_^$?abcde".index(letter) for letter in text]
  batches = experiment.batches(from_text("abcd", "char"), 0)
  assert len(batches) == 1
  batch = batches[0]
  rows = {"inputs": ids(inputs), "targets": ids(targets), "weights": weights}
  for name, row in rows.items():
    length = batch[name].shape[1]
    assert length == (1 if len(weights) == 1 and name != "inputs" else T)
    row = row + [0] * (length - len(row))
    assert batch[name][0].tolist() == row, name
    assert not batch[name][1:].any()  # Rows of padding.


def dependencies(experiment, head=None):
  """bool_ST: whether changing input s changes the logits at t in any bit.

  Those of a head by its name; None: those that the task predicts.
  """
  params = draw(experiment)
  rng = np.random.default_rng(3)
  ids = rng.integers(UNKNOWN, V, (1, T)).repeat(T, axis=0)
  changed = ids + np.eye(T, dtype=int)  # Row s: input s is another symbol.
  changed[changed == V] = BEGIN
  by = experiment.heads[head] if head else experiment.predict
  predict = jax.jit(lambda *args: by(*args)[1])

  def logits(ids):
    batch = batch_of(ids, ids, np.ones(ids.shape, np.float32))
    return np.asarray(predict(params, experiment.carry(T), batch))

  return (logits(ids) != logits(changed)).any(axis=-1)


@pytest.mark.parametrize(
  "fields",
  [
    {"model__cell": "gru", "model__layers": 2, "model__embedding_size": 4},
    {"model__cell": "lstm", "data__stateful": True},
  ],
)
def test_language_model_sees_the_past_and_nothing_else(tmp_path, fields):
  experiment = build(tmp_path, **fields)
  seen = dependencies(experiment)
  s, t = np.indices((T, T))
  assert np.array_equal(seen, s <= t)
  assert np.array_equal(experiment.forbidden(T), seen.T == 0)


@pytest.mark.parametrize(
  "fields",
  [
    {"model__cell": "lstm", "model__layers": 2, "model__merge": "sum"},
    {"model__cell": "gru", "model__embedding_size": 4},
  ],
)
def test_gap_model_sees_both_sides_and_never_the_gap(tmp_path, fields):
  experiment = build(tmp_path, task="gap_model", **fields)
  seen = dependencies(experiment)
  s, t = np.indices((T, T))
  assert np.array_equal(seen, s != t)
  assert np.array_equal(experiment.forbidden(T), seen.T == 0)


ALL = {"task": "gap_model", "model__heads": "all"}


def test_each_head_sees_its_side_and_never_the_gap(tmp_path):
  fields = {"model__merge": "sum", "model__embedding_size": 4}
  experiment = build(tmp_path, **ALL, **fields, model__layers=2)
  s, t = np.indices((T, T))
  seen = {"joint": s != t, "forward": s < t, "backward": s > t}
  assert list(experiment.heads) == list(seen)
  for head, sees in seen.items():
    assert np.array_equal(dependencies(experiment, head), sees), head
  assert np.array_equal(dependencies(experiment), seen["joint"])
  forbidden = np.concatenate([~sees.T for sees in seen.values()])
  assert np.array_equal(experiment.forbidden(T), forbidden)


@pytest.mark.usefixtures("x64")
def test_heads_and_their_loss_equal_equations(tmp_path):
  experiment = build(
    tmp_path, **ALL, model__cell="rnn_tanh", model__hidden_size=3
  )
  params = draw(experiment, np.float64)
  rng = np.random.default_rng(1)
  ids = rng.integers(BEGIN, V, (B, T))
  ids[0, 4:] = ids[1, :2] = PAD
  weights = rng.uniform(0.5, 2, (B, T)) * (ids != PAD)
  counts = rng.uniform(0.5, 2, (B, 3))
  batch = {**batch_of(ids, ids, weights), "heads": counts}

  def equations(p):
    start = zeros("rnn_tanh", B, 1)
    step, mask = EQUATIONS["rnn_tanh"], ids != PAD
    _, y = two(before, step, p["body"], ids, mask, (start, start))
    outputs = {"joint": y, "forward": y[..., :3], "backward": y[..., 3:]}
    names = {"joint": "head"}
    return {
      name: head({"head": p[names.get(name, f"{name}_head")]}, part)
      for name, part in outputs.items()
    }

  def equal_loss(p):
    return np.mean(
      [
        softmax_loss(logits, ids, weights * counts[:, n, None])
        for n, logits in enumerate(equations(p).values())
      ]
    )

  @quick_jit
  def run(params):
    loss = lambda params: experiment.loss(params, (), batch, None)
    each = {
      name: by(params, (), batch)[1] for name, by in experiment.heads.items()
    }
    return each, jax.value_and_grad(loss, has_aux=True)(params)

  each, ((loss, (_, totals)), grads) = run(params)
  for n, (name, logits) in enumerate(equations(params).items()):
    close(each[name][ids != PAD], logits[ids != PAD])
    total, weight = totals["loss" if name == "joint" else f"{name}_loss"]
    expected = softmax_loss(logits, ids, weights * counts[:, n, None])
    close(float(total / weight), expected)
  close(float(loss), equal_loss(params))
  check_gradients(grads, equal_loss, params)


def test_the_forward_head_decodes(tmp_path):
  experiment = build(tmp_path, **ALL, model__layers=2, model__embedding_size=4)
  params = draw(experiment)
  ids_BT = np.random.default_rng(2).integers(BEGIN, V, (B, T))
  batch = batch_of(ids_BT, ids_BT, np.ones((B, T)))
  _, logits_BTV = experiment.heads["forward"](params, (), batch)
  start, step = experiment.decoder
  step = jax.jit(step)
  carry = start(B)
  for t in range(T - 1):
    carry, logits_BV = step(params, carry, ids_BT[:, t])
    close(logits_BV, logits_BTV[:, t + 1], 1e-5)


def leaky(tmp_path):
  """A gap model whose directions mix below the head: each layer has both."""
  good = build(tmp_path, task="gap_model")
  config = tiny(tmp_path, {"model.layers": 2, "model.cell": "rnn_tanh"})
  mixing = network.stack(config.model, V, bidirectional=True)

  class Shifted(nn.Module):
    """The state at t-1 forward, at t+1 backward; but those have read t."""

    body: nn.Module

    def __call__(self, x_BT, mask_BT, carry, train=False):
      carry, y_BTH = self.body(x_BT, mask_BT, carry, train)
      ahead, back = jnp.split(y_BTH, 2, axis=-1)
      ahead = jnp.pad(ahead[:, :-1], ((0, 0), (1, 0), (0, 0)))
      back = jnp.pad(back[:, 1:], ((0, 0), (0, 1), (0, 0)))
      return carry, jnp.concatenate([ahead, back], axis=-1)

    def initial_carry(self, batch_size):
      return self.body.initial_carry(batch_size)

  model = network.sequence_model(config.model, Shifted(mixing), V, pooled=False)

  def loss(params, carry, batch, key):
    del key
    inputs = batch["inputs"]
    _, logits = model.apply(
      {"params": params}, inputs, model.initial_carry(len(inputs))
    )
    nll = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch["targets"]
    )
    total, weight = (nll * batch["weights"]).sum(), batch["weights"].sum()
    return total / weight, (carry, {"loss": (total, weight)})

  def init(key):
    ids = jnp.ones((1, 1), jnp.int32)
    return model.init(key, ids, model.initial_carry(1))["params"]

  return good._replace(init=init, loss=loss)


def prepare(experiment, change=lambda step: step):
  """Step, state and batch on the 4 devices, as train.run makes them."""
  mesh = sharding.mesh()
  assert mesh.size == 4
  rng = np.random.default_rng(4)
  ids = rng.integers(BEGIN, V, (B, T)).astype(np.int32)
  batch = batch_of(ids, ids, np.ones((B, T), np.float32))
  if len(experiment.heads) > 1:
    batch["heads"] = np.ones((B, len(experiment.heads)), np.float32)
  params = draw(experiment)
  experiment = experiment._replace(init=lambda _: params)
  state = make_start(experiment, optax.adam, batch, mesh)(0)
  step = change(partial(make_step(experiment, optax.adam, mesh), rate=1e-3))
  return lambda forbidden: probe(step, state, batch, forbidden, V, mesh), state


REGULARISED = {
  "model__variational_dropout": 0.3,
  "model__recurrent_dropout": 0.3,
  "model__weight_drop": 0.3,
  "model__embedding_size": 8,
  "train__label_smoothing": 0.1,
}


@pytest.mark.parametrize(
  "fields",
  [
    {"data__stateful": True, "model__cell": "gru", **REGULARISED},
    {"task": "gap_model", "model__layers": 2, "model__dropout": 0.3},
    {**ALL, **REGULARISED},
  ],
)
def test_probe_passes_what_does_not_leak(tmp_path, fields):
  # T is above B: positions of the window come in more than one turn.
  assert T > B
  experiment = build(tmp_path, **fields)
  check, state = prepare(experiment)
  before_probe = jax.tree.map(np.array, jax.device_get(state))
  check(experiment.forbidden(T))
  # The state that will train is as it was.
  close(jax.device_get(state), before_probe, 0)


def test_probe_refuses_a_model_that_leaks(tmp_path):
  experiment = leaky(tmp_path)
  check, _ = prepare(experiment)
  with pytest.raises(UserError, match="the model leaks"):
    check(experiment.forbidden(T))


def test_probe_knows_a_device_that_does_not_repeat(tmp_path):
  """One of its first three results has another last bit."""
  results, wrong = itertools.count(1), 0

  def noisy(step):
    def changed(state, batch):
      new, loss = step(state, batch)
      if next(results) == wrong:
        leaf, *others = jax.tree.leaves(new.params)
        leaf = jnp.nextafter(leaf, jnp.inf)
        structure = jax.tree.structure(new.params)
        new = new._replace(params=structure.unflatten([leaf, *others]))
      return new, loss

    return changed

  experiment = build(tmp_path)
  check, _ = prepare(experiment, noisy)
  for number in (1, 2, 3):
    results, wrong = itertools.count(1), number
    with pytest.raises(UserError, match="two equal training steps"):
      check(experiment.forbidden(T))


def test_probe_looks_at_every_output(tmp_path):
  """Outputs of each head in turn are forbidden an input that they read."""
  experiment = build(tmp_path, **ALL, model__cell="rnn_tanh")
  check, _ = prepare(experiment)
  allowed = ~experiment.forbidden(T)
  for n in (0, 1, T + 2, 2 * T + 3, 3 * T - 2):
    forbidden = np.zeros((3 * T, T), bool)
    check(forbidden)
    forbidden[n] = allowed[n]
    with pytest.raises(UserError, match="the model leaks"):
      check(forbidden)


def test_initial_values_of_head_and_embedding(tmp_path):
  experiment = build(
    tmp_path,
    model__hidden_size=64,
    model__embedding_size=128,
    model__embedding_scale=0.3,
    model__initial_scale=0.05,
    model__forget_bias=2.5,
  )
  params = jax.device_get(quick_jit(experiment.init)(jax.random.key(5)))
  kernel = params["head"]["kernel"]
  assert 0.95 * 0.05 < np.abs(kernel).max() <= 0.05
  assert kernel.std() == pytest.approx(0.05 / 3**0.5, rel=0.1)
  table = params["embedding"]["embedding"]
  assert table.std() == pytest.approx(0.3, rel=0.1)
  assert not params["head"]["bias"].any()
  bias = params["body"]["layers_0"]["cell"]["bias"]
  assert (bias[64:128] == 2.5).all() and np.abs(bias[:64]).max() <= 0.05


class Echo(nn.Module):
  """A body that shows the ids it was given, one-hot."""

  def __call__(self, ids_BT, mask_BT, carry, train=False):
    del mask_BT, train
    return carry, jax.nn.one_hot(ids_BT, V)

  def initial_carry(self, batch_size):
    del batch_size
    return ()


def test_symbol_dropout_hides_symbols_and_no_marks():
  rng = np.random.default_rng(6)
  ids = rng.integers(PAD, V, (100, 40))
  params = {
    "head": {"kernel": np.eye(V, dtype=np.float32), "bias": np.zeros(V)}
  }

  def seen(rate, train=True, key=0):
    model = network.SequenceModel(Echo(), V, symbol_dropout=rate)
    _, logits = model.apply(
      {"params": params}, ids, (), train, rngs={"dropout": jax.random.key(key)}
    )
    return np.asarray(logits.argmax(-1))

  noisy, marks = seen(0.3), ids <= UNKNOWN
  assert {PAD, BEGIN, END} < set(ids[marks])
  assert np.array_equal(noisy[marks], ids[marks])
  hidden = noisy != ids
  assert (noisy[hidden] == UNKNOWN).all()
  assert hidden[~marks].mean() == pytest.approx(0.3, abs=0.04)
  assert not np.array_equal(noisy, seen(0.3, key=1))
  assert np.array_equal(seen(0.3, train=False), ids)


def test_nothing_is_random_in_evaluation(tmp_path):
  rng = np.random.default_rng(7)
  ids = rng.integers(BEGIN, V, (B, T))
  batch = batch_of(ids, ids, np.ones((B, T), np.float32))
  fields = {"task": "gap_model", "model__cell": "rnn_tanh"}
  noise = {"model__dropout": 0.5, "model__symbol_dropout": 0.5}
  experiment = build(tmp_path, **fields, **noise)
  params = draw(experiment)
  loss = quick_jit(lambda key: experiment.loss(params, (), batch, key)[0])
  plain = build(tmp_path, **fields)
  expected = quick_jit(lambda: plain.loss(params, (), batch, None)[0])()
  assert loss(None) == expected
  keys = jax.random.split(jax.random.key(8), 2)
  assert len({float(expected), *(float(loss(key)) for key in keys)}) == 3
  assert loss(keys[0]) == loss(keys[0])


class Through(nn.Module):
  """No layers at all."""

  def __call__(self, x_BTD, mask_BT, carry, train=False):
    del mask_BT, train
    return carry, rows(*x_BTD) if isinstance(x_BTD, Lookup) else x_BTD


def test_dropout_of_the_embedding():
  model = network.SequenceModel(Through(), V, embedding_size=64, dropout=0.25)
  ids = np.random.default_rng(9).integers(BEGIN, V, (8, 16))
  shapes = jax.eval_shape(model.init, jax.random.key(0), ids, ())["params"]
  params = normal(np.random.default_rng(0), shapes)
  params["head"] = {"kernel": np.eye(64, V), "bias": np.zeros(V)}
  apply = lambda train: model.apply(
    {"params": params}, ids, (), train, rngs={"dropout": jax.random.key(1)}
  )[1]
  plain, dropped = np.asarray(apply(False)), np.asarray(apply(True))
  alive = dropped != 0
  assert alive.mean() == pytest.approx(0.75, abs=0.05)
  close(dropped[alive], plain[alive] / 0.75, 1e-6)


def test_decoder_of_many_to_one_reads_the_last_window(tmp_path):
  experiment = build(
    tmp_path, data__mapping="many_to_one", model__bidirectional=True
  )
  params = draw(experiment)
  ids = np.random.default_rng(11).integers(BEGIN, V, (B, T + 3))
  predict = quick_jit(experiment.predict)
  carry = experiment.decoder.start(B)
  step = quick_jit(experiment.decoder.step)
  for t in range(T + 3):
    carry, logits_BV = step(params, carry, ids[:, t])
    window = np.full((B, T), PAD)
    last = ids[:, max(0, t + 1 - T) : t + 1]
    window[:, : last.shape[1]] = last
    batch = batch_of(window, ids[:, :1], np.ones((B, 1)))
    close(logits_BV, predict(params, (), batch)[1][:, 0], 1e-5)


def test_carry_goes_from_batch_to_batch_where_it_is_kept(tmp_path):
  experiment = build(tmp_path, data__stateful=True, model__cell="lstm")
  params = draw(experiment)
  rng = np.random.default_rng(12)
  first, second = rng.integers(BEGIN, V, (2, B, T))
  predict = quick_jit(experiment.predict)
  one = np.ones((B, T))
  carry, _ = predict(params, experiment.carry(B), batch_of(first, first, one))
  batch = batch_of(second, second, one)
  batch["reset"] = np.array([False, True] * 2)
  _, found = predict(params, carry, batch)

  both = np.concatenate([first, second], axis=1)
  plain = build(tmp_path, model__cell="lstm")
  logits = lambda ids: quick_jit(plain.predict)(
    params, (), batch_of(ids, ids, np.ones(ids.shape))
  )[1]
  close(found[::2], logits(both)[::2, T:], 1e-5)
  close(found[1::2], logits(second)[1::2], 1e-5)
