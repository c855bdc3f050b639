"""benchmarks/all.py: the tables and the chart are made from the figures."""

import importlib
import random
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
  "seqrnn",
  "seqrnn, no token table",
  "seqrnn, bfloat16",
  "PyTorch, 1 thread",
  "PyTorch, 2 threads",
  "PyTorch, bfloat16, 1 thread",
  "PyTorch, bfloat16, 2 threads",
  "flax nn.RNN",
)


@pytest.fixture(scope="module")
def scripts():
  """The modules, which find each other as in a script's own process."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    names = ("all", "speed_page", "speed_chart")
    yield [importlib.import_module(f"benchmarks.{name}") for name in names]


def figures(rng: random.Random, faster: float = 1.0):
  """A row whose other libraries take `faster` times as long, or so."""
  seconds = {
    name: [
      rng.uniform(1, 1.2) * (1 if name.startswith("seqrnn") else faster)
      for _ in range(3)
    ]
    for name in LIBRARIES
  }
  peak = {name: rng.randrange(100, 200) for name in LIBRARIES}
  return {"symbols": 7, "products": 0.5, "seconds": seconds, "peak": peak}


def test_a_ratio_is_to_the_best_library(scripts):
  row = figures(random.Random(1), 1.5)
  ours = np.array(row["seconds"]["seqrnn"])
  threads = [row["seconds"][f"PyTorch, {n}"] for n in ("1 thread", "2 threads")]
  theirs = {
    "PyTorch": np.array(min(threads, key=np.median)),
    "flax nn.RNN": np.array(row["seconds"]["flax nn.RNN"]),
  }
  best = min(theirs, key=lambda name: np.median(theirs[name]))
  pairs = np.min([*theirs.values()], axis=0) / ours
  ratio = scripts[1].ratio(row, "float32")
  assert ratio.peer == best
  np.testing.assert_allclose(
    ratio[1:],
    [np.median(theirs[best]) / np.median(ours), pairs.min(), pairs.max()],
  )
  same = scripts[1].ratio(row, "bfloat16")  # Only libraries that have it.
  assert same.peer == "PyTorch"


def test_the_pages_have_the_figures(scripts):
  run, page, chart = scripts
  machines = run.read_figures(run._KEPT)
  assert page.tables(machines) in run._PAGE.read_text("utf-8")
  name = page.newest(machines)
  sentence = chart.sentence(name, machines[name])
  assert sentence in run._README.read_text("utf-8")
  assert run._CHART.exists()
