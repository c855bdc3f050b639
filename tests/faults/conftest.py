"""Processes that fail on purpose, and what must be the same afterwards."""

import csv
import os
import signal
import socket
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
from tests.conftest import TINY, write_text

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
  fields = {**TINY, "data.path": str(write_text(folder)), **fields}
  config.update_from_flattened_dict(fields)
  path = folder / "config.json"
  path.write_text(config.to_json())
  return path


class Ended(NamedTuple):
  """How a process ended: its status, and all it wrote."""

  status: int
  out: str
  err: str


class Process:
  """A run.py, or several, in sessions of their own."""

  def __init__(
    self,
    arguments: list[str],
    marker: Path,
    devices: int | None = 1,
    fault: str = "",
    environment: dict[str, str] | None = None,
  ):
    environment = {
      **os.environ,
      **(environment or {}),
      "JAX_PLATFORMS": "cpu",
      "FAULT_FILE": str(marker),
    }
    if devices is None:  # The config says how many.
      environment.pop("JAX_NUM_CPU_DEVICES", None)
    else:
      environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    if fault:
      environment["FAULT"] = fault
    self._marker = marker
    self._popen = subprocess.Popen(
      [sys.executable, *arguments],
      cwd=ROOT,
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    self._ended: Ended | None = None

  @property
  def struck(self) -> bool:
    """Whether the fault has come."""
    return self._marker.exists()

  def send(self, number: int):
    self._popen.send_signal(number)

  def until(self, condition: Callable[[], Any]):
    """Waits for what the process is about to do, and may die of."""
    end = time.monotonic() + LIMIT
    while not condition():
      dead = self._popen.poll() is not None
      if (dead and not condition()) or time.monotonic() > end:
        pytest.fail(f"it did not come to this: {self.ended(1)}")
      time.sleep(0.001)

  def ended(self, limit: float = LIMIT) -> Ended:
    """Waits for its end, and that of its children."""
    if self._ended is None:
      try:
        out, err = self._popen.communicate(timeout=limit)
      except subprocess.TimeoutExpired:
        self.end()
        out, err = self._popen.communicate()
        pytest.fail(f"no end after {limit:.0f} s:\n{out}\n{err}")
      self._ended = Ended(self._popen.returncode, out, err)
    return self._ended

  def end(self):
    with suppress(ProcessLookupError):
      os.killpg(self._popen.pid, signal.SIGKILL)


class Starter:
  """Starts processes, and ends them all when the tests are done."""

  def __init__(self, folder: Path):
    self._folder = folder
    self._started: list[Process] = []

  def __call__(
    self, config: Path | None, workdir: Path, *flags: str, **how: Any
  ) -> Process:
    named = () if config is None else (f"--config={config}",)
    flags = (*named, f"--workdir={workdir}", *flags)
    marker = self._folder / f"struck{len(self._started)}"
    script = str(Path(__file__).with_name("child.py"))
    process = Process([script, *flags], marker, **how)
    self._started.append(process)
    return process

  def several(
    self,
    config: Path | None,
    workdir: Path,
    *flags: str,
    faults=("", ""),
    heartbeat: int | None = 10,
    **how: Any,
  ) -> list[Process]:
    """Two processes of two devices each.

    Args:
      config: as for one.
      workdir: as for one.
      *flags: for both.
      faults: the one's and the other's.
      heartbeat: seconds after which a silent one is lost, fewer than those of
        the product to save the tests' time; None: those of the product.
      **how: as for one.
    """
    shorter = {} if heartbeat is None else {"HEARTBEAT": str(heartbeat)}
    port = free_port()
    return [
      self(
        config,
        workdir,
        f"--coordinator=127.0.0.1:{port}",
        "--num_processes=2",
        f"--process_id={index}",
        "--config.train.cpu_devices=2",
        *flags,
        devices=None,
        fault=fault,
        environment=shorter,
        **how,
      )
      for index, fault in enumerate(faults)
    ]

  def close(self):
    for process in self._started:
      process.end()
      process.ended()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  starter = Starter(tmp_path_factory.mktemp("started"))
  yield starter
  starter.close()


def free_port() -> int:
  with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    return unused.getsockname()[1]


def call(config: Path | None, workdir: Path, *flags: str) -> int:
  """The same in this process, which has four devices; the exit status."""
  named = [] if config is None else [f"--config={config}"]
  return cli.main(["run.py", *named, f"--workdir={workdir}", *flags])


def use_devices(monkeypatch, count: int):
  """Lets the runs of this process see only so many of its devices."""
  mesh = sharding._mesh(jax.devices()[:count])
  monkeypatch.setattr(sharding, "mesh", lambda: mesh)


def rows(workdir: Path) -> list[dict[str, str]]:
  with (workdir / "metrics.csv").open(newline="") as file:
    return list(csv.DictReader(file))


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
