"""Golden values: ten steps of each task give the numbers recorded here.

A change that is not meant to touch the arithmetic must leave them as they are.
To renew them after a change that is, run

    python -m tests.test_golden

and paste what it prints over VALUES; the commit says why they changed.
"""

import json
import random
import tempfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from seqrnn import experiments
from seqrnn.runtime import sharding
from seqrnn.training import step as step_lib
from seqrnn.training.step import make_start, make_step
from tests.conftest import FUSED, tiny

STEPS = 10
RATE = 0.01
TEXT = "the cat sat on the mat, the dog sat on the log. "
FIELDS = {
  "language_model": {},
  "gap_model": {},
  "classification": {"data.format": "files"},
  "tagging": {"data.format": "spaces"},
  "polyphony": {},
}
# Mean loss and gradient norm of the steps, and the sum of the parameters.
VALUES = {
  "classification": [2.363881, 0.5650021, 4.566164],
  "gap_model": [2.821968, 0.3290442, 16.04316],
  "language_model": [2.841446, 0.3198989, 15.34999],
  "polyphony": [56.40768, 5.662665, 10.61217],
  "tagging": [0.6481698, 0.1661616, 14.25416],
}


def write_data(task: str, folder: Path) -> str:
  """Writes the task's data; returns the value of `data.path`."""
  rng = random.Random(0)
  folder.mkdir(parents=True, exist_ok=True)
  if task == "polyphony":
    pieces = [[[40 + n % 12, 52 + n % 7] for n in range(30)] for _ in range(6)]
    splits = {"train": pieces[:4], "valid": pieces[4:5], "test": pieces[5:]}
    path = folder / "music.json"
    path.write_text(json.dumps(splits))
    return str(path)
  for label in "ab" if task == "classification" else "t":
    (folder / label).mkdir()
    for n in range(12):
      words = rng.choices(TEXT.split(" ")[:-1], k=20)
      (folder / label / f"{n}.txt").write_text(" ".join([*words, label]))
  return str(folder if task == "classification" else folder / "t" / "*.txt")


def ten_steps(task: str, folder: Path) -> list[float]:
  """Trains ten steps; returns the values as VALUES has them."""
  path = write_data(task, folder / "data")
  fields = {**FUSED, "task": task, "data.path": path, "train.batch_size": 4}
  config = tiny(folder, {**fields, **FIELDS[task]})
  experiment = experiments.build(config, None)
  batches = experiment.batches("train", 0)
  mesh = sharding.mesh()
  optimizer = lambda rate: step_lib.make_optimizer(
    config, optax.constant_schedule(rate)
  )
  state = make_start(experiment, optimizer, batches[0], mesh)(0)
  step = partial(make_step(experiment, optimizer, mesh), rate=RATE)
  losses = []
  for n in range(STEPS):
    batch = batches[n % len(batches)]
    state, loss = step(state, sharding.put(batch, batches.batch_size, mesh))
    losses.append(float(loss))
  total, weight = jax.device_get(state.sums["gradient_norm"])
  leaves = jax.device_get(jax.tree.leaves(state.params))
  return [
    float(np.mean(losses)),
    float(total[0] / weight[0]),
    float(sum(leaf.sum(dtype=np.float64) for leaf in leaves)),
  ]


@pytest.mark.parametrize("task", FIELDS)
def test_ten_steps_give_the_recorded_values(task, tmp_path):
  np.testing.assert_allclose(ten_steps(task, tmp_path), VALUES[task], rtol=1e-4)


if __name__ == "__main__":
  for name in VALUES:
    with tempfile.TemporaryDirectory() as folder:
      values = [f"{value:.7g}" for value in ten_steps(name, Path(folder))]
    print(f'  "{name}": [{", ".join(values)}],')
