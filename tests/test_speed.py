"""benchmarks/all.py: the tables and the chart are made from the figures."""

import importlib
import random
import re
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


def machine(rng: random.Random, chart) -> dict:
  """The figures of a machine, as all.py keeps them."""
  about = {
    "commit": "abc",
    "date": "2026-01-01",
    "versions": "Python 3",
    "rounds": 3,
    "load": 0.1,
    "others": 0.0,
  }
  records = {}
  for part, case, *_ in chart.BARS:
    made = records.setdefault(part, {"about": {**about}, "rows": {}})
    made["rows"][case] = figures(rng, rng.uniform(0.5, 20))
  records["startup"] = {"about": {**about}, "text": "| start |\n| --- |"}
  return records


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


def test_pages_and_chart_are_written_again(scripts, tmp_path, monkeypatch):
  run, page, chart = scripts
  records = machine(random.Random(3), chart)
  records["training"]["about"]["others"] = 0.5
  for name in ("_PAGE", "_README"):
    monkeypatch.setattr(run, name, tmp_path / f"{name}.md")
    begin, end = run._MARKS
    (tmp_path / f"{name}.md").write_text(f"head\n{begin}\nold\n{end}\ntail\n")
  monkeypatch.setattr(run, "_CHART", tmp_path / "speed.png")
  store = tmp_path / "speed.json"
  monkeypatch.setattr(run, "machine", lambda: "A machine")
  for name, record in records.items():
    run.keep(name, record, store)
  run.keep("startup", records["startup"] | {"text": "| new |"}, store)
  run.write_pages(run.read_figures(store))
  text, sentence = (
    (tmp_path / name).read_text() for name in ("_PAGE.md", "_README.md")
  )
  assert re.findall(r"^##? .*", text, re.M) == ["## A machine"]
  assert text.startswith("head\n") and text.endswith("\ntail\n")
  assert "old" not in text and "| new |" in text and "| start |" not in text
  assert text.count("**disturbed: ") == 1
  for part in ("training", "inference"):
    assert page.part(part, records[part]) in text
  assert "On A machine, " in sentence and "(docs/speed.png)" in sentence
  assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_the_pages_have_the_figures(scripts):
  run, page, chart = scripts
  machines = run.read_figures(run._KEPT)
  assert page.tables(machines) in run._PAGE.read_text("utf-8")
  name = page.newest(machines)
  sentence = chart.sentence(name, machines[name])
  assert sentence in run._README.read_text("utf-8")
  assert run._CHART.exists()
