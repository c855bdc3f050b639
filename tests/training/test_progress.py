"""What a terminal and TensorBoard show of a training, which stays the same."""

import io
import re
import struct

import pytest

from seqrnn.training import progress, train
from tests.conftest import tiny
from tests.modes.test_train import assert_same_run, build, rows

CHANGES = {"train.max_steps": 9, "train.eval_every": 3}


def points(folder):
  """(tag, step) -> the value, of the files of TensorBoard in a folder."""
  event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
  values = {}
  for path in folder.iterdir():
    content, place = path.read_bytes(), 0
    while place < len(content):
      [size] = struct.unpack_from("<Q", content, place)
      event = event_pb2.Event.FromString(content[place + 12 :][:size])
      place += 16 + size
      for value in event.summary.value:
        values[value.tag, event.step] = value.simple_value
  return values


def test_what_is_shown_is_the_run_and_changes_nothing(
  tmp_path, capsys, monkeypatch
):
  config, shown = tiny(tmp_path, CHANGES), io.StringIO()
  train.fit(build, config, tmp_path / "plain")
  assert "\x1b" not in capsys.readouterr().out
  monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes it for a terminal.
  monkeypatch.setenv("COLUMNS", "200")
  monkeypatch.setattr("sys.stdout", shown)
  monkeypatch.setattr(progress, "_BAR_SECONDS", 0)  # Steps may be fast.
  config.train.tensorboard = True
  train.fit(build, config, tmp_path / "run")
  assert_same_run(tmp_path / "run", tmp_path / "plain", 9)
  text = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", shown.getvalue())
  best = re.findall(r"loss .*  best ([0-9.]+)", text)
  values = points(tmp_path / "run" / "tensorboard")
  losses = [float(row["validation_loss"]) for row in rows(tmp_path / "run")]
  assert best and set(best) <= {f"{loss:.4f}" for loss in losses}
  for loss, step in zip(losses, (3, 6, 9), strict=True):
    assert values["validation/loss", step] == pytest.approx(loss, rel=1e-5)
