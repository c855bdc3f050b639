"""RESULTS.md: rows from figures, and a row in the place of the last one."""

import importlib
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.resolve import Facts, resolve
from seqrnn.training import transfer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def results():
  """The script, which finds its recipes as in its own process."""
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("benchmarks.results")


def record(rng: random.Random, splits, seeds: int) -> dict:
  """What a recipe may have given."""
  figures = (*splits, "seconds")
  return {
    "command": f"python run.py --config.seed={rng.random()}",
    "versions": ["3.1", "0.2", "0.3"],
    "runs": {
      str(seed): {
        "parameters": 1234567,
        **{name: rng.uniform(1, 2) for name in figures},
      }
      for seed in range(seeds)
    },
  }


def rows(table: Path) -> dict[str, list[str]]:
  """The cells of each row by its name, which is that of a section, too."""
  text = table.read_text()
  lines = re.findall(r"^\| \[(\w+)\]\(#\1\) \| (.+) \|$", text, re.MULTILINE)
  sections = re.findall(r"^## (\w+)$", text, re.MULTILINE)
  assert [name for name, _ in lines] == sections
  return {name: cells.split(" | ") for name, cells in lines}


def test_a_recipe_takes_the_place_of_its_last_row(results, tmp_path):
  store, table = tmp_path / "kept.json", tmp_path / "RESULTS.md"
  rng = random.Random(0)
  names = list(results.RECIPES)
  for name in reversed(names):
    results.keep(name, record(rng, ["test", "validation"], 2), store, table)
  before = rows(table)
  assert list(before) == names  # In the order of the script.
  assert "Not yet run" not in table.read_text()

  name = names[1]
  new = record(rng, ["test", "validation"], 3)
  results.keep(name, new, store, table)
  after = rows(table)
  assert list(after) == names
  assert [n for n in names if before[n] != after[n]] == [name]
  values = [run["test"] for run in new["runs"].values()]
  expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
  assert expected in after[name]
  seconds = np.mean([run["seconds"] for run in new["runs"].values()])
  assert (
    f"    {new['command']}\n\n1,234,567 parameters; {seconds:.0f} s a seed;"
    " seeds 0, 1, 2; Python 3.1, jax 0.2, flax 0.3.\n"
  ) in table.read_text()
  assert json.loads(store.read_text())[name] == new


def test_a_row_says_what_its_model_has_learned_from_before(results, tmp_path):
  plain = results.RECIPES["sst2"]
  pretrained = plain._replace(pretrained="the reviews of IMDB")
  results.check_start(plain, tmp_path)
  with pytest.raises(SystemExit, match="started from nothing, but"):
    results.check_start(pretrained, tmp_path)
  began = transfer.Record("runs/lm", 1, {"embedding": ""}, [], [])
  (tmp_path / transfer.RECORD).write_bytes(began.encoded())
  results.check_start(pretrained, tmp_path)
  with pytest.raises(
    SystemExit, match="started from runs/lm, not from nothing"
  ):
    results.check_start(plain, tmp_path)
  kept = record(random.Random(0), ["test", "validation"], 1)
  assert "**pretrained** on the reviews" in results.row("a", pretrained, kept)
  assert "pretrained" not in results.row("a", plain, kept)


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
