"""Lines on devices; the GPUs of workers; memory that is too small."""

import ctypes
import os
import shutil
import signal
import sys
from types import SimpleNamespace

import jax
import pytest

from seqrnn import cli
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.config.resolve import Facts, resolve, this_machine
from seqrnn.configs import base
from seqrnn.runtime import devices, launch


@pytest.fixture
def machine(tmp_path, monkeypatch):
  """A function that gives the machine so many GPUs, which JAX can use."""
  monkeypatch.setattr(devices, "_ROOT", tmp_path)
  monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
  for name in (
    *("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"),
    *("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"),
  ):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(jax, "config", SimpleNamespace(values=jax.config.values))
  monkeypatch.setitem(jax.config.values, "jax_platforms", None)
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
  monkeypatch.setitem(jax.config.values, "jax_platforms", "cpu")
  assert devices.start() == []


def test_too_little_memory_of_any_device_is_one_line():
  text = "INTERNAL: cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"
  error = jax.errors.JaxRuntimeError(text)
  assert devices.out_of_memory(error)
  assert str(launch.user_message(error)).startswith("out of memory: model.hid")
  assert devices.out_of_memory(MemoryError())
  assert not devices.out_of_memory(ValueError("a file named Out of memory"))
  assert not devices.out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: else"))


def test_the_gpus_of_a_process(machine, monkeypatch):
  for count, environment, expected in (
    (0, {}, []),
    (3, {"CUDA_VISIBLE_DEVICES": "2, 0"}, ["2", " 0"]),
    (3, {"CUDA_VISIBLE_DEVICES": ""}, []),
    (2, {"JAX_PLATFORMS": "cpu"}, []),
    (2, {}, ["0", "1"]),
  ):
    machine(count)
    with monkeypatch.context() as patch:
      for name, value in environment.items():
        patch.setenv(name, value)
      assert devices.gpus() == expected
  monkeypatch.setattr(devices.importlib.util, "find_spec", lambda _: None)
  assert devices.gpus() == []  # JAX has no plugin for CUDA.


def test_each_worker_has_a_gpu(machine, monkeypatch):
  machine(2)
  fraction = "XLA_CLIENT_MEM_FRACTION"
  for workers, share in ((2, None), (3, "0.375")):
    for index in range(workers):
      environment = {}
      monkeypatch.setattr(os, "environ", environment)
      devices.take_gpu(index, workers)
      assert environment["CUDA_VISIBLE_DEVICES"] == str(index % 2)
      assert environment.get(fraction) == share
  # A share of memory that the user has set stays.
  environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1"}
  monkeypatch.setattr(os, "environ", environment)
  devices.take_gpu(3, 4)
  assert fraction not in environment


def test_a_search_whose_workers_have_gpus_leaves_them_to_those(machine):
  for gpus, mode, workers, expected in (
    (2, "search", None, (2, True)),
    (1, "search", None, (1, False)),
    (1, "search", 4, (4, True)),
    (2, "train", None, (None, False)),
  ):
    machine(gpus)
    config = base.get_config()
    config.model.hidden_size = 512
    config.search.workers = workers
    config, _ = resolve(config, Facts(machine=this_machine(mode)))
    assert config.train.cpu_threads is None
    on_cpu = command.gpu_workers(config, mode)
    assert (config.search.workers, on_cpu) == expected


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

  def configure(*_, on_cpu, inline):
    raise Enough(on_cpu, inline)

  monkeypatch.setattr(launch, "configure_device", configure)
  config = tmp_path / "config.json"
  config.write_bytes(config_lib.encoded(base.get_config()))
  flags = [f"--config={config}", f"--workdir={tmp_path}", "--mode=detect"]
  with pytest.raises(Enough) as enough:
    cli.main(["run.py", *flags, "--follow"])
  assert enough.value.args == (True, True)
