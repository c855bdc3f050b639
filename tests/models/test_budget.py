"""Hidden sizes from a number of parameters, against the formulas."""

import json

import jax

from seqrnn import cli, experiments
from seqrnn.config.resolve import Facts, resolve
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.experiment import shapes
from tests.conftest import tiny
from tests.models.test_cells import PARAMETERS, count

SYMBOLS = {"symbols": Vocabulary("char", tuple("abcde"))}
V = 9


def fitted(config):
  """The config with the hidden size of its budget."""
  parameters = lambda c: count(shapes(experiments.build(c, SYMBOLS)))
  return resolve(config, Facts(parameters=parameters))[0]


def test_the_largest_model_within_the_budget(tmp_path):
  layer = PARAMETERS["odyssey_fgr"]
  parameters = lambda H: layer(V, H) + layer(H, H) + H * V + V
  exact = parameters(7)
  for budget, expected in ((exact - 1, 6), (exact, 7)):
    fields = {"model.cell": "odyssey_fgr", "model.layers": 2}
    config = tiny(tmp_path, {**fields, "model.parameters": budget})
    resolved = fitted(config)
    assert resolved.model.hidden_size == expected
    assert config.model.hidden_size == 8  # The config itself is unchanged.
  assert count(shapes(experiments.build(resolved, SYMBOLS))) == exact
  config = tiny(tmp_path, {"model.parameters": 2**31 - 1})
  size = fitted(config).model.hidden_size
  parameters = lambda H: PARAMETERS["lstm"](V, H) + H * V + V
  assert parameters(size) < 2**31 <= parameters(size + 1)


def test_a_run_keeps_its_hidden_size(tmp_path, capfd):
  base = tmp_path / "base.json"
  fields = {"train.max_steps": 1, "model.embedding_size": 3}
  base.write_text(tiny(tmp_path, fields).to_json())
  workdir = tmp_path / "run"

  def go(*flags):
    argv = ["run.py", f"--config={base}", f"--workdir={workdir}", *flags]
    status = cli.main(argv)
    return status, capfd.readouterr()

  budget = "--config.model.parameters=2_000"
  status, shown = go(budget)
  assert status == 0
  written = json.loads((workdir / "config.json").read_text())["model"]
  assert written["parameters"] == 2000 and written["hidden_size"] not in (8, 1)
  run = experiments.load(workdir)
  assert count(run.params) <= 2000
  line = f"model.parameters=2000: model.hidden_size={written['hidden_size']}\n"
  assert line in shown.out
  shape = jax.tree.map(lambda x: x.shape, run.params)

  status, shown = go(budget, "--config.train.max_steps=2")  # It goes on.
  assert status == 0 and "resuming from step 1" in shown.out
  assert "hidden_size" not in shown.out
  assert shape == jax.tree.map(
    lambda x: x.shape, experiments.load(workdir).params
  )
  for other in ("--config.model.parameters=2_001", "--config.model.layers=2"):
    status, shown = go(budget, other)
    assert status == 2 and "holds another run" in shown.err

  # A hidden size among the flags takes the place of the run's own budget.
  argv = ["run.py", f"--workdir={workdir}", "--config.model.hidden_size=4"]
  assert cli.main(argv) == 2
  assert "model.parameters: 2000 -> None" in capfd.readouterr().err
