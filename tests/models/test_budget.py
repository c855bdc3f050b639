"""Hidden sizes from a number of parameters."""

import json

from seqrnn import cli, experiments
from seqrnn.config.resolve import Facts, resolve
from seqrnn.experiment import shapes
from tests.conftest import tiny
from tests.models.test_cells import count


def test_the_largest_model_within_the_budget(tmp_path):
  parameters = lambda H: 3 * H * H + 5 * H + 2
  facts = Facts(parameters=lambda config: parameters(config.model.hidden_size))
  for budget, expected in (
    (parameters(7) - 1, 6),
    (parameters(7), 7),
    (2**31 - 1, 26754),
  ):
    config = tiny(tmp_path, {"model.parameters": budget})
    assert resolve(config, facts)[0].model.hidden_size == expected
    assert config.model.hidden_size == 8  # The config itself is unchanged.


def test_a_run_keeps_its_hidden_size(tmp_path, capfd):
  base = tmp_path / "base.json"
  fields = {"train.max_steps": 1, "model.hidden_size": 3}
  base.write_text(tiny(tmp_path, fields).to_json())
  workdir = tmp_path / "run"

  def go(*flags):
    argv = ["run.py", f"--config={base}", f"--workdir={workdir}", *flags]
    status = cli.main(argv)
    return status, capfd.readouterr()

  budget = "--config.model.parameters=750"  # As many as 8 units need.
  status, shown = go(budget)
  assert status == 0
  written = json.loads((workdir / "config.json").read_text())["model"]
  assert written["parameters"] == 750 and written["hidden_size"] == 8
  assert "model.parameters=750: model.hidden_size=8\n" in shown.out
  run = experiments.load(workdir)
  assert count(run.params) <= 750
  run.config.model.hidden_size += 1
  larger = experiments.build(run.config, run.experiment.vocabularies)
  assert count(shapes(larger)) > 750

  status, shown = go(budget)
  assert status == 0 and "hidden_size" not in shown.out
  status, shown = go("--config.model.parameters=751")
  assert status == 2 and "holds another run" in shown.err
