"""RESULTS.md: rows from figures, and a row in the place of the last one."""

import importlib
import json
from pathlib import Path

import pytest

from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.resolve import Facts, resolve

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def results():
  """The script, which finds its recipes as in its own process."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("benchmarks.results")


def test_every_recipe_is_a_config(results):
  for recipe in results.RECIPES.values():
    config = config_lib.read_config(ROOT / recipe.config)
    fields = {"data.source": recipe.source, **recipe.fields}
    for name, value in fields.items():
      config_lib.override(config, name, str(value))
    values = config_lib.flat(config)
    overrides = {name: values[name] for name in fields}
    config, _ = resolve(config, Facts(overrides, fields))
    config_lib.check(config)
    for split in recipe.splits:
      known = catalogue.sets()[recipe.source]
      assert known.has(split) or "all" in known.files


def test_the_table_is_made_of_the_figures_that_are_kept(results):
  kept = json.loads(results._KEPT.read_text("utf-8"))
  assert results._TABLE.read_text("utf-8") == results.render(kept)
