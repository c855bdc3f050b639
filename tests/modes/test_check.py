"""check: a sound model is in all ranges; each fault has its sentence."""

import re

import numpy as np
import pytest

from seqrnn import experiments
from seqrnn.modes import check
from tests.conftest import tiny


@pytest.fixture
def checked(tmp_path, capsys):
  """A function fields, build -> figures, printed text."""

  def call(fields, build=experiments.build):
    figures = check.run(build, tiny(tmp_path, fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return figures, capsys.readouterr().out

  return call


def test_a_sound_model_is_in_all_ranges(checked):
  figures, out = checked({"task": "gap_model", "model.heads": "all"})
  assert "leak probe: passed" in out
  assert "should be" not in out
  layers = {"layer 1 forward", "layer 1 backward"}
  assert figures[check.DEAD].keys() == layers
  heads = {"joint head", "forward head", "backward head"}
  assert figures[check.UPDATE].keys() == layers | heads
  assert figures[check.START][""] == pytest.approx(1, abs=0.1)


def test_layers_are_alone_where_a_wide_part_is_fitted(checked, tmp_path):
  texts = [f"{x}\t{x * k}\n" for k in range(2, 30) for x in "ab"]
  (tmp_path / "texts").write_text("".join(texts))
  fields = {"data.path": str(tmp_path / "texts"), "data.format": "tab"}
  fields |= {"task": "classification", "train.choice": "last"}
  figures, out = checked({**fields, "model.wide": True})
  assert figures[check.START][""] == pytest.approx(1, abs=0.2), out
  assert figures[check.UPDATE].keys() == {"layer 1 forward", "head"}
  assert "should be" not in out


def test_each_fault_has_a_sentence(checked):
  """Exploding and dead units, a tiny rate, an output that reads its target."""

  def build(*arguments):
    experiment = experiments.build(*arguments)

    def init(key):  # A rectified unit that never sees a positive sum.
      params = experiment.init(key)
      cell = params["body"]["layers_0"]["cell"]
      cell["bias"] = cell["bias"].at[0].set(-1e9)
      return params

    leaking = lambda T: np.ones((T, T), bool)
    return experiment._replace(init=init, forbidden=leaking)

  fields = {"model.cell": "rnn_relu", "model.initial_scale": 3.0}
  rate = {"optimizer.learning_rate": 1e-7}
  figures, out = checked({**fields, **rate}, build)
  for _, _, cause in check.RANGES.values():
    assert re.search(f"\n  should be .*{cause}\n", out), out
  assert "leak probe: the model leaks" in out
  # A rectified unit grows with each step, and so does its gradient.
  column = figures[f"{check.GRADIENT} 4"]
  assert column["layer 1 forward"] > 10
