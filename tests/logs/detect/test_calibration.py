"""Calibration: the sessions that calibrate, and how they are stored."""

import re

import numpy as np
import pytest

from seqrnn.configs import base
from seqrnn.errors import UserError
from seqrnn.logs.detect import calibration, deployed, inputs
from seqrnn.logs.detect.scores import COMBINED, STANDARD
from seqrnn.logs.detect.selection import ANOMALOUS, NORMAL, UNANSWERED, select
from seqrnn.training import train


@pytest.fixture
def settings():
  settings = base.get_config().detect
  settings.contamination = 0.0
  return settings


def arrays_of(rng, sizes=(80, 90)):
  """The arrays of calibration.npz of sessions with an event each."""
  count = sum(sizes)
  counts = rng.integers(1, 4, count)
  return {
    **{f"score {name}": rng.exponential(size=count) for name in STANDARD},
    "model": np.repeat(np.arange(len(sizes)), sizes),
    "counts": counts,
    "sizes": np.ones(count, np.int64),
    "nll": rng.exponential(size=count).astype(np.float32),
    "event_counts": counts,
    "steps": np.arange(len(sizes)),
    "unknown": rng.random(count) < 0.1,
    "order": rng.permutation(np.repeat(np.arange(count), counts)),
  }


def test_a_deployed_calibration_is_that_of_the_detection(settings):
  rng = np.random.default_rng(1)
  arrays, false = arrays_of(rng), arrays_of(rng, (3, 5))
  false.pop("steps")
  batch = calibration.normal_scores(arrays, settings, further=false)
  used = arrays["counts"].sum() + false["counts"].sum()
  assert batch.scores[COMBINED].n == used
  sessions = np.bincount(batch.arrays["order"])
  np.testing.assert_array_equal(sessions, batch.arrays["counts"])
  stored = {f"calibration {name}": x for name, x in batch.arrays.items()}
  normal = deployed._normal_scores(stored, batch.names)
  new = {name: rng.exponential(size=(2, 50)) for name in STANDARD}
  p = [n.scores[COMBINED].p_values(n.combined(new)) for n in (batch, normal)]
  np.testing.assert_array_equal(*p)


def test_a_fold_trains_as_many_epochs_of_fewer_batches(tmp_path, monkeypatch):
  (tmp_path / "vocabulary.json").write_text("{}")
  config, trained = base.get_config(), []
  config.checkpoint.step, config.train.fit_to_data = 7, "all"

  def fit(build, config, folder):
    del build
    trained.append((config, folder))
    return {"best": 1.0, "best_step": 1, "step": 1}

  monkeypatch.setattr(train, "fit", fit)
  for count, expected in ((10, 8), (1, 1), (None, None)):
    for name in ("batches_per_epoch", "samples_per_epoch"):
      config.train.update({"epochs": 3, name: count})
      folder = tmp_path / "folds" / "2-of-4"
      calibration._train(None, config, folder)
      [(fold, place)] = trained
      assert (fold.train[name], fold.train.epochs) == (expected, 3), count
      assert (fold.data.fold, place) == ("2/4", folder)
      assert fold.checkpoint.step is fold.train.fit_to_data is None
      assert (folder / "vocabulary.json").read_text() == "{}"
      assert config.train[name] == count and config.data.fold is None
      trained.clear()


@pytest.mark.parametrize("contamination", [0.0, 0.2])
def test_anomalous_sessions_calibrate_as_if_they_were_not_there(
  settings, contamination
):
  rng = np.random.default_rng(0)
  settings.update({"contamination": contamination, "scores": "max,mean"})
  arrays = arrays_of(rng, (150, 150))
  # A second mode, in both models.
  mode = np.zeros(300, bool)
  mode[rng.permutation(300)[:40]] = True
  arrays["score max"][mode] += 30
  answers = np.where(rng.random(300) < 0.2, ANOMALOUS, UNANSWERED)
  # Answers do not change what cleaning finds: the mode is left out, however
  # many of its sessions are known.
  answers[np.flatnonzero(mode)[:30]] = ANOMALOUS
  answers[np.flatnonzero(mode)[30:33]] = NORMAL
  normal = calibration.normal_scores(arrays, settings, answers)
  cleaned = mode & (answers == UNANSWERED) & bool(contamination)
  out, counts = (answers == ANOMALOUS) | cleaned, arrays["counts"]
  np.testing.assert_array_equal(normal.selection.calibrates, ~out)
  assert normal.selection.left_out == counts[out].sum()
  assert normal.selection.cleaned == counts[cleaned].sum()
  assert normal.selection.answered(NORMAL) == counts[answers == NORMAL].sum()
  without = {  # Each session has one event.
    name: array[~out] if len(array) == 300 else array
    for name, array in arrays.items()
  }
  row = np.cumsum(~out) - 1
  without["order"] = np.array([row[r] for r in arrays["order"] if not out[r]])
  settings.contamination = 0.0
  expected = calibration.normal_scores(without, settings)
  np.testing.assert_array_equal(normal.arrays["order"], without["order"])
  pairs = [(normal.events, expected.events)]
  pairs += [(normal.scores[n], expected.scores[n]) for n in expected.scores]
  for one, other in pairs:
    for group, same in zip(one.groups, other.groups, strict=True):
      np.testing.assert_array_equal(group.scores, same.scores)
      np.testing.assert_array_equal(group.above, same.above)
  with pytest.raises(UserError, match=r"^review.csv, detect.contam.*=0: leave"):
    select(arrays, 0.0, np.where(arrays["model"] == 1, ANOMALOUS, 0))


def test_a_damaged_archive_is_refused(tmp_path):
  path = tmp_path / "calibration.npz"
  inputs.save_arrays(path, {"nll": np.zeros(3), "sizes": np.array([1, 2])})
  assert inputs.load_arrays(path)["sizes"].tolist() == [1, 2]
  content, refused = path.read_bytes(), 0
  rule = f"^{path}: .*; run --mode=detect again$"
  for i in range(0, len(content), 5):
    path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
    try:  # Times of the archive's parts, say, may change.
      assert inputs.load_arrays(path)["sizes"].tolist() == [1, 2]
    except UserError as error:
      assert re.search(rule, str(error), re.DOTALL), error
      refused += 1
  assert refused > len(content) // 20
  np.savez(path, nll=np.array([{}], object))  # Pickled.
  with pytest.raises(UserError, match=rule):
    inputs.load_arrays(path)
