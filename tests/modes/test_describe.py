"""describe: counts that are true, and pictures that can be read."""

import itertools
import re

import jax
import pytest

from seqrnn import cli, experiments
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.data.read import terms
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.experiment import shapes
from seqrnn.models.cells import CELLS
from seqrnn.models.parts import part_sizes
from seqrnn.reporting import diagram

# They have the formulas of others.
VARIANT = re.compile("odyssey_(n|cifg)|_signed$|_untied$")
ONE_LABEL = {"data.mapping": "many_to_one"}

# Models by their fields, and how many boxes each row of the picture has.
MODELS = {
  "deep": ({"model.layers": 7}, "1111111111"),
  "heads": ({"task": "gap_model", "model.heads": "all"}, "122211111"),
  "bidirectional": (
    {**ONE_LABEL, "model.bidirectional": True, "model.block": "residual"},
    "12121111",
  ),
  "polyphony": ({"task": "polyphony", "model.nade": 3}, "111111"),
  "tagging": (
    {
      "task": "tagging",
      "data.unit": "word",
      "model.embedding_size": 3,
      "model.affixes": 2,
      "model.crf": True,
    },
    "11111111",
  ),
  "wide": (
    {
      "task": "classification",
      "model.embedding_size": 3,
      "model.convolution": 4,
      "model.bidirectional": True,
      "model.pooling": "attention",
      "model.wide": True,
    },
    "111212111111",
  ),
}


def model_of(fields):
  config = base.get_config()
  small = {
    "model.scan": "plain",
    "data.window": 4,
    "model.hidden_size": 5,
    "train.batch_size": 3,
  }
  config.update_from_flattened_dict({**small, **fields})
  config_lib.check(config)
  unit = config.data.unit
  symbols = {"symbols": Vocabulary(unit, tuple("abcdefg"))}
  labels = {"labels": Vocabulary("id", ("x", "y", "z"))}
  labels["terms"] = terms.vocabulary(["ab"], unit, None)
  labelled = config.task in ("tagging", "classification")
  return experiments.build(
    config, symbols | labels if labelled else symbols
  ), config


def value(part):
  """Of a formula as it is printed: 4(HD + H²) is 4*(H*D + H**2)."""
  formula = part.formula.replace("²", "**2")
  formula = re.sub(r"(?<=[\dA-Z)])(?=[A-Z(])", "*", formula)
  return eval(formula, {}, part.values)


def test_the_formula_of_a_cell_gives_its_parameters():
  heads = {"model.cell": "slstm", "model.cell_heads": 5}
  cells = [cell for cell in CELLS if not VARIANT.search(cell)]
  for fields in [heads, *({"model.cell": cell} for cell in cells)]:
    parts = part_sizes(*model_of(fields))
    names = [part.name for part in parts]
    assert names == ["layer 1", "layer 2", "head"]
    assert [part.parameters for part in parts] == list(map(value, parts))
    # The first one reads ids, the second one features.
    assert [part.values.get("D") for part in parts[:2]] == [11, 5]


@pytest.mark.parametrize("name", MODELS)
def test_a_picture_shows_all_parts(name):
  fields, counts = MODELS[name]
  experiment, config = model_of(fields)
  parts = part_sizes(experiment, config)
  leaves = jax.tree.leaves(shapes(experiment))
  total = sum(leaf.size for leaf in leaves)
  assert sum(part.parameters for part in parts) == total
  assert sum(map(value, parts)) == total
  pooled = experiment.by_text or "data.mapping" in fields
  boxes = diagram.boxes(experiment, config, parts, pooled)
  assert "".join(str(len(row)) for row in boxes) == counts
  names = [row[0][0] for row in boxes]
  if name == "wide":  # From the input up.
    assert names[1:4] == ["embedding", "convolution", "layer 1, forward →"]
    assert names[-4:-1] == ["attention", "head", "wide"]

  drawn = diagram.draw("a title", boxes)
  drawn.draw_without_rendering()
  [axes] = drawn.axes
  labels = [text for text in axes.texts if text.get_text()]
  lines = ["\n".join(box) for row in boxes for box in row]
  assert sorted(t.get_text() for t in labels) == sorted([*lines, "a title"])
  extents = [
    (box.get_window_extent() if (box := text.get_bbox_patch()) else None)
    or text.get_window_extent()
    for text in labels
  ]
  for a, b in itertools.combinations(extents, 2):
    assert not a.overlaps(b)
  for extent in extents:
    assert drawn.bbox.containsx(extent.x0) and drawn.bbox.containsx(extent.x1)
    assert drawn.bbox.containsy(extent.y0) and drawn.bbox.containsy(extent.y1)


def test_before_and_after_training(trained, tmp_path, capsys):
  run, workdir = trained(), tmp_path / "run"
  describing = ["run.py", f"--workdir={workdir}", "--mode=describe"]
  assert cli.main(describing) == 2
  assert "has no run" in capsys.readouterr().err
  assert cli.main([*describing, f"--config={run / 'config.json'}"]) == 0
  before = capsys.readouterr().out
  assert "A training step needs" in before
  written = {path.name for path in workdir.iterdir()}
  assert written == {"model.png"}
  describing[1] = f"--workdir={run}"
  assert cli.main(describing) == 0
  assert capsys.readouterr().out == before.replace(str(workdir), str(run))
