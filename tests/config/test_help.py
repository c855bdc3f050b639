"""What --help and --version print, and what they import for it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from seqrnn import program
from seqrnn.config import command, help, recipes
from seqrnn.config import read as config_lib
from seqrnn.modes import config as config_mode

ROOT = Path(__file__).parents[2]
# What takes a second and more to import.
HEAVY = {
  "jax",
  "flax",
  "optax",
  "orbax",
  "numpy",
  "scipy",
  "matplotlib",
  "rich",
}


def start(*arguments):
  return subprocess.run(
    [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True
  )


def test_help_imports_nothing_heavy():
  done = start("-X", "importtime", "run.py", "--mode=sample", "--help")
  assert done.returncode == 0
  lines = done.stderr.splitlines()
  # Each line has two times and a name; run.py starts itself once more.
  names = [line.rpartition("|")[2].strip() for line in lines]
  assert "seqrnn.config.read" in names
  assert not {name.partition(".")[0] for name in names} & HEAVY
  script = """
import sys
from seqrnn import program
for line in sys.argv[1:]:
  print(program.main(["seqrnn", *line.split()]))
assert "jax" not in sys.modules
"""
  lines = (
    "--help",
    "--help=sample",
    "--config=rnn --config.seed=x",
    "--config=rnn --config.train.lr=3",
    "--config=rnnn",
    "--mode=trian",
  )
  done = start("-c", script, *lines)
  assert done.returncode == 0, done.stderr
  assert done.stderr.count("error: ") == 4


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["--x", "--help"]])
def test_help_has_a_line_for_each_mode_config_and_flag(argv, capsys):
  assert program.main(["run.py", *argv]) == 0
  out, err = capsys.readouterr()
  assert err == "" and max(map(len, out.splitlines())) <= 80
  assert "python run.py --config=brnn\n" in out
  parsed = program.define()
  modes, _, rest = out.partition("Configs")
  flags = [f"--{name}" for name in parsed if "config." not in name]
  for text, names in ((modes, command.MODES), (rest, recipes.names() + flags)):
    for name in names:
      assert len(re.findall(rf"^  {name}  +\S", text, re.M)) == 1, name
  for name in recipes.groups_of_fields():
    assert name in out.partition("Settings")[2]


def test_the_program_is_named_as_it_was_typed(capsys):
  program.main(["/x/bin/seqrnn"])
  out = capsys.readouterr().out
  assert "  seqrnn --config=brnn\n" in out and "run.py" not in out


def test_each_mode_and_config_explains_itself():
  modes = {p.stem for p in ROOT.glob("seqrnn/modes/[!_]*.py")}
  assert set(command.MODES) == modes
  assert all(help.mode_lines().values()) and all(help.config_lines().values())


def test_a_config_of_the_users_need_not_parse(tmp_path, monkeypatch):
  (tmp_path / "configs").mkdir()
  for name, text in (("bad", "def ("), ("bare", "x = 1"), ("nul", "\0")):
    (tmp_path / "configs" / f"{name}.py").write_text(text)
  monkeypatch.chdir(tmp_path)
  lines = help.config_lines()
  assert (lines["bad"], lines["bare"], lines["nul"]) == ("", "", "")
  assert program.main(["seqrnn", "--help"]) == 0


def test_help_of_fields(capsys):
  assert program.main(["run.py", "--help=all"]) == 0
  every = capsys.readouterr().out
  for name, field in config_lib.FIELDS.items():
    value = config_lib.text(field.default)
    assert f"--config.{name}={value}  (default)\n    " in every
    assert field.help.split()[-1] in every
  assert program.main(["run.py", "--help=model.forget_bias"]) == 0
  assert capsys.readouterr().out.startswith(
    "--config.model.forget_bias=1.0  (default)\n"
  )
  for argv in (["--help", "model.forget_bias"], ["-h", "model.forget_bias"]):
    assert program.main(["run.py", *argv]) == 0
    assert capsys.readouterr().out.startswith("--config.model.forget_bias=1")
  assert program.main(["run.py", "--mode=sample", "--help=sample"]) == 0
  out = capsys.readouterr().out
  names = re.findall(r"^--config\.([a-z_.]+)=", out, re.MULTILINE)
  assert set(names) == {n for n in config_lib.FIELDS if n.startswith("sample.")}


def test_help_has_the_values_of_the_config_that_is_named(tmp_path, capsys):
  config = config_lib.defaults()
  config.model.hidden_size = 7
  config_lib.save(config, tmp_path / "config.json")
  workdir = f"--workdir={tmp_path}"
  for flags, value, origin in (
    (["--config=rnn"], 288, "--config=rnn; the default is 128"),
    (["--config", "rnn", "--unknown"], 288, "--config=rnn; the default is 128"),
    ([workdir, "--mode=sample"], 7, f"{workdir}; the default is 128"),
    ([workdir, "--config=base"], 128, "default"),
  ):
    for argv in ([*flags, "--help=model.hidden_size"], ["-h", "model", *flags]):
      assert program.main(["run.py", *argv]) == 0
      line = f"--config.model.hidden_size={value}  ({origin})\n"
      assert line in capsys.readouterr().out, argv
  for flags in (["--config=rnnn"], [f"--workdir={tmp_path / 'no'}"]):
    assert program.main(["run.py", *flags, "--help=model"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {flags[0]}")


@pytest.mark.parametrize(
  ("wanted", "ending"),
  [
    ("modle", "did you mean model?"),
    ("lr", "did you mean optimizer.learning_rate?"),
    ("name", "did you mean optimizer.name or schedule.name?"),
    ("", "export, search"),
    ("\u00fc", "export, search"),
  ],
)
def test_help_of_nothing(wanted, ending, capsys):
  assert program.main(["run.py", f"--help={wanted}"]) == 2
  err = capsys.readouterr().err
  assert err.startswith(f"error: --help={wanted}: must be all,")
  assert err.endswith(f"{ending}\n")


def test_version_is_a_line_each(capsys, monkeypatch):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/a/cache")
  assert program.main(["seqrnn", "--version", "--mode=x"]) == 0
  out, err = capsys.readouterr()
  assert err == ""
  assert re.fullmatch(
    r"seqrnn \S.*\npython 3\.\S+ \(.+\)\njax \d\S+\njaxlib \d\S+\n"
    r"flax \d\S+\noptax \d\S+\ncache /a/cache\ndevices 4 x cpu, .*\n",
    out,
  )
  assert help._version("no-such-package") == "(not installed)"


def test_a_config_is_printed_as_one_can_be_read(tmp_path, capsys):
  config = config_lib.defaults()
  config.model.hidden_size = 7
  config.data.path = "a\nb"
  config_mode.run(None, config, tmp_path)
  out, err = capsys.readouterr()
  (tmp_path / "c.json").write_text(out)
  found = config_lib.read(tmp_path / "c.json")
  assert config_lib.differences(config, found) == []
  assert err.splitlines() == [
    f"{tmp_path}: 2 fields differ from the defaults",
    "  data.path: None -> 'a\\nb'",
    "  model.hidden_size: 128 -> 7",
  ]
