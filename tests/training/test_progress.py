"""What a terminal and TensorBoard show of a training, which stays the same."""

import contextlib
import io
import re
import struct

import pytest

from seqrnn import experiments
from seqrnn.errors import escaped
from seqrnn.sampling import texts
from seqrnn.training import train
from tests.conftest import tiny
from tests.modes.test_train import Crash, assert_same_run, build, crash_at, rows

CHANGES = {"train.max_steps": 9, "train.eval_every": 3}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
  """A run on a terminal that crashed after a lost evaluation and went on.

  With its output, and a sample of its last parameters.
  """
  folder = tmp_path_factory.mktemp("shown")
  config = tiny(folder, {**CHANGES, "train.tensorboard": True})
  printed = io.StringIO()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("FORCE_COLOR", "1")  # Rich takes it for a terminal.
    patch.setenv("COLUMNS", "200")
    patch.setattr("sys.stdout", printed)
    with pytest.MonkeyPatch.context() as crash:
      save = train.save  # The disk lies from step 4 on.
      crash.setattr(train, "save", lambda *x: x[2].step > 3 or save(*x))
      crash_at(crash, 8)
      with contextlib.suppress(Crash):
        train.fit(build, config, folder / "run")
    assert [row["step"] for row in rows(folder / "run")] == ["3", "6"]
    train.fit(build, config, folder / "run")
  text = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", printed.getvalue())
  run = experiments.load(folder / "run", 9)
  return run, text, run.sample(length=texts._EXCERPT)[0]


def test_showing_changes_nothing(shown, tmp_path, capsys):
  train.fit(build, tiny(tmp_path, CHANGES), tmp_path / "run")
  assert_same_run(tmp_path / "run", shown[0].workdir, 9)
  assert not (tmp_path / "run" / "tensorboard").exists()
  plain = capsys.readouterr().out
  assert "sample" not in plain and "\x1b" not in plain


def test_a_terminal_shows_best_and_sample(shown):
  run, text, sample = shown
  assert f"  sample: {escaped(sample)}\n" in text
  best = re.findall(r"loss .*  best ([0-9.]+)", text)
  losses = [float(row["validation_loss"]) for row in rows(run.workdir)]
  assert best and set(best) <= {f"{loss:.4f}" for loss in losses}


def points(workdir):
  """Tag -> step -> values, without those that a later session took back."""
  event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
  values = {}
  for path in sorted((workdir / "tensorboard").iterdir()):
    content, place = path.read_bytes(), 0
    while place < len(content):
      [size] = struct.unpack_from("<Q", content, place)
      event = event_pb2.Event.FromString(content[place + 12 :][:size])
      place += 16 + size
      if event.session_log.status == event_pb2.SessionLog.START:
        values = {at: x for at, x in values.items() if at[1] < event.step}
      for value in event.summary.value:
        values.setdefault((value.tag, event.step), []).append(value)
  return values


def test_tensorboard_has_each_evaluation_once(shown):
  run, _, _ = shown
  values = points(run.workdir)
  for row in rows(run.workdir):
    step = int(row.pop("step"))
    for name, figure in row.items():
      tag = re.sub("^(train|validation)_", r"\1/", name)
      [scalar] = values[tag, step]
      assert scalar.simple_value == pytest.approx(float(figure), rel=1e-5)
