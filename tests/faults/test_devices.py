"""The number of devices changes nothing but the last bits."""

import json

import pytest

from seqrnn import experiments
from tests.faults.conftest import assert_close_run, rows, write_config

pytestmark = pytest.mark.slow

FIELDS = {
  "train.epochs": 9,
  "train.max_steps": 50,
  "train.eval_every": 10,
  "model.dropout": 0.2,
  "model.symbol_dropout": 0.1,
}
STATEFUL = {"data.stateful": True, "train.batch_size": 6}
# 4 and 8 do not divide 6 rows, and the last batch of an epoch is partial.
CASES = {
  "stateful": STATEFUL,
  "many-to-one": {
    "data.mapping": "many_to_one",
    "data.step": 3,
    "model.bidirectional": True,
    "train.batch_size": 7,
  },
  "regularised": {
    "task": "gap_model",
    "data.step": 4,
    "train.batch_size": 6,
    "train.ema": 0.9,
    "train.label_smoothing": 0.1,
    "model.embedding_size": 8,
    "model.variational_dropout": 0.2,
    "model.recurrent_dropout": 0.2,
    "model.weight_drop": 0.2,
  },
  "classification": {  # Which of the texts a line is from.
    "task": "classification",
    "data.format": "files",
    "model.bidirectional": True,
    "model.pooling": "max",
    "train.class_weights": "balanced",
    "train.batch_size": 7,
  },
  "tagging": {
    "task": "tagging",
    "data.format": "spaces",
    "model.bidirectional": True,
    "train.batch_size": 6,
  },
  "polyphony": {
    "task": "polyphony",
    "data.source": "chords",
    "data.path": None,
    "train.batch_size": 6,
    "model.symbol_dropout": 0.0,
    "model.input_noise": 0.1,
  },
  "buckets": {
    "data.buckets": 3,
    "data.repeats": "weight",
    "train.batch_size": 6,
  },
}
# A task without a case of its own has one with the default fields.
_tasks = {case.get("task", "language_model") for case in CASES.values()}
CASES |= {
  name: {"task": name} for name in sorted({*experiments.TASKS} - _tasks)
}
TURNS = [(2, 10), (8, 20), (1, 40), (4, 50)]  # Devices, and up to which step.


def compare(start, folder, fields, counts, turns):
  """Trains on each count of devices, and once with counts that take turns."""
  config = write_config(folder, {**FIELDS, **fields})
  flags = [f"--config={config}"]
  jobs = [[(n, flags, str(folder / str(n)))] for n in counts]
  if turns:
    jobs.append(
      [
        (n, [*flags, f"--config.train.max_steps={stop}"], str(folder / "turns"))
        for n, stop in turns
      ]
    )
  done = start.script("meshes.py", json.dumps(jobs), devices=8).ended()
  assert (done.status, done.err) == (0, ""), done
  for n in {*counts, *(n for n, _ in turns)}:
    assert f"devices: {n} x cpu, " in done.out
  reference = folder / "1"
  assert [row["step"] for row in rows(reference)] == [
    "10",
    "20",
    "30",
    "40",
    "50",
  ]
  losses = json.loads((reference / "losses.json").read_text())
  assert len(losses) == 50 and len(set(losses)) > 40
  for job in jobs[1:]:
    other = folder / job[-1][2]
    found = json.loads((other / "losses.json").read_text())
    assert found == pytest.approx(losses, rel=1e-5), other
    assert_close_run(reference, other)


def test_going_on_with_another_number_of_devices(start, tmp_path):
  compare(start, tmp_path, STATEFUL, [1], [(2, 20), (8, 50)])


@pytest.mark.faults
@pytest.mark.parametrize("name", CASES)
def test_devices_change_nothing(start, tmp_path, name):
  turns = TURNS if name in ("stateful", "regularised") else []
  compare(start, tmp_path, CASES[name], [1, 2, 4, 8], turns)
