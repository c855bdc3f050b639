"""Random faults in a loop: whatever comes, a finished run is the right one.

SOAK_MINUTES says for how long, SOAK_SEED which faults; each round prints its
own seed's number, so that it can be repeated.
"""

import os
import random
import signal
import time
from collections import Counter

import pytest

from seqrnn.training.checkpoint import find_damage
from tests.faults.conftest import (
  assert_close_run,
  assert_same_run,
  record,
  steps,
  write_config,
)
from tests.faults.test_damage import add, flip, grow, truncate

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
TASKS = {
  "stateful": {"data.stateful": True, "train.batch_size": 6},
  "windows": {"data.random_offset": True, "data.step": 5},
  "many-to-one": {
    "data.mapping": "many_to_one",
    "data.step": 3,
    "model.bidirectional": True,
  },
  "gap-model": {"task": "gap_model", "data.step": 4, "model.cell": "gru"},
}
FIELDS = {
  "train.epochs": 20,
  "train.max_steps": 120,
  "train.eval_every": 10,
  "checkpoint.every": 4,
  "checkpoint.keep": 3,
  "model.dropout": 0.2,
  "optimizer.name": "rmsprop",
  "schedule.name": "cosine",
}
STATUS = {"KILL": -signal.SIGKILL, "TERM": 143, "INT": 130}
PLACES = ["steps", "evaluation", "save", "orbax", "sums", "rename", "rows"]
HURTS = [flip, truncate, grow, add, os.unlink]


def holds_lock(process, workdir):
  path = workdir / "lock"
  return path.exists() and f" {process.number} " in path.read_text()


def one_round(number, folder, start, references, table):
  """A run from its beginning to its end, through random faults."""
  draw = random.Random(f"{SEED} {number}")
  name = draw.choice(sorted(TASKS))
  changing = draw.random() < 0.4
  devices = draw.choice([1, 1, 2, 4, 8])
  first = 1 if changing else devices
  config = folder / name / "config.json"
  reference = folder / name / f"whole{first}"
  if (name, first) not in references:
    (folder / name).mkdir(exist_ok=True)
    write_config(folder / name, {**FIELDS, **TASKS[name]})
    done = start(config, reference, devices=first).ended()
    assert (done.status, done.err) == (0, ""), done
    references.add((name, first))
  workdir = folder / name / f"round{number}"
  for _ in range(draw.randint(2, 6)):
    fault = draw.choice(["KILL", "KILL", "TERM", "INT", "damage"])
    there = steps(workdir)
    # One stays intact: without any, the run is refused.
    whole = [
      step
      for step in there
      if find_damage(workdir / "checkpoints" / str(step)) is None
    ]
    if fault == "damage" and len(whole) > 1:
      step = draw.choice([whole[-1], draw.choice(whole)])
      files = sorted(
        path
        for path in (workdir / "checkpoints" / str(step)).rglob("*")
        if path.is_file()
      )
      hurt = draw.choice(HURTS)
      hurt(draw.choice(files))
      kind = "the newest" if step == there[-1] else "another"
      table[f"{hurt.__name__} in {kind} checkpoint"] += 1
      continue
    if fault == "damage":
      fault = "KILL"
    place = f"{draw.choice(PLACES)} {draw.randint(1, 8)}"
    here = draw.choice([1, 2, 4, 8]) if changing else devices
    told = {}
    process = start(config, workdir, devices=here, fault=f"{fault} {place}")
    if draw.random() < 0.4:  # From outside, at no place of ours.
      told["goal"] = max(there, default=0) + draw.randint(0, 12)
      end = time.monotonic() + 420
      # Python itself dies of a signal that comes while it starts.
      while (
        not holds_lock(process, workdir)
        or max(steps(workdir), default=0) < told["goal"]
      ):
        if process.struck or not process.runs or time.monotonic() > end:
          break
        time.sleep(draw.uniform(0, 0.01))
      process.send(getattr(signal, f"SIG{fault}"))
    done = process.ended()
    if done.status == 0:
      table[f"{fault} came after the end"] += 1
      continue
    before = done.status == -signal.SIGTERM and not process.struck
    expected = STATUS[fault] if not before else -signal.SIGTERM
    assert done.status == expected, (number, fault, place, told, done)
    assert "Traceback" not in done.err, done
    table[f"{fault} at {place.split()[0]}"] += 1
  done = start(config, workdir, devices=devices).ended()
  assert done.status == 0, (number, done)
  if changing:
    assert_close_run(reference, workdir)
  else:
    assert_same_run(reference, workdir)
  table[f"finished: {'close' if changing else 'same bits'}"] += 1
  record(
    f"soak: {name}, {'1 to 8 devices by turns' if changing else devices}",
    "equal to 1e-5" if changing else "same bits",
  )


@pytest.mark.soak
def test_random_faults_in_a_loop(tmp_path, start):
  end = time.monotonic() + 60 * MINUTES
  references, table = set(), Counter()
  number = 0
  try:
    while number == 0 or time.monotonic() < end:
      try:
        one_round(number, tmp_path, start, references, table)
      except BaseException:
        print(f"round {number} of SOAK_SEED={SEED}")
        raise
      number += 1
  finally:
    print(f"\n{number} rounds")
    for fault, count in sorted(table.items()):
      print(f"{count:6}  {fault}")
