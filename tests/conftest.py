"""What all tests share: 4 CPU devices, strict broadcasting, a tiny config."""

import os
import tempfile
from importlib import metadata

os.environ["JAX_PLATFORMS"] = "cpu"  # Also for the processes tests start.
# XLA's own passes run as they do for users. Without LLVM's, and with the older
# emitters, which jaxlib 0.12 no longer has, programs are compiled in a sixth of
# the time. test_optimized runs the tests that depend on the compiler with all
# that users have.
os.environ["XLA_FLAGS"] = (
  ""
  if "SEQRNN_TESTS_OPTIMIZED" in os.environ
  else "--xla_backend_optimization_level=0"
  " --xla_cpu_parallel_codegen_split_count=1"
  + " --xla_cpu_use_fusion_emitters=false"
  * (tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 12))
)
# Four devices on two busy cores may wait for each other longer than XLA likes.
os.environ["XLA_FLAGS"] += (
  " --xla_cpu_collective_call_warn_stuck_timeout_seconds=120"
  " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)

# A cache of their own, which the workers of pytest-xdist share: else most of
# their time would go into compiling the same programs again.
os.environ["XDG_CACHE_HOME"] = os.environ.get(
  "SEQRNN_TESTS_CACHE"
) or tempfile.mkdtemp(prefix="seqrnn-tests-")
os.environ["SEQRNN_TESTS_CACHE"] = os.environ["XDG_CACHE_HOME"]
os.environ.setdefault(  # .ci/run has one for all of its tests.
  "JAX_COMPILATION_CACHE_DIR", os.environ["XDG_CACHE_HOME"] + "/jax"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.02"
# No test reads in which lines of Python an operation was traced.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # XLA has much to say of caches.

import csv
import gc
import hashlib
import random
import re
import shutil
import sys
from collections import deque
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest
from filelock import FileLock
from ml_collections import ConfigDict

from seqrnn import experiments
from seqrnn.configs import base
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, shapes
from seqrnn.run import Run
from seqrnn.runtime import pictures, sharding
from seqrnn.training import setup, step, train
from seqrnn.training.checkpoint import Position
from seqrnn.training.checkpoint_writer import open_checkpoints

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


hypothesis.settings.register_profile(
  "tests", deadline=None, database=None, max_examples=25
)
hypothesis.settings.load_profile("tests")

# Else training steps would be compiled at a level of LLVM's of their own.
if "SEQRNN_TESTS_OPTIMIZED" not in os.environ:
  step._compiler_options = lambda _: {}

# Many tests train the same model: what one has traced serves the others.
step._kept = deque(maxlen=64)

# Tracing makes so many objects that it is a tenth of the time otherwise.
gc.set_threshold(100_000, 20, 100)


@pytest.hookimpl(tryfirst=True)  # Before pytest chooses tests by their marks.
def pytest_collection_modifyitems(items):
  """The longest come first: else a worker would be left with them alone."""
  longest = "test_docs.py", "test_optimized.py"
  items.sort(key=lambda item: not item.location[0].endswith(longest))
  for item in items:
    if "browser" in item.fixturenames:
      item.add_marker("slow")


def pytest_collection_finish():
  gc.freeze()


def pytest_sessionfinish():
  """One more collection is enough: those of the exit have nothing to do."""
  gc.collect()
  gc.freeze()


def pytest_unconfigure():
  if "PYTEST_XDIST_WORKER" not in os.environ:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


# A program of the plain scan is traced and compiled in two thirds of the time.
# Tests of what both scans have to keep take FUSED: resumed training, the leak
# probe, recorded values, other platforms.
TINY = {
  "data.source": "files",
  "data.validation_fraction": 0.1,
  "data.test_fraction": 0.1,
  "data.window": 8,
  "model.hidden_size": 8,
  "model.layers": 1,
  "model.scan": "plain",
  "train.batch_size": 4,
  "train.epochs": 1,
}

FUSED = {"model.scan": "fused"}


def write_text(folder: Path, documents: int = 3, symbols: int = 300) -> Path:
  """A folder of random texts in six letters; the same ones every time."""
  rng = random.Random(0)
  corpus = folder / "corpus"
  corpus.mkdir(parents=True, exist_ok=True)
  for n in range(documents):
    text = "".join(rng.choices("abcde \n", [6, 5, 4, 3, 2, 4, 1], k=symbols))
    (corpus / f"{n}.txt").write_text(text, "utf-8")
  return corpus


def read_csv(path: Path) -> list[dict[str, str]]:
  """The rows of a table."""
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def message_of(function: Callable, *arguments: Any, **named: Any) -> str:
  """The line with which a call is refused."""
  with pytest.raises(UserError) as caught:
    function(*arguments, **named)
  message = str(caught.value)
  assert "\n" not in message
  return message


def tiny(tmp_path: Path, overrides: dict[str, Any] | None = None) -> ConfigDict:
  """A language model's config that trains in seconds.

  One layer of 8 units reads windows of 8 symbols in batches of 4, from 3 texts
  of 300 characters written below `tmp_path`: 23 batches an epoch.

  Args:
    tmp_path: where the texts go.
    overrides: fields by their dotted names, as {"model.cell": "gru"}. With
      another `data.source` there is no `data.path`.
  """
  fields = {**TINY, **(overrides or {})}
  if fields["data.source"] == "files" and "data.path" not in fields:
    fields["data.path"] = str(write_text(tmp_path))
  config = base.get_config()
  config.update_from_flattened_dict(fields)
  return config


def random_params(experiment: Experiment, seed: int, scale: float = 1) -> Any:
  """Parameters, without a program that makes them."""
  rng = np.random.default_rng(seed)
  draw = lambda x: rng.normal(size=x.shape, scale=scale).astype(x.dtype)
  return jax.tree.map(draw, shapes(experiment))


def untrained(
  folder: Path, fields: dict[str, Any] | None = None, scale: float = 1
) -> Run:
  """A run of `tiny` with random parameters, which no workdir has."""
  config = tiny(folder, fields)
  experiment = experiments.build(config, None)
  params = random_params(experiment, 0, scale)
  return Run(folder, config, experiment, params, 0)


def save_run(config: ConfigDict, workdir: Path):
  """Writes a workdir of a run with random parameters, without a training."""
  experiment = experiments.build(config, None)
  workdir.mkdir(parents=True)
  setup.write_record(config, experiment, workdir)
  with open_checkpoints(workdir) as checkpoints:
    params = jax.tree.map(jax.numpy.asarray, random_params(experiment, 0))
    others = {"leaves": [jax.numpy.int32(0)]}
    crc32 = experiment.facts("train")["crc32"]
    position = Position(step=1, best_step=1, crc32=crc32)
    checkpoints.save(params, others, position)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
  """Copies a workdir of `tiny`: called as `trained(overrides)`.

  It is trained once a session for all workers, for four steps unless
  `train.max_steps` is among the overrides, on texts of its own.
  """

  def copy(overrides: dict[str, Any] | None = None) -> Path:
    fields = {"train.max_steps": 4, **(overrides or {})}
    name = hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()
    source = Path(os.environ["XDG_CACHE_HOME"]) / "runs" / name[:16]
    source.mkdir(parents=True, exist_ok=True)
    lock = FileLock(source / "lock")
    with lock, pytest.MonkeyPatch.context() as patch:
      # The same bits, whichever file asks first.
      patch.setattr(sharding, "mesh", sharding.one_device)
      if not (source / "run").exists():
        train.fit(
          experiments.build, tiny(source, fields), source / "unfinished"
        )
        (source / "unfinished").rename(source / "run")
    return shutil.copytree(
      source / "run", tmp_path_factory.mktemp("run") / "run"
    )

  return copy


VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Page(HTMLParser):
  """A page as a parser sees it; what is wrong with it."""

  def __init__(self, content):
    super().__init__()
    self.open, self.faults, self.ids, self.tags = [], [], [], []
    self.text, self.titles = "", []
    self.feed(content)
    self.close()
    if self.open:
      self.faults.append(f"open: {self.open}")

  def handle_starttag(self, tag, attrs):
    found = dict(attrs)
    self.tags.append((tag, found))
    if len(found) < len(attrs):
      self.faults.append(f"{tag}: an attribute twice")
    self.ids += [found["id"]] if "id" in found else []
    if tag == "img" and not found.get("alt"):
      self.faults.append("img without alt")
    if tag == "svg" and not ("aria-hidden" in found or found.get("aria-label")):
      self.faults.append("svg without a description")
    if any(name.startswith("on") for name in found):
      self.faults.append(f"{tag} acts: {found}")
    for name in ("src", "href"):
      if not found.get(name, "#").startswith(("#", "data:", "playground")):
        self.faults.append(f"{tag} leads to {found[name]}")
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    if not self.open or self.open.pop() != tag:
      self.faults.append(f"</{tag}> ends nothing")

  def handle_data(self, data):
    if self.open[-1:] == ["h2"]:
      self.titles.append(data)
    if self.open[-1:] not in (["script"], ["style"]):
      self.text += data


@pytest.fixture(scope="session")
def browser():
  """Chromium without a window, driven by Selenium."""
  webdriver = pytest.importorskip("selenium.webdriver")
  programs = shutil.which("chromium"), shutil.which("chromedriver")
  if not all(programs):
    pytest.skip("chromium and chromedriver are not both installed")
  options = webdriver.ChromeOptions()
  options.binary_location = programs[0]
  for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic"):
    options.add_argument(f"--{flag}")
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  service = webdriver.ChromeService(programs[1])
  with webdriver.Chrome(options=options, service=service) as driver:
    yield driver


@pytest.fixture
def registrations():
  """Cells that a test registers are removed after it."""
  from seqrnn.models.cells import CELLS

  known = dict(CELLS)
  yield
  CELLS.clear()
  CELLS.update(known)


# What applies models for a mode; tests call models and choice by hand, too.
RUNS_MODELS = re.compile(
  r"seqrnn\.(?!models\.|runtime\.|sampling\.decoding|experiments\.)"
)


class OnlyMeshes:
  """JAX, which tells seqrnn nothing of the process, only of a mesh."""

  def __getattr__(self, name):
    if name in ("default_backend", "device_count"):
      frame = sys._getframe()
      while frame := frame.f_back:
        module = frame.f_globals.get("__name__", "")
        assert not RUNS_MODELS.match(module), f"{module}: no mesh"
    return getattr(jax, name)


@pytest.fixture(scope="session", autouse=True)
def only_meshes():
  """A function outside of every mesh would be traced for the process."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "jax", OnlyMeshes())
    yield


# Tests whose models use one of the four devices: that several give the same is
# tested elsewhere. These are the beginnings of their paths.
ALONE = (
  *("experiments/", "exporting/", "reporting/", "sampling/"),
  *("logs/detect/", "logs/follow/", "logs/test_"),
  *(f"modes/test_{x}" for x in ("check", "de", "predict", "re", "search")),
  *(f"training/test_{x}" for x in ("progress", "resume", "transfer")),
  *(f"test_{x}" for x in ("configs", "deploy", "docs", "estimators")),
  *("test_hostile", "test_python"),
)


@pytest.fixture(scope="module", autouse=True)
def devices_of_a_file(request):
  """Programs for one device are compiled, and run, in less time."""
  with pytest.MonkeyPatch.context() as patch:
    path = request.path.relative_to(Path(__file__).parent).as_posix()
    if path.startswith(ALONE):
      patch.setattr(sharding, "mesh", sharding.one_device)
    yield


@pytest.fixture(autouse=True)
def own_threads():
  """A search sets the number of XLA's threads for processes that it starts."""
  yield
  os.environ.pop("PJRT_NPROC", None)


@pytest.fixture(scope="session", autouse=True)
def unrendered():
  """Pictures are made and not drawn: half the time of a report."""
  save, svg = pictures.save, pictures.svg
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pictures, "save", lambda _, path, **__: path.write_bytes(b""))
    patch.setattr(pictures, "svg", lambda *_: "<svg/>")
    yield save, svg


@pytest.fixture
def rendered(unrendered, monkeypatch):
  """They are drawn, too."""
  for name, draw in zip(("save", "svg"), unrendered, strict=True):
    monkeypatch.setattr(pictures, name, draw)


@pytest.fixture
def x64():
  """Double precision for the length of a test."""
  with jax.enable_x64(True):
    yield
