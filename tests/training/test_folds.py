"""Folds: models that train side by side, each on some documents of a run."""

import random
import signal
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.config.resolve import total_steps
from seqrnn.data import splits
from seqrnn.data.vocabulary import PAD, RESERVED
from seqrnn.errors import Interrupted
from seqrnn.runtime import sharding
from seqrnn.training import checkpoint, folds, setup, step
from tests.conftest import tiny

FIELDS = {
  "data.unit": "session",
  "data.split": "documents",
  "data.validation_fraction": 0.1,
  "data.test_fraction": 0.0,
  "data.window": 6,
  "data.repeats": "weight",
  "model.symbol_dropout": 0.1,
  "train.batch_size": 16,
  "train.epochs": 9,
}
LAST = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A config, its experiment, its training texts, and which train 3 models."""
  folder, rng = tmp_path_factory.mktemp("folds"), random.Random(0)
  texts = [" ".join(rng.choices("abc", k=rng.randint(1, 4))) for _ in range(90)]
  (folder / "sessions.txt").write_text("\n".join(texts))
  config: Any = tiny(
    folder, {**FIELDS, "data.path": str(folder / "sessions.txt")}
  )
  config_lib.expand(config)
  experiment = experiments.build(config, None)
  documents = splits.reader(config)("train").documents()
  texts = [" ".join(document.symbols) for document in documents]
  fold_of = np.array([rng.randint(-1, 2) for _ in texts])
  trains_KD = (fold_of != np.arange(3)[:, None]) & (fold_of >= 0)
  return config, experiment, texts, trains_KD


def fit(run, folder, last=LAST):
  """The parameters of the models that are trained, as NumPy arrays."""
  config, experiment, _, trains_KD = run
  folders = [folder / str(k) for k in range(len(trains_KD))]
  folds.fit_folds(
    lambda *_: experiment, config, experiment, folders, trains_KD, last
  )
  each = [checkpoint.restore_params(x, last, experiment)[0] for x in folders]
  return [jax.tree.map(np.asarray, params) for params in each]


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
  return fit(run, tmp_path_factory.mktemp("trained"))


def test_each_model_is_as_if_it_were_trained_alone_on_one_device(run, trained):
  """Each row counts the equal texts that train the model."""
  config, experiment, texts, trains_KD = run
  mesh = sharding.one_device()
  epoch = experiment.batches("train", 0)
  assert len(epoch) < LAST  # Several epochs.
  length = partial(
    step.Length, epoch=len(epoch), total=total_steps(config, len(epoch))
  )
  plan = lambda rate: step.make_schedule(config, length(rate))
  optimizer = lambda rate: step.make_optimizer(config, plan(rate))
  update = step.make_step(experiment, optimizer, mesh)
  start = step.make_start(experiment, optimizer, epoch[0], mesh)
  names = [None] * len(RESERVED) + [*experiment.vocabularies["symbols"].symbols]
  for trains_D, params in zip(trains_KD, trained, strict=True):
    own = [text for text, trains in zip(texts, trains_D, strict=True) if trains]
    assert 0 < len({*own}) < len({*texts})
    state = start(np.uint32(config.seed))
    for n in range(LAST):
      batch = experiment.batches("train", n // len(epoch))[n % len(epoch)]
      rows = [[names[x] for x in row] for row in batch["targets"]]
      counts = [own.count(" ".join(filter(None, row))) for row in rows]
      weights_BT = (batch["targets"] != PAD) * np.array(counts)[:, None]
      batch["weights"] = weights_BT.astype(np.float32)
      batch = sharding.put(batch, epoch.batch_size, mesh)
      state, _ = update(state, batch, config.optimizer.learning_rate)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
      params,
      jax.device_get(state.params),
    )


def test_a_stopped_training_resumes_all_models_bit_for_bit(
  run, trained, tmp_path, monkeypatch
):
  """A kill may leave some models a checkpoint ahead of others."""
  save, saved = setup.save, []

  def killed(training, state, position):
    saved.append(training.workdir.name)
    if len(saved) == 5:
      raise MemoryError
    save(training, state, position)

  with monkeypatch.context() as patch:
    patch.setattr(folds, "_SAVE_SECONDS", 0.0)
    patch.setattr(setup, "save", killed)
    with pytest.raises(MemoryError):
      fit(run, tmp_path)
  newest = [checkpoint.newest(tmp_path / f"{k}/checkpoints") for k in range(3)]
  assert newest == [2, 1, 1]
  shown = folds.Progress.step

  def stopped(*args):
    signal.raise_signal(signal.SIGTERM)
    return shown(*args)

  with monkeypatch.context() as patch:
    patch.setattr(folds.Progress, "step", stopped)
    with pytest.raises(Interrupted, match="SIGTERM and saved at step 2 of 5"):
      fit(run, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, fit(run, tmp_path), trained)
