"""Lines on devices; memory that is too small."""

import ctypes
import os
import shutil
import signal
import sys
from types import SimpleNamespace

import jax
import pytest

from seqrnn import cli
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.runtime import devices, launch


@pytest.fixture
def machine(tmp_path, monkeypatch):
  """A function that gives the machine so many GPUs."""
  monkeypatch.setattr(devices, "_ROOT", tmp_path)
  for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(jax, "config", SimpleNamespace(jax_platforms=None))
  folder = tmp_path / "dev"

  def make(count):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("nvidiactl", *(f"nvidia{n}" for n in range(count))):
      (folder / name).touch()

  return make


def test_a_gpu_that_is_not_used_is_a_warning(machine, monkeypatch):
  for count in (0, 2):
    machine(count)
    assert devices.start() == [devices._UNUSED] * bool(count)
  for value in ("", "-1"):  # It is hidden.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert devices.start() == []
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
  monkeypatch.setattr(jax.config, "jax_platforms", "cpu")
  assert devices.start() == []


def test_too_little_memory_of_any_device_is_one_line():
  text = "INTERNAL: cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"
  error = jax.errors.JaxRuntimeError(text)
  assert devices.out_of_memory(error)
  assert str(launch.user_message(error)).startswith("out of memory: model.hid")
  assert devices.out_of_memory(MemoryError())
  assert not devices.out_of_memory(ValueError("a file named Out of memory"))
  assert not devices.out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: else"))


@pytest.mark.skipif(sys.platform != "linux", reason="signals of glibc")
def test_sigterm_is_python_s_after_a_backend_took_it():
  """As libtpu does; without `start`, a run would not save."""
  received = []
  handler = lambda number, _: received.append(number)
  before = signal.signal(signal.SIGTERM, handler)
  try:
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes = ctypes.c_int, ctypes.c_void_p
    set_handler(signal.SIGTERM, int(signal.SIG_IGN))  # Unknown to Python.
    devices.start()
    os.kill(os.getpid(), signal.SIGTERM)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert received == [signal.SIGTERM]


def test_following_runs_on_the_cpu_alone(monkeypatch, tmp_path):
  class Enough(Exception):
    pass

  def configure(*_, follow):
    raise Enough(follow)

  monkeypatch.setattr(launch, "configure_device", configure)
  config = tmp_path / "config.json"
  config.write_bytes(config_lib.encoded(base.get_config()))
  flags = [f"--config={config}", f"--workdir={tmp_path}", "--mode=detect"]
  with pytest.raises(Enough) as enough:
    cli.main(["run.py", *flags, "--follow"])
  assert enough.value.args == (True,)
