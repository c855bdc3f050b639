"""Programs for GPUs and TPUs that are not here, as JAX exports them.

What XLA makes of them is tested with `-m ahead`, where libtpu is installed.
"""

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export

import experiments
from benchmarks import ahead_page, hlo, programs
from seqrnn.models.cells import CELLS
from seqrnn.runtime import sharding
from tests import stablehlo
from tests.conftest import tiny

ROOT = Path(__file__).parents[1]
PLATFORMS = ("cuda", "tpu")
# More than a product with one-hot vectors takes.
WORDS = [f"w{n}" for n in range(700)]
WIDE = {"data.unit": "word", "data.window": 8}
# One of each: the files of a task, and what only some models have.
TASKS = {
  "gap_model": {},
  "language_model": {"model.layers": 2, "model.dropout": 0.1},
  "polyphony": {"data.source": "chords", "data.validation_fraction": 0.2},
  "classification": {"data.format": "tab", "model.bidirectional": True},
  "tagging": {
    "data.format": "columns",
    "model.embedding_size": 4,
    "model.letters": 4,
    **WIDE,
  },
}
MODELS = {
  "stateful": {"data.stateful": True},
  "many to one": {"data.mapping": "many_to_one"},
  "wide": WIDE,
  "tied": {**WIDE, "model.tied": True, "model.embedding_size": 8},
  "plain": {"model.scan": "plain"},
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
  """A folder with a file of each format."""
  folder = tmp_path_factory.mktemp("texts")
  words = WORDS * 4
  lines = [" ".join(words[n : n + 20]) for n in range(0, len(words), 20)]
  (folder / "text").write_text("\n".join(lines))
  (folder / "tab").write_text(
    "".join(f"{n % 2}\t{line}\n" for n, line in enumerate(lines))
  )
  (folder / "columns").write_text(
    "".join(
      "".join(f"{word} {word[-1]}\n" for word in line.split()) + "\n"
      for line in lines
    )
  )
  return folder


def check(texts, fields, platform, devices=1):
  """Exports the training step of a tiny config; tests what always holds."""
  form = fields.get("data.format", "text")
  given = {"train.batch_size": 4, **fields}
  if "data.source" not in fields:
    given["data.path"] = str(texts / form)
  config = tiny(texts, given)
  mesh: Any = stablehlo.mesh_of(platform, devices)
  made = programs.training(config, experiments.build(config, None), mesh)
  exported = export.export(made.function, platforms=[platform])(*made.args)
  assert exported.nr_devices == devices
  text = str(exported.mlir_module())
  assert set(stablehlo.products(text)) == {"HIGHEST"}
  # A TPU adds the rows of a table in their order; `plain` does what JAX does.
  if platform == "cuda" and fields.get("model.scan") != "plain":
    assert not stablehlo.unordered_sums(text)
  assert "LayoutConstraint" not in text  # What only the CPU needs; cpu.py.


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("task", experiments.TASKS)
def test_the_step_of_a_task(texts, task, platform):
  check(texts, {"task": task, **TASKS.get(task, {})}, platform, devices=2)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_step_of_a_cell(texts, cell, platform):
  check(texts, {"model.cell": cell}, platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("model", MODELS)
def test_the_step_of_a_model(texts, model, platform):
  check(texts, MODELS[model], platform)


def test_the_reader_of_programs():
  """Loops inside loops, what waits for other devices, and precision."""
  mesh = sharding.mesh()

  def step(_, h_BH):
    return jnp.tanh(jnp.matmul(h_BH, h_BH.T @ h_BH, precision="highest"))

  def steps(h_BH, _):
    return jax.lax.fori_loop(0, 3, step, h_BH), None

  function = lambda x_BH: jax.lax.scan(steps, x_BH, length=5)[0].sum()
  x_BH = programs.shapes(jnp.zeros((4, 8)), sharding.by_rows(mesh))
  program = hlo.Program(jax.jit(function).lower(x_BH).compile().as_text())
  assert [(x.trips, x.depth) for x in program.loops()] == [(5, 0), (3, 1)]
  outer, inner = (loop.collectives for loop in program.loops())
  assert outer == 3 * inner > 0
  inside, outside = program.collectives()
  assert inside == inner and outside == 1
  assert set(program.precisions()) == {"highest"}


def test_commands_of_the_page(monkeypatch):
  """They name targets, configs, cells and programs that there are."""
  monkeypatch.syspath_prepend(ROOT / "benchmarks")
  ahead = importlib.import_module("ahead")
  page = (ROOT / "docs" / "results" / "accelerators.md").read_text("utf-8")
  commands = re.findall(r"^ +python benchmarks/ahead.py (.*)$", page, re.M)
  asked = [[*ahead.jobs(ahead.parse(shlex.split(line)))] for line in commands]
  assert len(asked) == 2 and asked[0] == [
    ("v5e:1x1", "rnn", (), "train"),
    ("v5e:1x1", "brnn", (), "train"),
  ]
  made = {(target, name, fields) for target, name, fields, _ in asked[1]}
  for name in ahead.config_names():
    assert {(target, name, ()) for target in ("v5e:2x2", "h100:1")} <= made
  for cell in CELLS:
    field = (f"model.cell={cell}",)
    assert {(target, "rnn", field) for target in ("v5e:2x2", "h100:1")} <= made


def test_the_page_has_the_rows():
  """Its tables are those of benchmarks/ahead.json."""
  rows = json.loads((ROOT / "benchmarks" / "ahead.json").read_text("utf-8"))
  page = (ROOT / "docs" / "results" / "accelerators.md").read_text("utf-8")
  assert ahead_page.tables(rows) in page
  assert not [place for place, row in rows.items() if "error" in row]
