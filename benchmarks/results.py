"""Runs a recipe over seeds and writes its row of RESULTS.md.

  python benchmarks/results.py jsb                        # seeds 0, 1, 2
  python benchmarks/results.py jsb --seeds=1 --cache=kept

A recipe of benchmarks/recipes.toml is a config of configs/ with a data set of
the catalogue, which is downloaded. For each seed, run.py trains in its own
process and evaluates the checkpoint with the best validation loss.
benchmarks/results.json keeps the figures of every seed, and the tables of
RESULTS.md are made from it; running a recipe again replaces its row. The cache
folder has the runs; an interrupted run is resumed, and a finished run is not
repeated.
"""

import argparse
import csv
import statistics
import tempfile
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import recipes
from pages import put, table
from recipes import ROOT, spread

from seqrnn import catalogue
from seqrnn.run import load_run

_KEPT = ROOT / "benchmarks" / "results.json"
_PAGE = ROOT / "RESULTS.md"
_MARKS = "<!-- made by benchmarks/results.py -->", "<!-- end of the figures -->"


class Recipe(NamedTuple):
  """A data set, its training, and the figures to compare with.

  The attributes are those that benchmarks/recipes.toml describes; `fields`
  includes the shared ones.
  """

  what: str
  source: str
  metric: str
  figure: str
  published: str
  baseline: str
  config: str
  fields: dict[str, Any]
  splits: tuple[str, ...] = ("validation", "test")
  pretrained: str = ""
  prepare: str = ""
  notes: tuple[str, ...] = ()


def read_recipes() -> dict[str, Recipe]:
  """Returns the recipes of recipes.toml by name."""
  path = ROOT / "benchmarks" / "recipes.toml"
  tables = tomllib.loads(path.read_text("utf-8"))
  shared = tables.pop("shared")
  for entry in tables.values():
    entry["fields"] = recipes.inherit(entry["fields"], shared)
  return {name: Recipe(**entry) for name, entry in tables.items()}


RECIPES = read_recipes()


def settings(recipe: Recipe) -> list[str]:
  """Returns the flags of run.py."""
  fields = {"data.source": recipe.source, **recipe.fields}
  return [f"--config={recipe.config}", *recipes.flags(fields)]


def measure(recipe: Recipe, flags: list[str], workdir: Path) -> dict[str, Any]:
  """Trains and evaluates one seed; returns figures, parameters, seconds."""
  import jax

  recipes.run([*flags, f"--workdir={workdir}"])
  measured: dict[str, Any] = {}
  for split in recipe.splits:
    figures = recipes.evaluate(workdir, split)
    measured[split] = figures[recipe.figure]
    measured["step"] = figures["step"]
  check_start(recipe, workdir)
  with (workdir / "timing.csv").open(newline="") as file:
    measured["seconds"] = sum(
      float(row["seconds"]) + float(row["evaluation_seconds"])
      for row in csv.DictReader(file)
    )
  params = load_run(workdir).params
  measured["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(params))
  return measured


def check_start(recipe: Recipe, workdir: Path):
  """Refuses a row that does not say whether its runs start from nothing.

  Raises:
    SystemExit: `pretrained` of the recipe says another thing than start.json.
  """
  from seqrnn.training import transfer

  record = transfer.read_record(workdir)
  if record is not None and not recipe.pretrained:
    raise SystemExit(
      f"{workdir}: started from {record.workdir}, not from nothing; the recipe"
      " must have `pretrained`"
    )
  if record is None and recipe.pretrained:
    raise SystemExit(
      f"{workdir}: started from nothing, but the recipe has"
      f" pretrained={recipe.pretrained!r}"
    )


_HEAD = ["recipe", "data, split", "test", "validation", "published", "baseline"]


def row(name: str, recipe: Recipe, record: dict[str, Any]) -> list[str]:
  """Returns the cells of a recipe in the table."""
  runs = record["runs"].values()
  figures = [
    spread([run[split] for run in runs]) if split in recipe.splits else "-"
    for split in ("test", "validation")
  ]
  what = f"{recipe.what}: **{recipe.metric}**"
  if recipe.pretrained:
    what += f"; **pretrained** on {recipe.pretrained}"
  published = (recipe.published, recipe.baseline)
  return [f"[{name}](#{name})", what, *figures, *published]


def cost(record: dict[str, Any]) -> str:
  """Returns a line on what the runs of a recipe took."""
  runs = record["runs"].values()
  parameters = next(iter(runs))["parameters"]
  seconds = statistics.mean(run["seconds"] for run in runs)
  versions = zip(("Python", "jax", "flax"), record["versions"], strict=True)
  return (
    f"{parameters:,} parameters; {seconds:,.0f} s a seed; seeds"
    f" {', '.join(record['runs'])}; {', '.join(map(' '.join, versions))}."
  )


def origin(name: str) -> str:
  """Returns the place and the citation of a data set."""
  known = catalogue.sets().get(name)
  if known is None:
    return "the tables that the first command writes"
  return f"{known.page or known.repository} ({known.cite})"


def render(records: dict[str, Any]) -> str:
  """Makes the tables of RESULTS.md from the records of results.json."""
  ran = {name: RECIPES[name] for name in RECIPES if name in records}
  rows = [row(name, recipe, records[name]) for name, recipe in ran.items()]
  lines = [table(_HEAD, rows)]
  missing = [name for name in RECIPES if name not in records]
  if missing:
    lines += ["", f"Not yet run: {', '.join(missing)}."]
  for name, recipe in ran.items():
    seeds = len(records[name]["runs"])
    lines += [
      "",
      f"## {name}",
      "",
      f"Data: `{recipe.source}`, from {origin(recipe.source)}.",
      "",
      *(["Once:", "", f"    {recipe.prepare}", ""] if recipe.prepare else []),
      f"    python benchmarks/results.py {name} --seeds={seeds}",
      "",
      "which runs, and then evaluates, with each of the seeds,",
      "",
      f"    python run.py {records[name]['commands'][0]} --config.seed=0",
      "",
      cost(records[name]),
    ]
    if recipe.notes:
      lines += ["", "Experiments that were worse, on validation:", ""]
      lines += [f"- {note}" for note in recipe.notes]
  return "\n".join(lines)


def main(argv: list[str] | None = None):
  """Runs a recipe, and saves the figures after each seed."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("name", choices=RECIPES)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--cache", type=Path)
  arguments = parser.parse_args(argv)
  recipe = RECIPES[arguments.name]
  with tempfile.TemporaryDirectory() as temporary:
    cache = (arguments.cache or Path(temporary)).resolve()
    flags = settings(recipe)
    command = " ".join(flags)
    for seed in range(arguments.seeds):
      workdir = recipes.workdir(cache, arguments.name, command, seed)
      run = measure(recipe, [*flags, f"--config.seed={seed}"], workdir)
      records = recipes.keep(_KEPT, arguments.name, [command], seed, run)
      put(_PAGE, _MARKS, render(records))


if __name__ == "__main__":
  main()
