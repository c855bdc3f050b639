"""What is said of devices; who gets which; memory that is too small."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import base
from seqrnn import program
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.config.resolve import Facts, resolve, this_machine
from seqrnn.errors import UserError
from seqrnn.runtime import devices, launch, sharding

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(tmp_path, monkeypatch):
  """A function: files by their paths -> a machine that has them."""
  monkeypatch.setattr(devices, "_ROOT", tmp_path)
  monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
  for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
    monkeypatch.delenv(name, raising=False)
  for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(jax, "config", SimpleNamespace(values=jax.config.values))
  monkeypatch.setitem(jax.config.values, "jax_platforms", None)

  def make(files):
    for name, text in files.items():
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / name).write_text(text)

  return make


def gpu_files(count):
  names = [*(f"dev/nvidia{n}" for n in range(count)), "dev/nvidiactl"]
  return dict.fromkeys(names, "")


def pci(vendor, device):
  return {"sys/bus/pci/devices/0/vendor": f"{vendor}\n"} | {
    "sys/bus/pci/devices/0/device": f"{device}\n"
  }


GPU = (
  "warning: an NVIDIA GPU is there, but JAX computes on the CPU: pip install"
  " 'jax[cuda13]'"
)
TPU = (
  "warning: a Google TPU is there, but JAX computes on the CPU: pip install"
  " 'jax[tpu]'"
)


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({}, []),
    (gpu_files(0) | {"dev/vfio/0": "", "dev/accel/accel0": ""}, []),
    (gpu_files(2), [GPU]),
    (pci("0x1ae0", "0x0042"), []),  # A network card of Google's.
    (pci("0x8086", "0x0063"), []),
    (pci("0x1ae0", "0x0063"), [TPU]),
  ],
)
def test_an_accelerator_that_is_not_used_is_a_warning(machine, files, expected):
  machine(files)
  assert devices.start() == expected


@pytest.mark.parametrize(
  ("name", "value"),
  [("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", "-1")],
)
def test_a_hidden_gpu_is_not_missed(machine, monkeypatch, name, value):
  machine(gpu_files(1))
  monkeypatch.setenv(name, value)
  assert devices.start() == []


def test_the_cpu_may_be_asked_for(machine, monkeypatch):
  machine(gpu_files(1))
  monkeypatch.setitem(jax.config.values, "jax_platforms", "cpu")
  assert devices.start() == []


@pytest.fixture
def silent():
  """Logs are off, as in run.py."""
  logging.disable(logging.ERROR)
  yield
  logging.disable(logging.NOTSET)


def test_the_reason_is_what_jax_logs(machine, monkeypatch, silent, capfd):
  del silent
  machine(gpu_files(1))
  logger = logging.getLogger("jax._src.xla_bridge")

  def log():
    logger.info("Unable to initialize backend 'tpu': not there")
    try:
      raise RuntimeError("Unable to use CUDA:\ncuDNN is too old")
    except RuntimeError:
      logger.exception("Exception when calling xla_cuda13")
    logger.warning("An NVIDIA GPU may be present, but no CUDA jaxlib")

  before = logging.root.handlers, logging.root.level
  monkeypatch.setattr(jax, "devices", log)
  [line] = devices.start()
  assert line == (
    f"{GPU}; JAX says: Exception when calling xla_cuda13: Unable to use CUDA:\n"
    "cuDNN is too old"
  )
  assert (logging.root.handlers, logging.root.level) == before
  logger.error("off again")
  assert capfd.readouterr() == ("", "")


def test_a_device_that_cannot_start_is_one_line(machine, monkeypatch):
  def fail():
    raise RuntimeError("Unable to initialize backend 'cuda': no driver")

  machine(gpu_files(1))
  monkeypatch.setattr(jax, "devices", fail)
  with pytest.raises(UserError, match="^JAX cannot start: Unable to .* driver"):
    devices.start()


def fake_mesh(count, kind, platform):
  device = SimpleNamespace(device_kind=kind, platform=platform)
  return SimpleNamespace(devices=np.array([device] * count), size=count)


@pytest.mark.parametrize(
  ("count", "kind", "platform", "cores", "expected"),
  [
    (1, "NVIDIA H100", "gpu", 9, "1 x NVIDIA H100"),
    (4, "TPU v5 lite", "tpu", 9, "4 x TPU v5 lite"),
    (2, "cpu", "cpu", 2, "2 x cpu, 2 cores"),
    (1, "cpu", "cpu", 1, "1 x cpu, 1 core"),
  ],
)
def test_devices_in_words(monkeypatch, count, kind, platform, cores, expected):
  monkeypatch.setattr(devices, "cores", lambda: cores)
  assert devices.words(fake_mesh(count, kind, platform)) == expected


def test_an_accelerator_is_named_unless_the_mode_does_it(machine, monkeypatch):
  machine(gpu_files(1))
  mesh = fake_mesh(1, "NVIDIA H100", "gpu")
  monkeypatch.setattr(sharding, "mesh", lambda: mesh)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert devices.start() == ["devices: 1 x NVIDIA H100"]
  assert devices.start(named=True) == []


def test_lines_on_devices_go_to_stderr(tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(devices, "start", lambda **_: ["warning: a GPU\nis"])
  monkeypatch.setattr("seqrnn.modes.describe.run", lambda *_: None)
  line = ["run.py", "--config=configs/rnn.py", "--mode=describe"]
  monkeypatch.chdir(ROOT)
  assert program.main([*line, f"--workdir={tmp_path / 'x'}"]) == 0
  assert capfd.readouterr() == ("", "warning: a GPU is\n")


@pytest.mark.parametrize(
  "text",
  [
    "INTERNAL: Out of memory allocating 99 bytes.",
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184"
    " bytes.",
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of"
    " 15.75G hbm. Exceeded hbm capacity by 4.75G.",
    "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "INTERNAL: cuBLAS: CUBLAS_STATUS_ALLOC_FAILED",
  ],
)
def test_too_little_memory_is_one_line_in_the_words_of_each_device(text):
  error = jax.errors.JaxRuntimeError(text)
  assert devices.out_of_memory(error)
  assert launch.user_message(error) == (
    "out of memory: model.hidden_size, train.batch_size or data.window must be"
    " smaller"
  )


@pytest.mark.parametrize(
  "error",
  [
    ValueError("a file named Out of memory"),
    jax.errors.JaxRuntimeError("INTERNAL: something else"),
  ],
)
def test_another_error_is_no_lack_of_memory(error):
  assert not devices.out_of_memory(error)
  assert devices.out_of_memory(MemoryError())


@pytest.mark.parametrize(
  ("count", "environment", "expected"),
  [
    (0, {}, []),
    (3, {}, ["0", "1", "2"]),
    (3, {"CUDA_VISIBLE_DEVICES": "2, 0"}, ["2", " 0"]),
    (3, {"CUDA_VISIBLE_DEVICES": "GPU-a,-1,1"}, ["GPU-a"]),
    (2, {"CUDA_VISIBLE_DEVICES": "1,2,0"}, ["1"]),
    (3, {"CUDA_VISIBLE_DEVICES": ""}, []),
    (3, {"CUDA_VISIBLE_DEVICES": "-1"}, []),
    (0, {"CUDA_VISIBLE_DEVICES": "0"}, []),
    (2, {"JAX_PLATFORMS": "cpu"}, []),
    (2, {"JAX_PLATFORMS": "cuda,cpu"}, ["0", "1"]),
  ],
)
def test_the_gpus_of_a_process(
  machine, monkeypatch, count, environment, expected
):
  machine(gpu_files(count))
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert devices.gpus() == expected
  monkeypatch.setattr(devices.importlib.util, "find_spec", lambda _: None)
  assert devices.gpus() == []  # JAX has no plugin for CUDA.


@pytest.mark.parametrize(
  ("visible", "workers", "expected"),
  [
    (None, 2, [("0", None), ("1", None)]),
    ("1,0", 2, [("1", None), ("0", None)]),
    (None, 3, [("0", "0.375"), ("1", "0.375"), ("0", "0.375")]),
  ],
)
def test_each_worker_has_a_gpu(
  machine, monkeypatch, visible, workers, expected
):
  machine(gpu_files(2))
  found = []
  for index in range(workers):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.setattr(os, "environ", environment)
    devices.take_gpu(index, workers)
    own = environment.get("XLA_CLIENT_MEM_FRACTION")
    found.append((environment["CUDA_VISIBLE_DEVICES"], own))
  assert found == expected


def test_a_share_of_memory_that_the_user_has_set_stays(machine, monkeypatch):
  machine(gpu_files(1))
  environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1"}
  monkeypatch.setattr(os, "environ", environment)
  devices.take_gpu(3, 4)
  assert "XLA_CLIENT_MEM_FRACTION" not in environment


def test_workers_without_gpus_keep_their_environment(machine, monkeypatch):
  machine({})
  monkeypatch.setattr(os, "environ", environment := {})
  devices.take_gpu(0, 2)
  assert environment == {}


@pytest.mark.parametrize(
  ("gpus", "mode", "workers", "method", "expected"),
  [
    (2, "search", None, "tpe", (2, True)),
    (1, "search", None, "tpe", (1, False)),
    (1, "search", 4, "tpe", (4, True)),
    (2, "search", None, "coarse", (1, False)),
    (2, "train", None, "tpe", (None, False)),
    (0, "search", 4, "tpe", (4, False)),
  ],
)
def test_a_search_whose_workers_have_gpus_leaves_them_to_those(
  machine, gpus, mode, workers, method, expected
):
  machine(gpu_files(gpus))
  config = base.get_config()
  config.model.hidden_size = 512
  config.search.workers, config.search.method = workers, method
  config, _ = resolve(config, Facts(machine=this_machine(mode)))
  assert (config.train.cpu_threads is None) == (gpus > 0)
  on_cpu = command.gpu_workers(config, mode)
  assert (config.search.workers, on_cpu) == expected


def python(code, **environment):
  return subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={**os.environ, **environment},
  )


def test_a_process_that_must_not_hold_a_gpu_starts_the_cpu_alone():
  """Although the environment asks for another platform."""
  code = """
from seqrnn.runtime import devices, launch
launch.configure_device(1, on_cpu=True)
print(devices.start())
import jax
print(jax.devices())
"""
  done = python(code, JAX_PLATFORMS="cuda")
  assert done.stdout == "[]\n[CpuDevice(id=0)]\n", done


@pytest.mark.skipif(devices.cores() < 2, reason="needs two cores")
def test_the_threads_of_a_process_are_those_of_its_config():
  """Two threads sum the rows of a product in two parts, and round otherwise."""
  code = """
import sys
import numpy as np
from seqrnn.runtime import launch
launch.configure_device(1, *map(int, sys.argv[1:]))
import jax
a, b = np.random.default_rng(0).normal(size=(2, 4096, 64)).astype("f")
print(np.asarray(jax.jit(lambda a, b: a.T @ b)(a, b)).tobytes().hex())
"""
  one, two, given = (
    subprocess.run(
      [sys.executable, "-c", code, *threads],
      capture_output=True,
      text=True,
      cwd=ROOT,
      env={**os.environ, **environment},
    ).stdout
    for threads, environment in (
      (["1"], {}),
      (["2"], {}),
      ([], {"PJRT_NPROC": "1"}),
    )
  )
  assert one and one == given != two


PLUGIN = """
import ctypes, signal

def initialize():
  libc = ctypes.CDLL(None)
  leave = ctypes.cast(libc._exit, ctypes.c_void_p)
  libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
  libc.signal(signal.SIGTERM, leave)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signals of glibc")
@pytest.mark.parametrize("again", [True, False])
def test_sigterm_is_python_s_after_a_backend_took_it(tmp_path, again):
  """As libtpu does; without `start` its handler would end the process."""
  folder = tmp_path / "jax_plugins" / "grasping"
  folder.mkdir(parents=True)
  (folder / "__init__.py").write_text(PLUGIN)
  begin = "devices.start()" if again else "jax.devices()"
  code = f"""
import os, signal, jax
from seqrnn.runtime import devices
signal.signal(signal.SIGTERM, lambda *_: print("saved", flush=True))
{begin}
os.kill(os.getpid(), signal.SIGTERM)
"""
  done = python(code, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
  expected = ("saved\n", 0) if again else ("", int(signal.SIGTERM))
  assert (done.stdout, done.returncode) == expected, done


@pytest.mark.parametrize(
  ("flags", "expected"),
  [
    (["--mode=detect", "--follow"], (True, True)),
    (["--mode=search", "--config.search.workers=2"], (True, False)),
    (["--mode=search", "--config.search.workers=1"], (False, False)),
    (["--mode=describe"], (False, False)),
  ],
)
def test_what_runs_on_the_cpu_alone(
  machine, monkeypatch, tmp_path, flags, expected
):
  """Before JAX starts: following, and the parent of workers with GPUs."""
  machine(gpu_files(2))
  given = []

  class Enough(Exception):
    pass

  def configure(*_, on_cpu, inline):
    given.append((on_cpu, inline))
    raise Enough

  monkeypatch.setattr(launch, "configure_device", configure)
  config = base.get_config()
  config_lib.save(config, tmp_path / "config.json")
  with pytest.raises(Enough):
    program.main(
      [
        "run.py",
        f"--config={tmp_path / 'config.json'}",
        f"--workdir={tmp_path}",
        *flags,
      ]
    )
  assert given == [expected]
