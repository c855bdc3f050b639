"""Trains on 1 to 8 devices, each run in its own part of this process.

Reads JSON from the command line, a list of runs; a run is a list of lives: the
number of devices and the flags. What each step's loss was goes to losses.json
in the workdir.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(jobs: list[list[tuple[int, list[str], str]]]):
  """Does one life after the other."""
  import jax

  from seqrnn import cli
  from seqrnn.runtime import sharding
  from seqrnn.training.progress import Progress

  losses: list[jax.Array] = []
  step = Progress.step

  def watched(self, loss, symbols):
    losses.append(loss)
    return step(self, loss, symbols)

  Progress.step = watched
  for lives in jobs:
    losses.clear()
    for devices, flags, workdir in lives:
      mesh = jax.make_mesh(
        (devices,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
      )
      sharding.mesh = lambda mesh=mesh: mesh
      status = cli.main(["run.py", *flags, f"--workdir={workdir}"])
      assert status == 0, (flags, status)
      Path(workdir, "losses.json").write_text(
        json.dumps([float(loss) for loss in losses])
      )


if __name__ == "__main__":
  sys.path[0] = str(ROOT)
  from seqrnn.runtime.launch import prepare

  prepare()
  main(json.loads(sys.argv[1]))
