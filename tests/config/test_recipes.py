"""Configs are found by name, and a mistake in one is a line."""

from pathlib import Path

import pytest

from seqrnn.config import read as config_lib
from seqrnn.config import recipes
from seqrnn.errors import UserError

PROJECT = Path(__file__).parents[2] / "configs"


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A folder with configs of the user's, which is the current one."""
  (tmp_path / "configs").mkdir()
  (tmp_path / "runs" / "x").mkdir(parents=True)
  for name in ("configs/own.py", "configs/rnn.py", "words", "odd.txt"):
    (tmp_path / name).write_text("")
  (tmp_path / "runs" / "x" / "config.json").write_text("{}")
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize(
  ("given", "expected"),
  [
    ("brnn", PROJECT / "brnn.py"),
    ("base", PROJECT / "base.py"),
    ("configs/brnn.py", PROJECT / "brnn.py"),
    ("./configs/brnn.py", PROJECT / "brnn.py"),
    ("rnn", Path("configs/rnn.py")),  # The user's own is the first.
    ("own", Path("configs/own.py")),
    ("configs/own.py", Path("configs/own.py")),
    ("words", PROJECT / "words.py"),  # A name, and a file with this name.
    ("./words", Path("words")),
    ("odd.txt", Path("odd.txt")),
    ("runs/x/config.json", Path("runs/x/config.json")),
  ],
)
def test_a_name_or_a_path_leads_to_a_file(here, given, expected):
  del here
  found = recipes.find(given)
  assert found.resolve() == expected.resolve()


@pytest.mark.parametrize(
  ("given", "begin", "end"),
  [
    ("brn", "no such config; the configs are brnn, ", "did you mean brnn?"),
    ("configs/brn.py", "no such file; the configs", "did you mean brnn?"),
    ("BRNN", "no such config; the configs", "did you mean brnn?"),
    ("on", "no such config; ", "did you mean own?"),
    ("brnn.py", "no such file; ", "did you mean brnn?"),
    ("runs/x", "is a folder, must be a file", "--workdir=runs/x uses this run"),
    ("runs", "is a folder, must be a file", "file"),
    ("\u00fc\ud800", "no such config; ", "words"),
    ("a/b/c", "no such file; ", "words"),
  ],
)
def test_a_wrong_name_lists_those_there_are(here, given, begin, end):
  del here
  with pytest.raises(UserError) as caught:
    recipes.find(given)
  message = str(caught.value)
  assert message.startswith(f"--config={given}: {begin}")
  assert message.endswith(end) and "base" not in message


CONFIG = """from configs import base

def get_config():
  c = base.get_config()
  {line}
  return c
"""


def test_a_mistake_in_a_config_is_a_line_with_a_hint(tmp_path):
  hint = "hiden_size: no such field; did you mean model.hidden_size?"
  cases = {
    "c.model.hiden_size = 3": hint,
    "c.update({'model': {'hiden_size': 3}})": hint,
    "c.model.units": "AttributeError: 'units'",
    "c.train.max_steps = 'a'": "TypeError: Could not override field",
  }
  path, faults = tmp_path / "c.py", []
  for line, expected in cases.items():
    path.write_text(CONFIG.format(line=line))
    with pytest.raises(UserError) as caught:
      recipes.load(path)
    if not str(caught.value).startswith(f"{path}:5: {expected}"):
      faults.append((line, str(caught.value)))
  assert not faults


@pytest.mark.parametrize(
  ("line", "expected"),
  [
    ("1 / 0", "ZeroDivisionError: division by zero"),
    ("raise SystemExit(3)", "SystemExit: 3"),
    ("raise KeyError('x')", "KeyError: x"),
    ("import nothing", "ModuleNotFoundError: No module named 'nothing'"),
    ("{}.x", "AttributeError: 'dict' object has no attribute 'x'"),
    ("base.ConfigDict().x", "AttributeError: 'x'"),
    ("raise ValueError()", "ValueError: "),
  ],
)
def test_any_other_error_has_its_line(line, expected, tmp_path):
  (tmp_path / "c.py").write_text(CONFIG.format(line=line))
  (tmp_path / "folder").mkdir()
  for path in (tmp_path / "c.py", tmp_path / "folder" / ".." / "c.py"):
    with pytest.raises(UserError) as caught:
      recipes.load(path)
    assert str(caught.value) == f"{path}:5: {expected}"


def test_choices_may_be_in_any_case(tmp_path):
  path = tmp_path / "c.py"
  path.write_text(CONFIG.format(line="c.optimizer.name = 'AdamW'"))
  config = config_lib.read(path)
  assert config.optimizer.name == "adamw"
  config_lib.override(config, "model.cell", "LSTM")
  config_lib.override(config, "data.log_format", "AUTO")
  config_lib.override(config, "data.log_format", "None")
  assert (config.model.cell, config.data.log_format) == ("lstm", None)
  config_lib.override(config, "model.merge", "conct")
  with pytest.raises(UserError) as caught:
    config_lib.check(config)
  assert str(caught.value) == (
    "config.model.merge='conct': must be one of concat, sum, mean; did you mean"
    " concat?"
  )
