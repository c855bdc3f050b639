"""The documentation: its commands work, and all names in it exist."""

import functools
import importlib
import os
import re
import shlex
import string
import sys
from pathlib import Path

import jax
import pandas as pd
import pytest

from docs import fields, outputs
from seqrnn import cli, experiments
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.data.sources.corpora import from_text
from seqrnn.errors import UserError
from seqrnn.models import cell, cells
from seqrnn.models.cells import classic, linear
from seqrnn.modes import report
from seqrnn.run import load_run
from seqrnn.training import train
from tests.conftest import tiny

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("**/*.md"))]
# Last parts of names that are of no module here.
OTHERS = re.compile(
  "conll|csv|db|gz|html|jit|json|jsonl|lock|log|md|mid|npy|npz|onnx|png|py|"
  "safetensors|svg|xz|yaml|yml"
)
MADE = ("runs/", "trials/")  # Folders that commands make.
LINE = re.compile(r'( {4,})?(?:[^`"]*(?:&&|\|) )?(python run\.py .*)')
ROW = re.compile(r"\[`(--config=\S+)`\]\(")  # Of the table of tasks.

# The modules of seqrnn by their last names, as documents give them.
MODULES = {
  path.stem: ".".join(path.relative_to(ROOT).with_suffix("").parts)
  for path in (ROOT / "seqrnn").glob("**/*.py")
} | {"seqrnn": "seqrnn", "cells": "seqrnn.models.cells"}

# What does not run here, by a part of it, and why.
LEFT_OUT = {
  f"configs/{name}.py": "test_configs has it"
  for name in (
    *("classification", "events", "names", "polyphony", "sentences"),
    *("sessions", "tagging", "text_generation", "words"),
  )
} | {
  "configs/char_rnn.py": "fetches its corpus",
  "configs/imdb_brnn.py": "reads files of the user's",
  "configs/ud_ewt.py": "fetches its corpus",
  "ids.txt": "reads files of the user's",
  "runs/dpkg": "reads files of the user's",
  "app.jsonl": "reads files of the user's",
  "--follow": "reads a log that grows",
  "shop.csv": "reads what benchmarks/shop_log.py writes",
  "runs/slow": "reads what benchmarks/shop_log.py writes",
  "zoo:shop": "reads what benchmarks/shop_log.py writes",
  "nginx": "reads what benchmarks/nginx_log.py writes",
  "engine=spark": "needs the extra spark",
  "batches_per_epoch=150": "resumes a run of the user's",
  "DATA/": "reads data sets that are no part of the project",
  "host0": "needs a second host",
  **{
    f"runs/{name}": f"needs the run of configs/{name}.py"
    for name in ("names", "polyphony", "tagging")
  },
  **{
    f"runs/{name}": "reads a table of the user's"
    for name in ("topic", "stars", "tags", "codes")
  },
  "hidden_size=256 ": "trains as configs/rnn.py, or needs that run",
  "odyssey_nfg": "trains as configs/rnn.py",
  "batch_size=512": "trains as configs/rnn.py",
  "search.method=coarse": "test_search has it",
  "grid(32, 64)": "test_search has it",
}
# The fields that differ in the recipes: two steps, little to read.
SMALL = {
  "train.max_steps": 2,
  "data.validation_fraction": 0.002,
  "data.test_fraction": 0.002,
  "data.window": 16,
  "model.hidden_size": 8,
  "model.layers": 1,
  "detect.folds": 0,
  "detect.rate": 0.6,  # A follower needs a p-value below it.
  "search.trials": 1,
}
RECIPE = """
from seqrnn.configs import {name}

def get_config():
  config = {name}.get_config()
  config.update_from_flattened_dict({fields})
  return config
"""
LOG = "2026-03-02 08:0{0}:{1:02} INFO shop: order-{2} item {1} reserved"


def commands(page):
  """The commands of a page in Markdown: indented, fenced, or a task's row."""
  if page.parent.name == "tutorials":
    return  # python -m docs.outputs runs it.
  text = page.read_text("utf-8")
  # Flags that a line of shell has put into a variable.
  names = dict(re.findall(r'^ *(\w+)="([^"]*)"', text, re.M))
  fenced = False
  for line in text.replace("\\\n", " ").splitlines():
    fenced ^= line.strip().startswith("```")
    match = LINE.fullmatch(line)
    if match and (match[1] or fenced):
      yield string.Template(match[2]).safe_substitute(names)
    elif line.startswith("|"):
      yield from (f"python run.py {flag}" for flag in ROW.findall(line))


COMMANDS = [line for page in PAGES for line in commands(page)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
  """Where all configs are, and a run of each, which has only begun."""
  folder = tmp_path_factory.mktemp("begun")
  (folder / "configs").symlink_to(ROOT / "configs")
  for path in (ROOT / "configs").glob("*.py"):
    workdir = folder / "runs" / path.stem
    workdir.mkdir(parents=True)
    config = config_lib.read_config(path)
    (workdir / "config.json").write_bytes(config_lib.encoded(config))
  (folder / "runs" / "mine").symlink_to(folder / "runs" / "rnn")
  # Of docs/howto/detect.md and nginx.md.
  for name in "app", "dpkg", "shop", "shop-2", "slow", "nginx":
    (folder / "runs" / name).symlink_to(folder / "runs" / "logs")
  for name in "topic", "stars", "tags":  # Of docs/howto/table.md.
    (folder / "runs" / name).symlink_to(folder / "runs" / "sentences")
  return folder


def test_a_command_means_a_config_and_a_workdir(begun, monkeypatch):
  monkeypatch.chdir(begun)
  for line in dict.fromkeys(COMMANDS):
    parsed = cli.define_flags()
    assert parsed(shlex.split(line, comments=True)[1:])[1:] == [], line
    command.resolve(parsed, cli.overrides_of_flags(parsed))


def test_there_are_commands_and_no_other_ones_are_left_out():
  assert len(COMMANDS) > 10
  assert not LINE.fullmatch("Call python run.py --mode=train as it is")
  for part in LEFT_OUT:
    assert any(part in line for line in COMMANDS), part


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A folder with small recipes, and with files as a user might have them."""
  (tmp_path / "configs").mkdir()
  for path in (ROOT / "configs").glob("*.py"):
    recipe = RECIPE.format(name=path.stem, fields=SMALL)
    (tmp_path / "configs" / path.name).write_text(recipe)
  lines = [LOG.format(n // 60, n % 60, n % 50) for n in range(400)]
  (tmp_path / "shop.log").write_text("\n".join(lines))
  (tmp_path / "my.txt").write_text("To be, or not to be?\n" * 300)
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.slow
def test_what_the_pages_say_works(checkout, capsys):
  """Every command, in its order: one needs the runs of those before it.

  Those of runs come after those with a config, which train.
  """
  few = functools.partial(re.sub, r"(?<=search\.trials=)\d+", "2")
  lines = [
    tuple(shlex.split(few(line), comments=True)[1:])
    for line in COMMANDS
    if not any(part in line for part in LEFT_OUT)
  ]
  lines.sort(key=lambda argv: not any("--config=" in flag for flag in argv))
  for argv in dict.fromkeys(lines):  # Each once, however often it is named.
    status = cli.main(list(argv))
    assert status == 0, f"{argv}: {capsys.readouterr().err}"
  texts = [f"{word} {n}" for n in range(30) for word in ("good", "bad")]
  frame = pd.DataFrame({"text": texts, "label": ["good", "bad"] * 30})
  names = {"df": frame, "new": frame[["text"]].copy()}
  exec("\n".join(blocks("howto/python.md")), names)
  exec("\n".join(blocks("howto/embeddings.md")), {})
  check_files(checkout / "runs")
  (checkout / "live.log").write_text((checkout / "shop.log").read_text())
  exec("\n".join(blocks("howto/operate.md")), {})


def check_files(runs):
  """The reference names all files of runs, and all columns of their tables."""
  page = (ROOT / "docs/reference/files.md").read_text("utf-8")
  known = set(re.findall(r"`([\w.-]+)/?`", page))
  # Of several; those of folders that a mode or a library keeps for itself.
  several = re.compile(
    r"(event|gap|symbol|label|probability)_\d+|search-\w+\.png|music-1-1\.\w+"
  )
  own = ("checkpoints", "trials", "folds", "follow")
  found = set()
  for path in runs.glob("*/**/*"):
    folders = path.relative_to(runs).parts[1:-1]
    if path.is_dir() or any(name in own for name in folders):
      continue
    found |= {path.name} if path.name[0] != "." else set()
    if path.suffix == ".csv":
      columns = path.read_text("utf-8").partition("\n")[0].split(",")
      if columns[0] not in ("truth", "trial"):  # Columns are labels, fields.
        found |= set(columns)
  assert [n for n in found - known if not several.fullmatch(n)] == []


def test_links_lead_somewhere_and_names_exist():
  faults, fields = [], config_lib.flat(base.get_config())
  for page in PAGES:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
      there = os.path.exists(page.parent / target)
      if not there and not target.startswith("https://"):
        faults.append((page, target))
    if page == README:
      continue
    for path in re.findall(r"`([\w.]+/[\w./]+)`", text):
      if not (path.startswith(MADE) or (ROOT / path).exists()):
        faults.append((page, path))
    for name in re.findall(r"`([A-Za-z_]\w*\.[\w.]+)`", text):
      module, *path = name.split(".")
      if name not in fields and not OTHERS.fullmatch(path[-1]):
        value = importlib.import_module(MODULES[module])
        for part in path:
          value = getattr(value, part)
  assert not faults


def test_the_reference_is_made_from_the_code():
  """After a change of fields, flags or modes: python -m docs.fields."""
  assert (fields.REFERENCE / "fields.md").read_text() == fields.fields_page()
  assert (fields.REFERENCE / "command.md").read_text() == fields.command_page()


def test_outputs_of_tutorials_are_written_and_compared():
  page = (
    "```sh\necho a 1\n```\n\n```text\n```\n\n"
    "```python\nx = 2\nx\n```\n\n```text varies\nold\n```\n"
  )
  new = outputs.renewed(page)
  assert "```text\na 1\n```\n" in new and "```text varies\n2\n```\n" in new
  compared = outputs.renewed(page, check=True)
  assert "```text varies\nold\n" in compared
  assert outputs.masked(compared) != outputs.masked(page)


def blocks(page):
  """The fenced blocks of Python of a page, in their order."""
  text = (ROOT / "docs" / page).read_text("utf-8")
  return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.DOTALL)


@pytest.mark.usefixtures("registrations")
def test_a_cell_as_the_guide_shows_it(tmp_path, monkeypatch):
  """The class and its registration are all that the program needs."""
  names, known = dict(vars(classic)), set(cells.CELLS)
  code, linear_code = blocks("howto/cell.md")
  exec(code.replace('"leaky"', '"as_the_guide"'), names)
  [name] = set(cells.CELLS) - known
  exec(linear_code, linear_names := dict(vars(linear)))
  zero_1 = jax.numpy.zeros(1)
  params = {"params": {"leak": zero_1, "bias": zero_1}}
  z_11 = jax.numpy.ones((1, 1))
  average = linear_names["Average"](1)
  assert average.apply(params, z_11, method="terms") == (0.5, 0.5)
  config = tiny(tmp_path, {"model.cell": name, "train.max_steps": 2})
  config_lib.check(config)
  assert not cell.source_crc32(name)  # As it is one of seqrnn's.
  codes = iter([1, 2])
  monkeypatch.setattr(cell, "source_crc32", lambda _: next(codes))
  train.fit(experiments.build, config, tmp_path / "run")
  with pytest.raises(UserError, match=f"code of .*{name}' has changed"):
    train.fit(experiments.build, config, tmp_path / "run")
  trained = load_run(tmp_path / "run")
  layer = trained.params["body"]["layers_0"]["cell"]
  D, H = len(trained.experiment.vocabularies["symbols"]), 8
  assert names["Leaky"].formula == "HD + H\u00b2 + 2H"
  assert sum(x.size for x in jax.tree.leaves(layer)) == H * D + H * H + 2 * H
  assert len(trained.sample("ab", length=5)[0]) >= 2


def test_a_task_as_the_guide_shows_it(tmp_path, monkeypatch):
  """A module is all that a new task takes."""
  [code] = blocks("howto/task.md")
  (tmp_path / "backwards.py").write_text(code)
  path = [*experiments.__path__, str(tmp_path)]
  monkeypatch.setattr(experiments, "__path__", path)
  # What the import adds is taken away at the end.
  monkeypatch.setattr(experiments, "backwards", None, raising=False)
  monkeypatch.setitem(sys.modules, "seqrnn.experiments.backwards", None)
  del sys.modules["seqrnn.experiments.backwards"]
  tasks = [*experiments.TASKS, "backwards"]
  monkeypatch.setattr(experiments, "TASKS", tasks)
  config = tiny(tmp_path, {"task": "backwards", "train.max_steps": 2})
  train.fit(experiments.build, config, tmp_path / "run")
  trained = load_run(tmp_path / "run").experiment
  [batch] = trained.batches(from_text("abc", "char"), 0)
  asked_T = batch["weights"][0] > 0
  names = trained.vocabularies["symbols"].names
  assert names(batch["inputs"][0][asked_T]) == ["<end>", *"cba"]
  assert names(batch["targets"][0][asked_T]) == [*"cba", "<begin>"]
  report.run(experiments.build, config, tmp_path / "run")
  page = (tmp_path / "run" / "report.html").read_text("utf-8")
  assert "It reads characters and predicts the one before." in page
  config.data.stateful = True
  with pytest.raises(
    UserError, match="config.task='backwards': each window is"
  ):
    experiments.build(config, trained.vocabularies)
