"""describe: counts that are true, and pictures that can be read."""

import csv
import functools
import itertools
import re
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch

import experiments
from configs import base
from seqrnn import program
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.models import anatomy, diagram
from seqrnn.models.cells import CELLS
from seqrnn.modes import describe
from seqrnn.runtime import figures, sharding
from seqrnn.settings import config as config_lib
from seqrnn.training import cost
from tests.conftest import tiny

SYMBOLS = {"symbols": Vocabulary("char", tuple("abcdefg"))}
ALL = {"model.dropout": 0.2, "model.variational_dropout": 0.1}
ONE_LABEL = {"data.mapping": "many_to_one"}

# Models by their fields, and how many boxes each row of the picture has.
MODELS = {
  "ids": ({"model.layers": 1}, "1111"),
  "deep": ({"model.layers": 7, **ALL}, "1111111111111"),
  "tied": (
    {"model.embedding_size": 5, "model.tied": True, "model.dropout": 0.2},
    "111111111",
  ),
  "gap": ({"task": "gap_model", "model.embedding_size": 3}, "11222111"),
  "deep gap": (
    {"task": "gap_model", "model.layers": 7, "model.zoneout_cell": 0.1},
    "122222111",
  ),
  "heads": ({"task": "gap_model", "model.heads": "all"}, "1222111"),
  "sum": ({"task": "gap_model", "model.merge": "sum", **ALL}, "12222222111"),
  "one label": (ONE_LABEL, "111111"),
  "bidirectional": ({**ONE_LABEL, "model.bidirectional": True}, "12122111"),
  "polyphony": ({"task": "polyphony", "model.input_noise": 0.1}, "11111"),
}


def model_of(fields):
  config = base.get_config()
  small = {"data.window": 4, "model.hidden_size": 5, "train.batch_size": 3}
  config.update_from_flattened_dict({**small, **fields})
  config_lib.check(config)
  experiment = experiments.build(config, SYMBOLS)
  notes = (88,) if config.task == "polyphony" else ()
  inputs = np.ones((3, 4, *notes), np.int32)
  batch = {"inputs": inputs, "reset": np.ones(3, bool)}
  model = anatomy.anatomy(experiment, config, batch)
  return model, config, experiment


@functools.cache
def named(name):
  return model_of(MODELS[name][0])


def value(part):
  """Of a formula as it is printed: 4(HD + H²) is 4*(H*D + H**2)."""
  formula = part.formula.replace("²", "**2")
  formula = re.sub(r"(?<=[\dA-Z)])(?=[A-Z(])", "*", formula)
  return eval(formula, {}, part.values)


@pytest.mark.parametrize("cell", CELLS)
def test_the_formula_of_a_cell_gives_its_parameters(cell):
  parts = anatomy.parts(model_of({"model.cell": cell})[0])
  names = [part.name for part in parts]
  assert names == ["layer 1", "layer 2", "head"]
  assert [part.parameters for part in parts] == list(map(value, parts))
  # The first one reads ids, the second one features.
  assert [part.values.get("D") for part in parts[:2]] == [11, 5]


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_are_the_whole(name):
  model, _, experiment = named(name)
  parts = anatomy.parts(model)
  params = jax.eval_shape(experiment.init, jax.random.key(0))
  total = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert sum(part.parameters for part in parts) == total
  assert sum(map(value, parts)) == total


@pytest.mark.parametrize("name", MODELS)
def test_a_picture_can_be_read(name):
  model, config, _ = named(name)
  rows = anatomy.picture(model, config)
  assert "".join(str(len(row)) for row in rows) == MODELS[name][1]

  drawn = diagram.figure("a title", rows)
  drawn.draw_without_rendering()
  [axes] = drawn.axes
  patches = [p for p in axes.patches if isinstance(p, FancyBboxPatch)]
  boxes = [patch.get_window_extent() for patch in patches]
  lines = [text for text in axes.texts if text.get_text()]
  for a, b in itertools.combinations(boxes, 2):
    assert not a.overlaps(b)
  for a, b in itertools.combinations(lines, 2):
    assert not a.get_window_extent().overlaps(b.get_window_extent())
  said = [line for row in rows for box in row for line in box.lines]
  assert sorted(t.get_text() for t in lines) == sorted([*said, "a title"])
  for text in lines:
    extent = text.get_window_extent()
    assert drawn.bbox.containsx(extent.x0) and drawn.bbox.containsx(extent.x1)
    around = [
      box.x0 < extent.x0 < extent.x1 < box.x1
      and box.y0 < extent.y0 < extent.y1 < box.y1
      for box in boxes
    ]
    assert sum(around) == (text.get_text() != "a title"), text.get_text()

  # In grayscale as in colour, and in words.
  for patch in patches:
    assert len(set(patch.get_facecolor()[:3])) == 1
  root = ElementTree.fromstring(figures.svg(drawn, "a title", "a < b"))
  space = {"svg": "http://www.w3.org/2000/svg"}
  assert root.findtext("svg:title", namespaces=space) == "a title"
  assert root.findtext("svg:desc", namespaces=space) == "a < b"
  words = diagram.text("a title", rows)
  assert all(line in words for line in said)


def test_advice_is_by_order_of_magnitude():
  assert "hidden_size" not in describe.advice(3_000, 1_000, "symbol")
  assert "underfit" in describe.advice(50, 1_000, "symbol")
  assert "overfit" in describe.advice(20_000, 1_000, "symbol")


def test_reach():
  texts = [
    describe.reach(*model_of(fields)[:2])
    for fields in ({}, {"data.stateful": True}, {"task": "gap_model"})
  ]
  assert "at most 4 symbols" in texts[0] and "stateful=False" in texts[0]
  assert "from the previous window" in texts[1]
  assert "both sides of a symbol, 3 symbols" in texts[2]


def test_the_estimate_is_near_to_what_is_measured(tmp_path):
  config = tiny(tmp_path, {"model.hidden_size": 64, "data.window": 32})
  experiment = experiments.build(config, None)
  batch = experiment.batches("train", 0)[0]
  model = anatomy.anatomy(experiment, config, batch)
  mesh = sharding.mesh()
  estimated = cost.estimate(model, experiment, config, batch, mesh)
  measured, compiling = cost.measure(experiment, config, batch, mesh)
  assert estimated.state == measured.state
  assert 1 / 4 < estimated.temporary / measured.temporary < 4
  assert min(estimated.seconds, measured.seconds, compiling) > 0


def test_before_and_after_training(tmp_path, capsys):
  workdir = tmp_path / "run"
  path = tmp_path / "config.json"
  config_lib.save(tiny(tmp_path, {"train.max_steps": 2}), path)
  begin = ["run.py", f"--workdir={workdir}"]
  estimate = [*begin, "--mode=describe", "--config.describe.measure=false"]

  assert program.main(estimate) == 2
  assert "has no run" in capsys.readouterr().err
  assert program.main([*estimate, f"--config={path}"]) == 0
  before = capsys.readouterr().out
  assert "estimated" in before and "measured" not in before
  written = {path.name for path in workdir.iterdir()}
  assert written == {"model.png", "model.svg", ".describe.lock"}

  assert program.main([*begin, f"--config={path}"]) == 0
  with (workdir / "metrics.csv").open() as file:
    assert [row["step"] for row in csv.DictReader(file)] == ["2"]
  capsys.readouterr()
  assert program.main(estimate) == 0
  assert (
    capsys.readouterr().out.split("estimated")[0]
    == before.split("estimated")[0]
  )
  other = f"--config={path}", "--config.model.hidden_size=9"
  assert program.main([*estimate, *other]) == 2
  assert "was trained with other settings" in capsys.readouterr().err


def test_parts_that_do_not_learn_and_fields_that_the_data_change(
  tmp_path, capsys
):
  fields = {"train.freeze": "layer1", "train.fit_to_data": "train.epochs"}
  path = tmp_path / "config.json"
  config_lib.save(tiny(tmp_path, fields), path)
  flags = ["run.py", f"--config={path}", f"--workdir={tmp_path / 'run'}"]
  flags += ["--mode=describe", "--config.describe.measure=false"]
  assert program.main(flags) == 0
  out = capsys.readouterr().out
  assert re.search(r"^640 of them are frozen", out, re.M), out
  assert "train.fit_to_data: train.epochs=" in out
  assert program.main([*flags, "--config.train.unfreeze_every=1"]) == 0
  assert "640 of them start later" in capsys.readouterr().out
