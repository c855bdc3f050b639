"""What is written for TensorBoard, read as it reads it."""

import struct

import jax
import numpy as np
import pytest
from conftest import tiny
from test_train import Crash, crash_at, rows

import experiments
from seqrnn import train

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


def values(workdir):
  """Tag -> step -> values; those that a later training took back are out."""
  kept = []
  for path in sorted((workdir / "tensorboard").iterdir()):
    content, place = path.read_bytes(), 0
    while place < len(content):
      [size] = struct.unpack_from("<Q", content, place)
      event = event_pb2.Event.FromString(content[place + 12 :][:size])
      place += 16 + size
      if event.session_log.status == event_pb2.SessionLog.START:
        kept = [old for old in kept if old.step < event.step]
      kept.append(event)
  found = {}
  for event in kept:
    for value in event.summary.value:
      steps = found.setdefault(value.tag, {})
      steps.setdefault(event.step, []).append(value)
  return found


def test_each_evaluation_has_its_points_once(tmp_path, monkeypatch):
  config = tiny(
    tmp_path,
    {
      "train.tensorboard": True,
      "train.max_steps": 6,
      "train.eval_every": 2,
      "model.dropout": 0.2,
    },
  )
  with monkeypatch.context() as patch:
    save = train.save  # The disk lies from step 3 on.
    patch.setattr(train, "save", lambda *x: x[2].step > 2 or save(*x))
    crash_at(patch, 5)
    with pytest.raises(Crash):
      train.run(experiments.build, config, tmp_path / "run")
  assert len(rows(tmp_path / "run")) == 2
  train.run(experiments.build, config, tmp_path / "run")

  found = values(tmp_path / "run")
  table = rows(tmp_path / "run")
  assert [row["step"] for row in table] == ["2", "4", "6"]
  for name in table[0]:
    tag = name.replace("train_", "train/").replace("validation_", "validation/")
    if name == "step":
      continue
    expected = {int(row["step"]): float(row[name]) for row in table}
    points = {
      step: [x.simple_value for x in v] for step, v in found[tag].items()
    }
    assert points == {
      s: [pytest.approx(v, rel=1e-5)] for s, v in expected.items()
    }
  run = experiments.load(tmp_path / "run", 6)
  [sample] = run.sample(length=60)
  [text] = found["sample/text_summary"][6]
  lines = text.tensor.string_val[0].decode().split("\n")
  assert [line.removeprefix("    ") for line in lines] == sample.split("\n")
  [histogram] = found["parameters/head/bias"][6]
  bias = run.params["head"]["bias"]
  assert histogram.histo.num == bias.size
  assert histogram.histo.sum == pytest.approx(float(np.sum(bias)), rel=1e-4)
  names = [tag for tag in found if tag.startswith("parameters/")]
  assert len(names) == len(jax.tree.leaves(run.params))
