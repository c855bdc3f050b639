"""Processes that fail on purpose, and what must be the same afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from seqrnn import cli
from seqrnn.configs import base
from seqrnn.runtime import sharding
from seqrnn.training import checkpoint
from tests.conftest import FUSED, TINY, read_csv, write_text

ROOT = Path(__file__).parents[2]
LIMIT = 420  # Seconds after which a process hangs; none of it is a promise.

# A shell that runs the tests in the background makes all of them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

STATEFUL = {"data.stateful": True, "model.dropout": 0.2}
WINDOWS = {
  "data.random_offset": True,
  "data.step": 5,
  "model.dropout": 0.2,
  "model.symbol_dropout": 0.1,
}


def write_config(folder: Path, fields: dict[str, Any]) -> Path:
  """A config beside its corpus, in JSON, with these fields changed."""
  config = base.get_config()
  fields = {**TINY, **FUSED, "data.path": str(write_text(folder)), **fields}
  config.update_from_flattened_dict(fields)
  path = folder / "config.json"
  path.write_text(config.to_json())
  return path


class Ended(NamedTuple):
  """How a process ended: its status, and all it wrote."""

  status: int
  out: str
  err: str


class Process(subprocess.Popen[str]):
  """A run.py in a session of its own, with a fault of child.py.

  Attributes:
    marker: the file that exists once the fault has come.
  """

  def __init__(
    self,
    flags: tuple[str, ...],
    marker: Path,
    devices: int = 1,
    fault: str = "",
    **environment: str,
  ):
    self.marker = marker
    self._ended: Ended | None = None
    environment |= {
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(devices),
      "FAULT_FILE": str(marker),
    }
    if fault:
      environment["FAULT"] = fault
    child = str(Path(__file__).with_name("child.py"))
    super().__init__(
      [sys.executable, child, *flags],
      cwd=ROOT,
      env=os.environ | environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )

  def until(self, condition: Callable[[], Any]):
    """Waits for what the process is about to do, and may die of."""
    end = time.monotonic() + LIMIT
    while not condition():
      dead = self.poll() is not None
      if (dead and not condition()) or time.monotonic() > end:
        pytest.fail(f"it did not come to this: {self.ended(1)}")
      time.sleep(0.001)

  def ended(self, limit: float = LIMIT) -> Ended:
    """Waits for its end, and that of its children."""
    if self._ended is None:
      try:
        out, err = self.communicate(timeout=limit)
      except subprocess.TimeoutExpired:
        self.end()
        out, err = self.communicate()
        pytest.fail(f"no end after {limit:.0f} s:\n{out}\n{err}")
      self._ended = Ended(self.returncode, out, err)
    return self._ended

  def end(self):
    with suppress(ProcessLookupError):
      os.killpg(self.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  """A function that starts a Process, which ends with the module's tests."""
  folder, started = tmp_path_factory.mktemp("started"), []

  def start_process(
    config: Path | None, workdir: Path, *flags: str, **how: Any
  ):
    named = [] if config is None else [f"--config={config}"]
    flags = (*named, f"--workdir={workdir}", *flags)
    started.append(Process(flags, folder / f"struck{len(started)}", **how))
    return started[-1]

  yield start_process
  for process in started:
    process.end()
    process.ended()


def call(config: Path | None, workdir: Path, *flags: str) -> int:
  """The same in this process, which has four devices; the exit status."""
  named = [] if config is None else [f"--config={config}"]
  return cli.main(["run.py", *named, f"--workdir={workdir}", *flags])


def use_devices(monkeypatch, count: int):
  """Lets the runs of this process see only so many of its devices."""
  mesh = sharding._mesh(jax.devices()[:count])
  monkeypatch.setattr(sharding, "mesh", lambda: mesh)


def rows(workdir: Path) -> list[dict[str, str]]:
  return read_csv(workdir / "metrics.csv")


def steps(workdir: Path) -> list[int]:
  return checkpoint.steps(workdir / "checkpoints")


def position(workdir: Path, step: int) -> checkpoint.Position:
  return checkpoint.read_position(workdir / "checkpoints" / str(step))


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
  """All arrays of a checkpoint by name, as they are on disk."""
  folder = workdir.absolute() / "checkpoints" / str(step)
  assert checkpoint.find_damage(folder) is None
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  found = {}
  with ocp.StandardCheckpointer() as reader:
    for part in ("params", "state"):
      shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        reader.metadata(folder / part).item_metadata.tree,
      )
      tree = reader.restore(folder / part, shapes)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found[part + jax.tree_util.keystr(path)] = np.asarray(leaf)
  return found


def assert_same_run(a: Path, b: Path):
  """Equal to the bit: metrics.csv, and all checkpoints that both have.

  A run that a signal stopped has kept others; the last and the best one are
  there in any case.
  """
  assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
  assert steps(a)[-1] == steps(b)[-1]
  best = position(a, steps(a)[-1]).best_step
  common = set(steps(a)) & set(steps(b))
  assert best in common
  for step in common:
    assert position(a, step) == position(b, step)
    one, other = arrays(a, step), arrays(b, step)
    assert one.keys() == other.keys()
    for name in one:
      assert one[name].dtype == other[name].dtype
      assert one[name].tobytes() == other[name].tobytes(), (step, name)


def assert_close_run(a: Path, b: Path):
  """Equal but for rounding: rows to 1e-5 relative, parameters absolute."""
  for one, other in zip(rows(a), rows(b), strict=True):
    for name in one:
      assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-5), (
        f"step {one['step']}: {name}"
      )
  assert steps(a)[-1] == steps(b)[-1]
  one, other = arrays(a, steps(a)[-1]), arrays(b, steps(b)[-1])
  assert one.keys() == other.keys()
  for name in one:
    if name.startswith("params"):
      np.testing.assert_allclose(
        one[name], other[name], rtol=0, atol=1e-5, err_msg=name
      )
