"""benchmarks/all.py: the tables and the chart are made from the figures."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scripts():
  """The modules, which find each other as in a script's own process."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    names = ("all", "speed_page", "speed_chart")
    yield [importlib.import_module(f"benchmarks.{name}") for name in names]


def test_the_pages_have_the_figures(scripts):
  run, page, chart = scripts
  machines = run.read_figures(run._KEPT)
  assert page.tables(machines) in run._PAGE.read_text("utf-8")
  name = page.newest(machines)
  sentence = chart.sentence(name, machines[name])
  assert sentence in run._README.read_text("utf-8")
  assert run._CHART.exists()
