"""Polyphony: its loss by hand, its inputs, and sampled music."""

import json

import jax
import numpy as np
import pytest
from flax import linen as nn

from seqrnn import cli, experiments
from seqrnn.data.read.music import NOTES
from seqrnn.errors import UserError
from seqrnn.models import network
from seqrnn.run import load_run
from seqrnn.runtime import sharding
from seqrnn.scoring.evaluation import examiner
from seqrnn.training import train
from tests.conftest import random_params, tiny
from tests.data.read.test_music import draw, numbers
from tests.models.test_cells import EQUATIONS
from tests.models.test_layers import chances, nade_logits, stack
from tests.models.test_network import zeros
from tests.sampling.test_music import read_midi

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


def write_config(folder, **overrides):
  """A config that trains in seconds, and its music below `folder`."""
  path = folder / "music.json"
  content = {name: numbers(pieces) for name, pieces in PIECES.items()}
  path.write_text(json.dumps(content))
  fields = {"task": "polyphony", "data.path": str(path), "data.window": 7}
  return tiny(folder, {**fields, **overrides})


def logits_of(params, piece, depth):
  """The equations, over a whole piece in float64: logits [frames, 88]."""
  p = jax.tree.map(np.float64, params)
  x_BTV = piece[None].astype(np.float64)
  mask_BT = np.ones((1, len(piece)), bool)
  start = zeros("lstm", 1, depth, size=8)
  _, y_BTH = stack(EQUATIONS["lstm"], p["body"], x_BTV, mask_BT, start)
  return (y_BTH @ p["head"]["kernel"] + p["head"]["bias"])[0]


def test_the_loss_is_that_of_frames_2_to_T_with_their_whole_past(tmp_path):
  config = write_config(tmp_path, **{"model.layers": 2})
  experiment = experiments.build(config, None)
  params = random_params(experiment, 0, 0.3)
  frames, hits, either, surprisals = 0, 0, 0, []
  for piece in PIECES["test"]:
    if len(piece) > 1:
      p = 1 / (1 + np.exp(-logits_of(params, piece[:-1], 2)))
      true = piece[1:] == 1
      surprisals += [*-np.log(np.where(true, p, 1 - p)).sum(1)]
      frames += len(p)
      hits += np.sum(true & (p > 0.5))
      either += np.sum(true | (p > 0.5))
  assert frames == sum(max(n - 1, 0) for n in SIZES["test"])
  mesh = sharding.mesh()
  everywhere = jax.device_put(params, sharding.replicated(mesh))
  figures, _ = examiner(experiment, mesh)(
    everywhere, experiment.batches("test", 0)
  )
  assert figures == {
    "loss": pytest.approx(np.sum(surprisals) / frames, rel=1e-5),
    "accuracy": pytest.approx(hits / either, rel=1e-5),
  }
  # The same frame by frame.
  carry, scores = jax.tree.map(np.array, experiment.carry(4)), []
  score = jax.jit(experiment.score)
  for batch in experiment.batches("test", 0):
    carry, nll_BT = score(params, carry, batch)
    scores += np.asarray(nll_BT)[batch["weights"] > 0].tolist()
  np.testing.assert_allclose(sorted(scores), sorted(surprisals), rtol=1e-4)
  # The decoder reads one frame after the other.
  piece = PIECES["test"][1]
  carry, step = experiment.decoder.start(2), jax.jit(experiment.decoder.step)
  for frame, logits in zip(piece, logits_of(params, piece, 2), strict=True):
    carry, logits_BV = step(params, carry, np.stack([frame, frame]))
    np.testing.assert_allclose(logits_BV, [logits] * 2, atol=1e-5)


def test_in_training_each_frame_but_a_first_is_a_target_once(tmp_path):
  expected = sorted(f.tobytes() for p in PIECES["train"] for f in p[1:])
  for stateful, window in ((False, 100), (True, 3)):
    fields = {"data.stateful": stateful, "data.window": window}
    experiment = experiments.build(write_config(tmp_path, **fields), None)
    targets = []
    for batch in experiment.batches("train", 3):
      used = batch["weights"] > 0
      targets += [frame.tobytes() for frame in batch["targets"][used]]
      if window == 100:
        assert used.shape == (4, 29)  # No longer than the longest piece.
    assert sorted(targets) == expected


def test_a_model_that_leaks_is_not_trained(tmp_path):
  def leaky(config, vocabularies):
    good = experiments.build(config, vocabularies)

    def loss(params, carry, batch, key):
      turned = {**batch, "inputs": batch["inputs"][:, ::-1]}
      return good.loss(params, carry, turned, key)

    return good._replace(loss=loss)

  config = write_config(tmp_path, **{"model.cell": "rnn_tanh"})
  with pytest.raises(UserError, match="the model leaks"):
    train.fit(leaky, config, tmp_path / "leaky")
  assert not (tmp_path / "leaky/config.json").exists()


class Same(nn.Module):
  """Layers that change nothing."""

  def __call__(self, x_BTD, _, carry, __):
    return carry, x_BTD


def test_input_noise_is_gaussian_and_in_training_only():
  model = network.SequenceModel(Same(), NOTES, input_noise=0.3)
  head = {"kernel": np.eye(NOTES), "bias": np.zeros(NOTES)}
  notes = np.ones((4, 50, NOTES), np.uint8)
  both = jax.jit(
    lambda key: [
      network.apply(model, {"head": head}, notes, (), key)[1]
      for key in (None, key)
    ]
  )
  plain, noisy = map(np.asarray, both(jax.random.key(0)))
  np.testing.assert_array_equal(plain, notes)
  noise = (noisy - 1).ravel() / 0.3
  assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
  assert abs(np.mean(np.abs(noise) < 1) - 0.683) < 0.02


def test_the_loss_of_a_nade_is_that_of_whole_frames(tmp_path):
  experiment = experiments.build(
    write_config(tmp_path, **{"model.nade": 3}), None
  )
  params, piece = random_params(experiment, 0, 0.3), PIECES["valid"][1]
  [batch] = experiment.batches("validation", 0)
  _, nll_BT = jax.jit(experiment.score)(params, experiment.carry(1), batch)
  biases = logits_of(params, piece[:-1], 1)
  logits = [*map(nade_logits, [params["nade"]] * 2, biases, piece[1:])]
  expected = -np.log(chances(np.array(logits), piece[1:]))
  np.testing.assert_allclose(nll_BT[batch["weights"] > 0], expected, 1e-4)


LONG = {
  "data.stateful": True,
  "model.nade": 4,
  "model.dropout": 0.2,
  "model.input_noise": 0.3,
  "train.max_steps": 4,
  "train.eval_every": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The workdir of a run of four steps."""
  folder = tmp_path_factory.mktemp("polyphony")
  train.fit(experiments.build, write_config(folder, **LONG), folder / "run")
  return folder / "run"


def test_a_resumed_run_equals_one_without_a_stop(tmp_path, folder):
  for stop in (2, 4):
    config = write_config(tmp_path, **LONG | {"train.max_steps": stop})
    train.fit(experiments.build, config, tmp_path / "run")
  expected, resumed = (
    (workdir / "metrics.csv").read_bytes()
    for workdir in (folder, tmp_path / "run")
  )
  assert resumed == expected and expected.count(b"\n") == 3


@pytest.mark.usefixtures("rendered")
def test_sampled_music_is_written_and_repeats(folder, capfd):
  flags = {"length": 40, "streams": 2, "temperature": "0.5,1", "prime": "1:9"}
  line = ["run.py", f"--workdir={folder}", "--mode=sample"]
  line += [f"--config.sample.{name}={value}" for name, value in flags.items()]
  assert cli.main(line) == 0, capfd.readouterr().err
  run = load_run(folder)
  settings = {"length": 40, "streams": 2, "temperature": (0.5, 1.0)}
  pieces = run.sample("1:9", **settings)
  names = [f"music-{t}-{n}" for t in ("0.5", "1") for n in (1, 2)]
  for name, notes in zip(names, pieces, strict=True):
    assert (folder / f"{name}.png").exists()
    assert notes.shape == (49, NOTES)
    np.testing.assert_array_equal(notes[:9], PIECES["test"][1][:9])
    np.testing.assert_array_equal(read_midi(folder / f"{name}.mid")[0], notes)
  assert (pieces[2] != pieces[3]).any()
  assert (run.sample("1:9", **settings, seed=1)[0] != pieces[0]).any()
  short = {"length": 5, "streams": 2}
  assert run.sample("4", **short)[1].shape == (8 + 5, NOTES)
  assert run.sample(**short)[1].shape == (5, NOTES)  # From silence.
