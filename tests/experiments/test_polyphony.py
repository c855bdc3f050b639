"""Polyphony: its loss by hand, its inputs, and sampled music."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from seqrnn import cli, experiments
from seqrnn.data.read.music import NOTES
from seqrnn.errors import UserError
from seqrnn.models import network
from seqrnn.runtime import sharding
from seqrnn.scoring.evaluation import evaluator
from seqrnn.training import train
from tests.conftest import tiny
from tests.data.read.test_midi import read as read_midi
from tests.data.read.test_music import draw, numbers
from tests.models.test_cells import EQUATIONS, normal
from tests.models.test_layers import stack
from tests.models.test_network import zeros

# One of a single frame, one longer than any window, more than there are rows.
SIZES = {
  "train": (9, 1, 30, 4, 2),
  "valid": (1, 3),
  "test": (5, 23, 2, 1, 8, 2),
}
PIECES = {
  name: draw(np.random.default_rng(seed), sizes)
  for seed, (name, sizes) in enumerate(SIZES.items())
}

LONG = {
  "data.stateful": True,
  "model.dropout": 0.2,
  "model.input_noise": 0.3,
  "train.max_steps": 4,
  "train.eval_every": 2,
}


def write_config(folder, overrides=None):
  """A config that trains in seconds, and its music below `folder`."""
  path = folder / "music.json"
  content = {name: numbers(pieces) for name, pieces in PIECES.items()}
  path.write_text(json.dumps(content))
  fields = {"task": "polyphony", "data.path": str(path), "data.window": 7}
  return tiny(folder, {**fields, **(overrides or {})})


def build(folder, overrides=None):
  return experiments.build(write_config(folder, overrides), None)


def random_params(experiment):
  shapes = jax.eval_shape(experiment.init, jax.random.key(0))
  params = normal(np.random.default_rng(0), shapes, scale=0.3)
  return jax.tree.map(np.float32, params)


def logits_of(params, piece, cell, depth):
  """The equations, over a whole piece in float64: logits [frames, 88]."""
  p = jax.tree.map(np.float64, params)
  x_BTV = piece[None].astype(np.float64)
  mask_BT = np.ones((1, len(piece)), bool)
  start = zeros(cell, 1, depth, size=8)
  _, y_BTH = stack(EQUATIONS[cell], p["body"], x_BTV, mask_BT, start)
  return (y_BTH @ p["head"]["kernel"] + p["head"]["bias"])[0]


@pytest.mark.parametrize(
  ("cell", "depth", "fields"),
  [("lstm", 2, {}), ("gru", 1, {"data.stateful": True, "data.window": 4})],
)
def test_the_loss_is_that_of_frames_2_to_T_with_their_whole_past(
  tmp_path, cell, depth, fields
):
  model = {"model.cell": cell, "model.layers": depth}
  experiment = build(tmp_path, {**model, **fields})
  params = random_params(experiment)
  nll, frames, hits, either, surprisals = 0.0, 0, 0, 0, []
  for piece in PIECES["test"]:
    logits = (
      logits_of(params, piece[:-1], cell, depth) if len(piece) > 1 else []
    )
    for t, logit in enumerate(logits):
      p = 1 / (1 + np.exp(-logit))
      true = piece[t + 1] == 1
      surprisals.append(-np.log(np.where(true, p, 1 - p)).sum())
      nll += surprisals[-1]
      frames += 1
      hits += np.sum(true & (p > 0.5))
      either += np.sum(true | (p > 0.5))
  assert frames == sum(max(n - 1, 0) for n in SIZES["test"])
  mesh = sharding.mesh()
  everywhere = jax.device_put(params, sharding.replicated(mesh))
  figures = evaluator(experiment, mesh)(
    everywhere, experiment.batches("test", 0)
  )
  assert figures == {
    "loss": pytest.approx(nll / frames, rel=1e-5),
    "accuracy": pytest.approx(hits / either, rel=1e-5),
  }
  # The same frame by frame, of pieces that are given.
  carry, found = experiment.carry(4), []
  for batch in experiment.batches(PIECES["test"], 0):
    carry, nll_BT = jax.jit(experiment.score)(params, carry, batch)
    found += np.asarray(nll_BT)[batch["weights"] > 0].tolist()
  np.testing.assert_allclose(sorted(found), sorted(surprisals), rtol=1e-4)


@pytest.mark.parametrize(("stateful", "window"), [(False, 100), (True, 3)])
def test_in_training_each_frame_but_a_first_is_a_target_once(
  tmp_path, stateful, window
):
  fields = {"data.stateful": stateful, "data.window": window}
  experiment = build(tmp_path, fields)
  expected = sorted(f.tobytes() for p in PIECES["train"] for f in p[1:])
  targets = []
  for batch in experiment.batches("train", 3):
    used = batch["weights"] > 0
    targets += [frame.tobytes() for frame in batch["targets"][used]]
    if window == 100 and not stateful:
      assert used.shape == (4, 29)  # No longer than the longest piece.
  assert sorted(targets) == expected


def test_a_model_that_leaks_is_not_trained(tmp_path):
  def leaky(config, vocabularies):
    good = experiments.build(config, vocabularies)

    def loss(params, carry, batch, key):
      turned = {**batch, "inputs": batch["inputs"][:, ::-1]}
      return good.loss(params, carry, turned, key)

    return good._replace(loss=loss)

  config = write_config(tmp_path, {"train.max_steps": 1})
  with pytest.raises(UserError, match="the model leaks"):
    train.fit(leaky, config, tmp_path / "leaky")
  assert not (tmp_path / "leaky/config.json").exists()


class Same(nn.Module):
  """Layers that change nothing."""

  def __call__(self, x_BTD, _, carry, __):
    return carry, x_BTD


def test_input_noise_is_gaussian_and_in_training_only():
  model = network.NoteModel(body=Same(), notes=NOTES, input_noise=0.3)
  eye = {"kernel": np.eye(NOTES), "bias": np.zeros(NOTES)}
  notes = jnp.ones((4, 50, NOTES), jnp.uint8)
  _, plain = network.apply(model, {"head": eye}, notes, ())
  np.testing.assert_array_equal(plain, notes)
  _, noisy = network.apply(model, {"head": eye}, notes, (), jax.random.key(0))
  noise = (np.asarray(noisy) - 1).ravel() / 0.3
  assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
  assert abs(np.mean(np.abs(noise) < 1) - 0.683) < 0.02


def test_the_decoder_equals_the_model_on_the_whole_piece(tmp_path):
  experiment = build(tmp_path)
  params = random_params(experiment)
  piece = PIECES["test"][1]
  expected = logits_of(params, piece, "lstm", 1)
  carry, step = experiment.decoder.start(2), jax.jit(experiment.decoder.step)
  for frame, logits in zip(piece, expected, strict=True):
    carry, logits_BV = step(params, carry, np.stack([frame, frame]))
    np.testing.assert_allclose(logits_BV, [logits] * 2, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The workdir of a run of four steps."""
  folder = tmp_path_factory.mktemp("polyphony")
  train.fit(experiments.build, write_config(folder, LONG), folder / "run")
  return folder / "run"


def test_a_resumed_run_equals_one_without_a_stop(tmp_path, folder):
  for stop in (2, 4):
    config = write_config(tmp_path, {**LONG, "train.max_steps": stop})
    train.fit(experiments.build, config, tmp_path / "run")
  expected, found = (
    (workdir / "metrics.csv").read_bytes()
    for workdir in (folder, tmp_path / "run")
  )
  assert found == expected and expected.count(b"\n") == 3


def test_sampled_music_is_written_and_repeats(folder, capfd):
  line = [
    "run.py",
    f"--workdir={folder}",
    "--mode=sample",
    "--config.sample.length=70",
    "--config.sample.streams=2",
    "--config.sample.temperature=0.5,1",
    "--config.sample.prime=1:9",
  ]
  assert cli.main(line) == 0, capfd.readouterr().err
  names = [f"music-{t}-{n}" for t in ("0.5", "1") for n in (1, 2)]
  trained = experiments.load(folder)
  settings = {"length": 70, "streams": 2, "temperature": (0.5, 1.0)}
  made = trained.sample("1:9", **settings)
  assert len(made) == 4
  for name, notes in zip(names, made, strict=True):
    assert (folder / f"{name}.png").exists()
    assert notes.shape == (79, NOTES)
    np.testing.assert_array_equal(notes[:9], PIECES["test"][1][:9])
    np.testing.assert_array_equal(read_midi(folder / f"{name}.mid")[0], notes)
  assert (made[2] != made[3]).any()
  assert (trained.sample("1:9", **settings, seed=1)[0] != made[0]).any()
  short = {"length": 5, "streams": 2}
  assert trained.sample("4", **short)[1].shape == (8 + 5, NOTES)
  assert trained.sample(**short)[1].shape == (5, NOTES)  # From silence.


def test_settings_of_symbols_are_refused_by_a_run(folder, capfd):
  trained = experiments.load(folder)
  rule = "must be a piece of the test split, 0 to 5, or the first"
  for prime in ("6", "-1", "x", "1:0", ":3", "9" * 50):
    with pytest.raises(UserError, match=f"sample.prime='{prime}': {rule}"):
      trained.sample(prime)
  with pytest.raises(UserError, match="config.sample.top_k=3: has no effect"):
    trained.sample(top_k=3)
  with pytest.raises(UserError, match="'polyphony' has no symbols to predict"):
    trained.score("text")
  assert cli.main(["run.py", f"--workdir={folder}", "--mode=predict"]) == 2
  assert "its modes are train, evaluate, sample" in capfd.readouterr().err


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("model.bidirectional", True),
    ("model.embedding_size", 8),
  ],
)
def test_settings_of_symbols_are_refused(tmp_path, field, value):
  rule = f"{field}={value!r} with task='polyphony': .* must be"
  with pytest.raises(UserError, match=rule):
    build(tmp_path, {field: value})
