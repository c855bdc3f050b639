"""RESULTS.md: rows from figures, and a row in the place of the last one."""

import json
import lzma
import random
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results
from configs import base
from seqrnn import config as config_lib

ROOT = Path(__file__).resolve().parents[1]


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
  """The cells of each row by its first one."""
  lines = re.findall(r"^\| (.+) \|$", table.read_text(), re.MULTILINE)
  cells = [line.split(" | ") for line in lines]
  return {first: rest for first, *rest in cells[2:]}


def test_a_recipe_takes_the_place_of_its_last_row(tmp_path):
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
  assert "1,234,567" in after[name] and "0, 1, 2" in after[name]
  assert new["command"] in table.read_text()
  assert json.loads(store.read_text())[name] == new


def test_what_did_not_run_has_no_row(tmp_path):
  store, table = tmp_path / "kept.json", tmp_path / "RESULTS.md"
  splits = results.RECIPES["char_rnn"].splits
  results.keep("char_rnn", record(random.Random(1), splits, 1), store, table)
  assert list(rows(table)) == ["char_rnn"]
  assert "±" not in rows(table)["char_rnn"]  # One seed has no deviation.
  rest = re.search(r"Not yet run: (.+)\.", table.read_text())
  assert rest is not None
  assert set(rest[1].split(", ")) == set(results.RECIPES) - {"char_rnn"}


def test_an_unknown_recipe_is_refused(capsys):
  with pytest.raises(SystemExit) as refused:
    results.main(["chess", "--data=."])
  assert refused.value.code == 2
  assert "'chess'" in capsys.readouterr().err


def test_every_recipe_is_a_config():
  for recipe in results.RECIPES.values():
    defaults = base.get_config()
    config = config_lib.read(ROOT / recipe.config, defaults)
    for name, value in recipe.fields.items():
      config_lib.override(config, name, str(value))
    config_lib.check(config)


def test_characters_of_ptb(tmp_path):
  (tmp_path / "ptb").mkdir()
  for split in ("train", "valid", "test"):
    with lzma.open(tmp_path / "ptb" / f"ptb.{split}.txt.xz", "wt") as file:
      file.write(" no it was n't \n  <unk> N \n")
  results.RECIPES["ptb"].prepare(tmp_path, tmp_path)
  for split in ("train", "valid", "test"):
    made = (tmp_path / f"ptb.{split}").read_bytes()
    assert made == b"no it was n't\n<unk> N\n"


def test_every_tenth_question_is_held_out(tmp_path):
  lines = [f"{n % 6} What is {n} \x85 \xe9 ?" for n in range(34)]
  (tmp_path / "trec").mkdir()
  for split in ("train", "test"):
    path = tmp_path / "trec" / f"TREC.{split}.all"
    path.write_bytes("\n".join([*lines, ""]).encode("latin-1"))
  results.RECIPES["trec"].prepare(tmp_path, tmp_path)
  made = {
    split: (tmp_path / f"trec.{split}").read_text("utf-8").split("\n")[:-1]
    for split in ("train", "validation", "test")
  }
  lower = [line.lower() for line in lines]
  assert made["validation"] == [lower[9], lower[19], lower[29]]
  assert sorted(made["train"] + made["validation"]) == sorted(lower)
  assert made["test"] == lower
