"""kill -9: going on is the same, to the bit, as never having been killed."""

import csv
import random
import signal
import time
from collections import Counter

import pytest

from tests.faults.conftest import (
  STATEFUL,
  WINDOWS,
  assert_same_run,
  rows,
  steps,
  write_config,
)

pytestmark = pytest.mark.slow

PLAN = {
  "train.epochs": 3,
  "train.batches_per_epoch": 20,
  "train.eval_every": 10,
  "checkpoint.every": 4,
  "optimizer.name": "rmsprop",
  "schedule.name": "cosine",
}
UNFINISHED = "checkpoints/*.orbax-checkpoint-tmp"
# Exact places, each in another life of the same training. A life begins at the
# newest checkpoint, so a small count is reached in each.
PLACES = [
  "restore 1",
  "replace-vocabulary.json 1",
  "replace-config.json 1",
  "header 1",
  "title 1",
  "steps 7",
  "rows 1",
  "timing 1",
  "evaluation 2",
  "row 1",
  "save 1",
  "orbax 1",
  "replace-metrics.csv 1",
  "sums 1",
  "rename 1",
  "remove 1",
]


@pytest.fixture(
  scope="module",
  params=[
    pytest.param(STATEFUL, id="stateful"),
    pytest.param(WINDOWS, id="windows", marks=pytest.mark.faults),
  ],
)
def whole(request, tmp_path_factory, start):
  """A config, and a run of it that nothing interrupts."""
  folder = tmp_path_factory.mktemp("kill")
  config = write_config(folder, {**PLAN, **request.param})
  process = start(config, folder / "whole")
  return config, folder, process


def finish(start, config, folder, name):
  """Goes on to the end and compares with the run that nothing interrupted."""
  done = start(config, folder / name).ended()
  assert done.status == 0, done
  assert not list(
    (folder / name / "checkpoints").glob("*.orbax-checkpoint-tmp")
  )
  assert set(steps(folder / "whole")) <= set(steps(folder / name))
  assert_same_run(folder / "whole", folder / name)
  with (folder / name / "timing.csv").open(newline="") as file:
    timed = [row["step"] for row in csv.DictReader(file)]
  assert timed == [row["step"] for row in rows(folder / name)]


def kill_at(start, config, workdir, place):
  process = start(config, workdir, fault=f"KILL {place}")
  done = process.ended()
  assert done.status == -signal.SIGKILL, (place, done)
  assert process.struck, place
  return done


def test_two_kills_change_nothing(whole, start):
  config, folder, process = whole
  kill_at(start, config, folder / "two", "orbax 3")
  left = list((folder / "two").glob(UNFINISHED))
  assert left, "it was not killed while it saved"
  kill_at(start, config, folder / "two", "evaluation 3")
  assert process.ended().status == 0
  finish(start, config, folder, "two")


@pytest.mark.faults
def test_a_kill_at_every_place_of_a_training(whole, start):
  config, folder, process = whole
  for place in PLACES:
    done = kill_at(start, config, folder / "places", place)
    lines = done.err.splitlines()
    assert all(
      "is damaged" in line or line.endswith("is used instead") for line in lines
    ), done.err
  assert process.ended().status == 0
  finish(start, config, folder, "places")


KILLS = 20
LONG = {**PLAN, "train.epochs": 40}  # 800 steps: a life gets a 21st of them.


@pytest.mark.faults
@pytest.mark.parametrize(
  "kind", [STATEFUL, WINDOWS], ids=["stateful", "windows"]
)
def test_twenty_kills_at_random_moments(kind, tmp_path, start):
  config = write_config(tmp_path, {**LONG, **kind})
  whole = start(config, tmp_path / "whole")
  draw = random.Random(0)
  workdir = tmp_path / "random"
  kinds = ["steps", "evaluation", "saving", "any"] * (KILLS // 4)
  draw.shuffle(kinds)
  happened = Counter()
  for number, kind in enumerate(kinds):
    if kind in ("steps", "evaluation"):  # At an exact, random place.
      kill_at(start, config, workdir, f"{kind} {draw.randint(1, 20)}")
    else:  # Once it has come so far, at a moment that nobody knows.
      goal = 800 * (number + draw.random()) / (KILLS + 1)
      process = start(config, workdir)
      process.until(lambda g=goal: max(steps(workdir), default=0) >= g)
      if kind == "saving":
        process.until(lambda: any(workdir.glob(UNFINISHED)))
      else:
        time.sleep(draw.uniform(0, 0.05))
      process.send(signal.SIGKILL)
      assert process.ended().status == -signal.SIGKILL
      if any(workdir.glob(UNFINISHED)):
        kind = "saving"
    happened[kind] += 1
  assert min(happened[k] for k in ("steps", "evaluation", "saving")) >= 1
  assert happened.total() == KILLS
  assert whole.ended().status == 0
  finish(start, config, tmp_path, "random")
