"""Configs: files, names of fields, and rules."""

import json
from pathlib import Path

import pytest

from seqrnn.config import command, suggestions
from seqrnn.config import read as config_lib
from seqrnn.config.read import FIELDS
from seqrnn.configs import base
from tests.conftest import message_of

PROJECT = Path(__file__).parents[2] / "configs"
CONFIG = """from seqrnn.configs import base

def get_config():
  c = base.get_config()
  {line}
  return c
"""


@pytest.fixture
def config():
  return base.get_config()


def test_a_name_or_a_path_leads_to_a_file(tmp_path, monkeypatch):
  (tmp_path / "configs").mkdir()
  names = "configs/own.py", "configs/rnn.py", "words", "some.txt", "mine.py"
  for name in (*names, "words.py"):
    (tmp_path / name).write_text("")
  monkeypatch.chdir(tmp_path)
  cases = {
    "brnn": PROJECT / "brnn.py",
    "configs/brnn.py": PROJECT / "brnn.py",
    "rnn": Path("configs/rnn.py"),  # The user's own is the first.
    "configs/own.py": Path("configs/own.py"),
    "words": PROJECT / "words.py",  # A name, and a file with this name.
    "./words": Path("words"),
    "some.txt": Path("some.txt"),
    "mine": Path("mine.py"),
    "./mine": Path("mine.py"),
    "configs/own": Path("configs/own.py"),
  }
  for name, path in cases.items():
    assert config_lib.find_config(name).resolve() == path.resolve(), name
  for name, hint in (("brn", "brnn"), ("configs/on.py", "own")):
    message = message_of(config_lib.find_config, name)
    assert message.startswith(f"--config={name}: no such file; the configs are")
    assert message.endswith(f"; did you mean {hint}?")


def test_a_config_takes_an_argument(tmp_path, monkeypatch):
  """As ml_collections has it: --config=FILE.py:ARGUMENT."""
  monkeypatch.chdir(tmp_path)
  text = CONFIG.format(line="c.model.hidden_size = len(name)")
  Path("mine.py").write_text(
    text.replace("def get_config()", 'def get_config(name="x")')
  )
  typed = ("mine.py:a:bcd", 5), ("./mine.py:", 0), ("mine.py", 1), ("mine", 1)
  for name, size in typed:
    file, argument = config_lib.split_argument(name)
    path = config_lib.find_config(file)
    config = config_lib.read_config(path, *argument)
    assert config.model.hidden_size == size, name
  message = message_of(config_lib.read_config, PROJECT / "rnn.py", "x")
  assert "get_config() takes 0 positional arguments" in message


def test_a_mistake_in_a_config_is_a_line(tmp_path):
  hint = "config.hiden_size: no such field; did you mean model.hidden_size?"
  cases = {
    "c.model.hiden_size = 3": hint,
    "1 / 0": "ZeroDivisionError: division by zero",
    "raise SystemExit(3)": "SystemExit: 3",
    "(": "SyntaxError: ",
  }
  path, faults = tmp_path / "c.py", []
  for line, expected in cases.items():
    path.write_text(CONFIG.format(line=line))
    message = message_of(config_lib.read_config, path)
    if not message.startswith(f"{path}:5: {expected}"):
      faults.append((line, message))
  assert not faults


def test_a_name_of_no_field_has_a_hint():
  cases = {
    "hidden_size": "model.hidden_size",
    "sample.temprature": "sample.temperature",
    "lr": "optimizer.learning_rate",
    "name": "optimizer.name or schedule.name",
  }
  for wrong, hint in cases.items():
    message = message_of(config_lib.converted, wrong, 1)
    assert message.endswith(f"no such field; did you mean {hint}?"), wrong
  for wrong in ("seed.x", "model.", "", "zzz", "\u00fc."):
    message = message_of(config_lib.converted, wrong, 1)
    assert message.endswith(": no such field"), wrong
  parts = {name.rpartition(".")[2] for name in FIELDS}
  for alias, field in suggestions.ALIASES.items():
    assert field in FIELDS and alias not in parts, alias


def test_a_run_of_another_format_is_refused(config, tmp_path):
  path = tmp_path / "config.json"
  path.write_bytes(config_lib.encoded(config))
  assert config_lib.read_run(tmp_path) == config
  for number in (None, 1, True):
    path.write_text(json.dumps({"format": number}))
    assert config_lib.read_config(path) == config  # A config of the user.
    assert message_of(config_lib.read_run, tmp_path).startswith(
      f"{path}: format={number!r}: must be 3; another version of seqrnn wrote"
    )


def test_a_file_that_is_wrong_is_named(tmp_path):
  path = tmp_path / "wrong.json"
  for text in (
    *('{"seed": true}', '{"seed": 1}{', "[" * 100_000, '{"zzz": 1}', "[]"),
  ):
    path.write_text(text)
    assert message_of(config_lib.read_config, path).startswith(f"{path}: "), (
      text
    )


def test_the_rules(config):
  config_lib.check(config)
  assert set(FIELDS) == set(config_lib.flat(config))
  anything = {str: "any", bool: True, float: -1.0}  # What some fields may hold.
  wrong = {str: "", tuple: (), int: -1, float: -1.0}
  faults = []
  for name, field in FIELDS.items():
    kind, default = field.rule.kind, field.default
    if not field.holds(default) or field.holds(None) != (default is None):
      faults.append(name)
    if (
      kind in anything and field.holds(anything[kind]) and name != "predict.gap"
    ):
      continue
    value = ("x",) if name == "search.space" else wrong[kind]
    changed = config.copy_and_resolve_references()
    config_lib.set_field(changed, name, value)
    message = message_of(config_lib.check, changed)
    if not message.startswith(f"config.{name}=") or not message.endswith(
      field.words
    ):
      faults.append((name, message))
  assert not faults


def test_values_at_the_edge_of_a_rule():
  keys = "message=m", "message=m.text, time=at,level=lv"
  bad = "", "body=m", "message=m,body=m", "message=", "message=m,time="
  for name, good, wrong in (
    ("data.log_keys", keys, bad),
    ("detect.port", ("0", "::1:65535"), ("x", "65536", "host:-1", ":1")),
    ("model.forget_bias", (-1e38,), (float("nan"), float("inf"), -1e39)),
    ("sample.temperature", ((0,), (1e30,)), ((1.1e30,), (1e-31,))),
  ):
    assert [x for x in good if config_lib.broken(name, x)] == []
    assert [x for x in wrong if not config_lib.broken(name, x)] == []


def test_differences_have_names_and_values(config):
  other = base.get_config()
  other.model.cell, other.train.batch_size, other.train.max_steps = "gru", 3, 9
  assert config_lib.differences(config, other) == [
    "model.cell: 'lstm' -> 'gru'",
    "train.batch_size: 64 -> 3",
    "train.max_steps: None -> 9",
  ]
  changes = config_lib.changes(config, other, config_lib.IDENTITY)
  assert [*changes] == ["model.cell", "train.batch_size"]
  for names in (config_lib.IDENTITY, config_lib.SHAPE, command.NAMING):
    for name in names:
      assert any(field.startswith(name) for field in FIELDS), name
  for field in FIELDS:
    shapes = field.startswith(config_lib.SHAPE)
    assert not shapes or field.startswith(config_lib.IDENTITY), field
