"""benchmarks/: recipes are configs, and pages are made of the kept figures."""

import importlib
import json
import runpy
import sys
from pathlib import Path

import pytest

from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.derived import merge

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
  """Imports a script, which finds the others as in its own process."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    yield lambda name: importlib.import_module(f"benchmarks.{name}")


def config_of(path, fields):
  config = config_lib.read_config(ROOT / path)
  for name, value in fields.items():
    config_lib.override(config, name, str(value))
  return config


def test_every_recipe_and_every_case_is_a_config(script):
  for recipe in script("results").RECIPES.values():
    fields = {"data.source": recipe.source, **recipe.fields}
    config = config_of(recipe.config, fields)
    values = config_lib.flat(config)
    overrides = {name: values[name] for name in fields}
    config = merge(config, overrides, fields)
    config_lib.check(config)
    known = catalogue.sets().get(recipe.source)
    if known is None:  # Files that a script makes.
      assert recipe.source == "files"
      continue
    assert "all" in known.files or all(map(known.has, recipe.splits))
  for case in script("detection").CASES.values():
    for look in case.detect.values():
      config_lib.check(config_of(case.config, {**case.fields, **look}))


def test_pages_have_the_kept_figures(script):
  for name in "results", "detection":
    made = script(name)
    records = json.loads(made._KEPT.read_text("utf-8"))
    assert made.render(records) in made._PAGE.read_text("utf-8")
  assert made.verdict(records) in made._PAGE.read_text("utf-8")
  ahead, every = script("ahead"), script("all")
  rows = json.loads(ahead._KEPT.read_text("utf-8"))
  assert ahead.tables(rows) in ahead._PAGE.read_text("utf-8")
  machines = json.loads(every._KEPT.read_text("utf-8"))
  speed, chart = every.speed_page, every.speed_chart
  assert speed.tables(machines) in every._PAGE.read_text("utf-8")
  name = speed.newest(machines)
  sentence = chart.sentence(name, machines[name])
  assert sentence in every._README.read_text("utf-8")
  assert every._CHART.exists()


@pytest.mark.usefixtures("script")
def test_every_script_has_help(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)  # A script may take --help for a folder.
  faults = []
  for path in sorted((ROOT / "benchmarks").glob("*.py")):
    # peers.py is a process of compare.py.
    if "__main__" not in path.read_text("utf-8") or path.name == "peers.py":
      continue
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    try:
      runpy.run_path(str(path), run_name="__main__")
      faults.append(path.name)
    except SystemExit as end:
      if end.code or not capsys.readouterr().out.startswith("usage: "):
        faults.append(path.name)
  assert not faults
