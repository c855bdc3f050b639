"""Whole models: their equations, their visible inputs, and the leak probe."""

import itertools
from functools import partial

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from seqrnn import experiments
from seqrnn.data.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiments import language_model as language_task
from seqrnn.models import layers, network
from seqrnn.runtime import sharding
from seqrnn.training.probe import probe
from seqrnn.training.step import make_start, make_step
from tests.conftest import FUSED, tiny
from tests.models.test_cells import EQUATIONS, close, normal, quick_jit
from tests.models.test_layers import before, check_gradients, stack, two

SYMBOLS = {"symbols": Vocabulary("char", tuple("abcde"))}
V = 9
B, T = 4, 5


def build(tmp_path, **fields):
  """An experiment; `model__cell` is model.cell."""
  overrides = {name.replace("__", "."): v for name, v in fields.items()}
  return experiments.build(
    tiny(tmp_path, {**FUSED, "data.window": T, **overrides}), SYMBOLS
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


MODELS = {
  "tied": (
    {
      "model__cell": "gru",
      "model__layers": 2,
      "model__embedding_size": 3,
      "model__tied": True,
    },
    language_model("gru", 2),
  ),
  "pooled": (
    {
      "model__cell": "lstm",
      "data__mapping": "many_to_one",
      "model__bidirectional": True,
    },
    language_model("lstm", pooled=True),
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
  ids[0, 4:] = ids[1, :2] = ids[2, 3:] = PAD
  N = 1 if name == "pooled" else T
  targets = rng.integers(BEGIN, V, (B, N))
  weights = (rng.random((B, N)) < 0.8) * rng.uniform(0.5, 2, (B, N))
  weights[3] = 1
  batch = batch_of(ids, targets, weights)

  @quick_jit
  def run(params):
    loss = lambda params: experiment.loss(params, (), batch, None)[0]
    _, logits_BNV = experiment.predict(params, (), batch)
    return logits_BNV, *jax.value_and_grad(loss)(params)

  logits_BNV, loss, grads = jax.device_get(run(params))
  expected = equations(params, ids)
  valid = np.ones((B, 1), bool) if name == "pooled" else ids != PAD
  assert logits_BNV.dtype == np.float64
  close(logits_BNV[valid], expected[valid])
  close(float(loss), softmax_loss(expected, targets, weights))
  check_gradients(
    grads, lambda p: softmax_loss(equations(p, ids), targets, weights), params
  )


def dependencies(predict, params):
  """bool_ST: whether changing input s changes the logits at t in any bit."""
  rng = np.random.default_rng(3)
  ids = rng.integers(UNKNOWN, V, (1, T)).repeat(T, axis=0)
  changed = ids + np.eye(T, dtype=int)  # Row s: input s is another symbol.
  changed[changed == V] = BEGIN
  one, other = (np.asarray(predict(params, ids)) for ids in (ids, changed))
  return (one != other).any(axis=-1)


def predictor(predict, carry=()):
  """A function of params and ids_BT, with the logits of all symbols."""
  return jax.jit(lambda params, ids: predict(params, carry, rows_of(ids))[1])


def rows_of(ids):
  return batch_of(ids, ids, np.ones(ids.shape, np.float32))


def test_language_model_sees_the_past_and_nothing_else(tmp_path):
  fields = {"model__cell": "gru", "model__layers": 2, "data__stateful": True}
  experiment = build(tmp_path, **fields, model__embedding_size=4)
  predict = predictor(experiment.predict, experiment.carry(T))
  seen = dependencies(predict, draw(experiment))
  s, t = np.indices((T, T))
  assert np.array_equal(seen, s <= t)
  assert np.array_equal(experiment.forbidden(T), seen.T == 0)


def test_gap_model_sees_both_sides_and_never_the_gap(tmp_path):
  fields = {"model__cell": "lstm", "model__layers": 2, "model__merge": "sum"}
  experiment = build(tmp_path, task="gap_model", **fields)
  seen = dependencies(predictor(experiment.predict), draw(experiment))
  s, t = np.indices((T, T))
  assert np.array_equal(seen, s != t)
  assert np.array_equal(experiment.forbidden(T), seen.T == 0)


ALL = {"task": "gap_model", "model__heads": "all"}


def test_each_head_sees_its_side_and_the_forward_head_decodes(tmp_path):
  experiment = build(tmp_path, **ALL, model__layers=2, model__embedding_size=4)
  params = draw(experiment)
  s, t = np.indices((T, T))
  seen = {"joint": s != t, "forward": s < t, "backward": s > t}
  assert list(experiment.heads) == list(seen)
  forward = predictor(experiment.heads["forward"])
  for head, sees in seen.items():
    by = predictor(experiment.heads[head]) if head != "forward" else forward
    assert np.array_equal(dependencies(by, params), sees), head
  forbidden = np.concatenate([~sees.T for sees in seen.values()])
  assert np.array_equal(experiment.forbidden(T), forbidden)

  ids_BT = np.random.default_rng(2).integers(BEGIN, V, (T, T))
  logits_BTV = forward(params, ids_BT)
  step, carry = jax.jit(experiment.decoder.step), experiment.decoder.start(T)
  for t in range(T - 1):
    carry, logits_BV = step(params, carry, ids_BT[:, t])
    close(logits_BV, logits_BTV[:, t + 1], 1e-5)


@pytest.mark.usefixtures("x64")
def test_heads_and_their_loss_equal_equations(tmp_path):
  experiment = build(tmp_path, **ALL, model__cell="gru", model__hidden_size=3)
  params = draw(experiment, np.float64)
  rng = np.random.default_rng(1)
  ids = rng.integers(BEGIN, V, (B, T))
  ids[0, 4:] = ids[1, :2] = PAD
  weights = rng.uniform(0.5, 2, (B, T)) * (ids != PAD)
  counts = rng.uniform(0.5, 2, (B, 3))
  batch = {**batch_of(ids, ids, weights), "heads": counts}

  def equations(p):
    start, step, mask = zeros("gru", B, 1), EQUATIONS["gru"], ids != PAD
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

  each, ((loss, (_, totals)), grads) = jax.device_get(run(params))
  for n, (name, logits) in enumerate(equations(params).items()):
    close(each[name][ids != PAD], logits[ids != PAD])
    total, weight = totals["loss" if name == "joint" else f"{name}_loss"]
    expected = softmax_loss(logits, ids, weights * counts[:, n, None])
    close(float(total / weight), expected)
  close(float(loss), equal_loss(params))
  check_gradients(grads, equal_loss, params)


def leaky(tmp_path):
  """A gap model whose directions mix below the head: layer 1 has both."""
  config = tiny(tmp_path, {**FUSED, "model.cell": "rnn_tanh"})
  both = network.stack(config.model, V, bidirectional=True)
  tower = lambda **how: layers.Before(
    network.stack(config.model, None, **how), **how
  )
  body = layers.Stack(
    [both, layers.Bidirectional(tower(), tower(reverse=True))]
  )
  model = network.sequence_model(config.model, body, V, pooled=False)
  return build(tmp_path, task="gap_model")._replace(
    init=partial(network.init, model),
    loss=partial(language_task.loss, model, 0.0),
  )


class Prepared:
  """Step, state and batch on the 4 devices, as train.run makes them."""

  def __init__(self, experiment):
    self.mesh = sharding.mesh()
    assert self.mesh.size == 4
    ids = np.random.default_rng(4).integers(BEGIN, V, (B, T)).astype(np.int32)
    self.batch = rows_of(ids)
    if len(experiment.heads) > 1:
      heads = np.ones((B, len(experiment.heads)), np.float32)
      self.batch["heads"] = heads
    params = draw(experiment)
    self.experiment = experiment._replace(init=lambda _: params)
    parts = self.experiment, optax.adam
    self.state = make_start(*parts, self.batch, self.mesh)(0)
    self.step = partial(make_step(*parts, self.mesh), rate=1e-3)

  def probe(self, forbidden=None, step=None):
    experiment = self.experiment._replace(batches=lambda *_: [self.batch])
    if forbidden is not None:
      experiment = experiment._replace(forbidden=lambda _: forbidden)
    probe(step or self.step, self.state, experiment, self.mesh)


REGULARISED = {
  "model__variational_dropout": 0.3,
  "model__recurrent_dropout": 0.3,
  "model__weight_drop": 0.3,
  "model__embedding_size": 8,
  "train__label_smoothing": 0.1,
}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
  """A gap model of three heads with everything that draws random numbers."""
  fields = {**ALL, **REGULARISED, "model__cell": "gru", "model__dropout": 0.3}
  return Prepared(build(tmp_path_factory.mktemp("heads"), **fields))


def test_probe_passes_what_does_not_leak(heads):
  # T is above B: positions of the window come in more than one turn.
  assert T > B
  before_probe = jax.tree.map(np.array, jax.device_get(heads.state))
  heads.probe()
  # The state that will train is as it was.
  close(jax.device_get(heads.state), before_probe, 0)


def test_probe_refuses_a_model_that_leaks(tmp_path):
  with pytest.raises(UserError, match="the model leaks"):
    Prepared(leaky(tmp_path)).probe()


def test_probe_knows_a_device_that_does_not_repeat(heads):
  """One of its first three results has another last bit."""

  def noisy(wrong):
    results = itertools.count(1)

    def changed(state, batch):
      new, loss = heads.step(state, batch)
      if next(results) == wrong:
        leaves, structure = jax.tree.flatten(jax.device_get(new.params))
        leaves[0] = np.nextafter(leaves[0], np.float32(np.inf))
        new = new._replace(params=structure.unflatten(leaves))
      return new, loss

    return changed

  for number in (1, 2, 3):
    with pytest.raises(UserError, match="two equal training steps"):
      heads.probe(step=noisy(number))


def test_probe_looks_at_every_output(heads):
  """Outputs of each head in turn are forbidden an input that they read."""
  allowed, none = ~heads.experiment.forbidden(T), np.zeros((3 * T, T), bool)
  heads.probe(none)
  for n in (0, 1, T + 2, 2 * T + 3, 3 * T - 2):
    forbidden = none.copy()
    forbidden[n] = allowed[n]
    with pytest.raises(UserError, match="the model leaks"):
      heads.probe(forbidden)


class Echo(nn.Module):
  """A body that shows the ids it was given, one-hot."""

  def __call__(self, ids_BT, _mask_BT, carry, _train):
    return carry, jax.nn.one_hot(ids_BT, V)


def test_symbol_dropout_hides_symbols_and_no_marks():
  ids = np.random.default_rng(6).integers(PAD, V, (100, 40))
  model = network.SequenceModel(Echo(), V, symbol_dropout=0.3)
  params = {"head": {"kernel": np.eye(V), "bias": np.zeros(V)}}

  @quick_jit
  def seen(key):
    return network.apply(model, params, ids, (), key)[1].argmax(-1)

  noisy, other = map(np.asarray, map(seen, jax.random.split(jax.random.key(0))))
  marks, hidden = ids <= UNKNOWN, noisy != ids
  assert {PAD, BEGIN, END} < set(ids[marks])
  assert np.array_equal(noisy[marks], ids[marks])
  assert (noisy[hidden] == UNKNOWN).all()
  assert hidden[~marks].mean() == pytest.approx(0.3, abs=0.04)
  assert not np.array_equal(noisy, other)


def test_decoder_of_many_to_one_reads_the_last_window(tmp_path):
  experiment = build(
    tmp_path, data__mapping="many_to_one", model__bidirectional=True
  )
  params = draw(experiment)
  ids = np.random.default_rng(11).integers(BEGIN, V, (B, T + 3))
  predict = predictor(experiment.predict)
  carry = experiment.decoder.start(B)
  step = quick_jit(experiment.decoder.step)
  for t in range(T + 3):
    carry, logits_BV = step(params, carry, ids[:, t])
    window = np.full((B, T), PAD)
    last = ids[:, max(0, t + 1 - T) : t + 1]
    window[:, : last.shape[1]] = last
    close(logits_BV, predict(params, window)[:, 0], 1e-5)


def test_padding_at_either_end_changes_no_label(tmp_path):
  labels = Vocabulary("id", ("x", "y"))
  fields = {
    "task": "classification",
    "model.pooling": "attention",
    "model.convolution": 4,
    "model.embedding_size": 3,
    "model.bidirectional": True,
  }
  experiment = experiments.build(
    tiny(tmp_path, fields), {**SYMBOLS, "labels": labels}
  )
  params, ids = draw(experiment), [5, 6, 7, 4]
  rows = [[0, 0, 0, *ids], [*ids, 0, 0, 0], [0, *ids, 0, 0], [0] * 7]
  batch = rows_of(np.array(rows))
  _, logits = jax.device_get(jax.jit(experiment.predict)(params, (), batch))
  close = np.testing.assert_allclose
  close(logits[1:3], logits[:1].repeat(2, 0), 1e-6, 1e-6)
  assert np.isfinite(logits[..., 4:]).all() and np.ptp(logits[[0, 3], 0, 4]) > 0
