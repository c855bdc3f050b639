"""Flags, help, and messages about flags that do not exist."""

import re

from seqrnn import cli
from seqrnn.config import read as config_lib
from seqrnn.modes import config as config_mode
from tests.test_run import ROOT, start

# What takes a second and more to import.
HEAVY = {"jax", "flax", "optax", "orbax", "scipy", "matplotlib", "rich"}


def values(*flags):
  """The fields that a command line sets."""
  parsed = cli.define_flags()
  cli.parse_flags(parsed, ["run.py", *flags])
  return cli.overrides_of_flags(parsed)


def test_a_flag_sets_a_field():
  cases = {
    "--config.model.hidden_size=3": {"model.hidden_size": 3},
    "--config.train.max_steps=1e3": {"train.max_steps": 1000},
    "--config.train.max_steps=none": {"train.max_steps": None},
    "--config.optimizer.learning_rate -3": {"optimizer.learning_rate": -3.0},
    "--config.data.path==a=b": {"data.path": "=a=b"},
    "--config.data.stateful": {"data.stateful": True},
    "--noconfig.data.stateful": {"data.stateful": False},
    "--config.seed=3 --config.seed=4": {"seed": 4},
    "--config.model.merge=SUM": {"model.merge": "sum"},
    "--config.sample.temperature=.5,1": {"sample.temperature": (0.5, 1.0)},
    "--config.search.space=a=1 --config.search.space=b=2": {
      "search.space": ("a=1", "b=2")
    },
  }
  before, after = ["--config", "x", "--nodebug"], ["--mode=train"]
  faults = [
    (typed, result)
    for typed, expected in cases.items()
    if (result := values(*before, *typed.split(), *after)) != expected
  ]
  assert not faults


def test_a_wrong_flag_is_refused_in_a_line(capfd):
  cases = {
    "--config.train.save_every=3": "--config.train.save_every: no such flag;"
    " did you mean --config.checkpoint.every?",
    "--hidden_size=3": "--hidden_size: no such flag; did you mean"
    " --config.model.hidden_size?",
    "--model=lstm": "--model: no such flag; did you mean --config.model.cell?",
    "--config.seed=x": "config.seed='x': must be from 0 to 2**32 - 1",
    "rnn": "'rnn': not a flag; flags begin with --",
    "--follow": "--follow: needs --mode=detect, not train",
    "--help=modle": r".*did you mean model\?",
  }
  faults = []
  for typed, expected in cases.items():
    assert cli.main(["run.py", typed]) == 2
    line = capfd.readouterr().err
    if line != f"error: {expected}\n" and not re.match(expected, line):
      faults.append((typed, line))
  assert not faults


def test_help_imports_nothing_heavy():
  script = f"""
import sys
from seqrnn import cli
for line in ("--help", "--help=sample", "--config=rnn --config.seed=x"):
  cli.main(["seqrnn", *line.split()])
print(*{HEAVY} & set(sys.modules), "none")
from seqrnn import experiments
from seqrnn.experiments import language_model
from seqrnn.logs.follow import follow
from seqrnn.modes import predict, sample
slow = {{"scipy.special", "scipy.sparse", "optax", "matplotlib.pyplot"}}
print(*slow & set(sys.modules), "none")
"""
  done = start("-c", script)
  assert done.stdout.endswith("\nnone\nnone\n"), done


def test_help_has_a_line_for_each_mode_config_and_flag(capsys):
  modes = {p.stem for p in ROOT.glob("seqrnn/modes/[!_]*.py")}
  assert set(config_lib.MODES) == modes
  assert cli.main(["run.py"]) == 0
  out = capsys.readouterr().out
  assert max(map(len, out.splitlines())) <= 80
  assert "python run.py --config=brnn\n" in out
  flags = [f"--{name}" for name in cli.define_flags() if "config." not in name]
  modes, _, others = out.partition("Configs")
  for text, names in (
    (modes, config_lib.MODES),
    (others, config_lib.config_names() + flags),
  ):
    for name in names:
      assert len(re.findall(rf"^  {name}  +\S", text, re.M)) == 1, name
  assert cli.main(["/x/bin/seqrnn", "--help"]) == 0
  assert "  seqrnn --config=brnn\n" in capsys.readouterr().out


def test_version_is_a_line_each(capsys, monkeypatch):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/a/cache")
  assert cli.main(["seqrnn", "--version"]) == 0
  out = capsys.readouterr().out
  pattern = (
    r"python 3\..*\nseqrnn .*\njax \d.*\n(.*\n)+cache /a/cache\ndevices 4"
  )
  assert re.match(pattern, out)


def test_a_config_is_printed_as_one_can_be_read(tmp_path, capsys):
  config = config_lib.defaults()
  config.model.hidden_size = 7
  config.data.path = "a\nb"
  config_mode.run(None, config, tmp_path)
  out, err = capsys.readouterr()
  (tmp_path / "c.json").write_text(out)
  again = config_lib.read_config(tmp_path / "c.json")
  assert config_lib.differences(config, again) == []
  assert err.splitlines() == [
    f"{tmp_path}: 2 fields differ from the defaults",
    "  data.path: None -> 'a\\nb'",
    "  model.hidden_size: 128 -> 7",
  ]
