"""A command line's config and workdir, and settings that have no effect."""

import json
import shutil
from pathlib import Path

import pytest

from seqrnn import cli
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.config.field import READ, WRITTEN
from seqrnn.config.read import FIELDS
from seqrnn.configs import base
from seqrnn.runtime import files

USED = {name: field.used for name, field in FIELDS.items() if field.used}
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def resolve(*flags):
  """The config and the workdir of a command line."""
  parsed = cli.define_flags()
  cli.parse_flags(parsed, ["run.py", *flags])
  return command.resolve(parsed, cli.overrides_of_flags(parsed))


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def vain(fields, **others):
  """The lines about fields that were set, beside others that a config has."""
  config = base.get_config()
  config.update_from_flattened_dict({**others, **fields})
  return list(command.useless(config, fields, base.get_config()).values())


def test_a_line_names_the_field_its_value_and_the_reason():
  assert vain({"optimizer.momentum": 0.9}) == [
    "config.optimizer.momentum=0.9: has no effect with optimizer.name='adam';"
    " it needs optimizer.name sgd or rmsprop"
  ]
  space = {"search.space": ("optimizer.name=choice(adam, sgd)",)}
  assert vain({"optimizer.momentum": 0.9}, **space) == []
  weights = {"model.logit_weights": (1.0, 2.0)}
  labels = {"task": "classification", "train.fit_to_data": "none"}
  assert len(vain(weights, **labels)) == 1
  labels["train.fit_to_data"] = "all"  # The data decide on model.wide.
  assert vain(weights, **labels) == []


def test_a_config_of_the_project_sets_nothing_in_vain():
  defaults = base.get_config()
  for path in CONFIGS:
    config = config_lib.read_config(path)
    changes = config_lib.changes(defaults, config)
    assert command.useless(config, changes, defaults) == {}, path


def test_settings_without_effect_are_reported_before_a_mode(here, capfd):
  (here / "own.py").write_text(
    "from seqrnn.configs import base\n\ndef get_config():\n"
    "  c = base.get_config()\n  c.model.pooling = 'max'\n  return c\n"
  )
  resolve("--config=own.py", "--config.optimizer.momentum=0.5")
  lines = capfd.readouterr().err.splitlines()
  assert [line.partition("=")[0] for line in lines] == [
    "warning: config.model.pooling",
    "warning: config.optimizer.momentum",
  ]
  parsed = cli.define_flags()
  parsed(["run.py", "--config=own.py", "--process_id=1"])
  command.resolve(parsed, {})
  assert capfd.readouterr().err == ""  # The first of several reports it.


def test_the_default_workdir_names_what_flags_changed(here):
  name = lambda *flags: str(resolve("--config=rnn", *flags)[1])
  only_limits = "--config.train.epochs=3", "--config.sample.length=3"
  assert name(*only_limits) == "runs/rnn"
  assert name("--config.model.hidden_size=1e1", "--config.data.window=9") == (
    "runs/rnn-window=9-hidden_size=10"
  )
  assert name("--config.optimizer.name=sgd") == "runs/rnn-optimizer.name=sgd"
  (here / "own.py").write_text(
    "from seqrnn.configs import base\n\ndef get_config(name):\n"
    "  return base.get_config()\n"
  )
  assert str(resolve("--config=own.py:a/b")[1]) == "runs/own-a_b"
  long = [name(f"--config.train.start_from={'./' * 150}{n}") for n in range(2)]
  assert long[0] != long[1] and max(map(len, long)) < 200
  assert long[0].startswith("runs/rnn-start_from=._._._")


# Kinds of paths from a folder to `sub/x` in it, which is at home.
PATHS = (
  *("sub/x", "./sub//x/", "sub/../sub/x", "../{name}/sub/x", "{here}/sub/x"),
  *("{here}/sub/../sub/x", "~/sub/x", "~/sub/../sub/x", "link/../sub/x"),
)


def test_every_path_that_a_user_types_is_plain(here, monkeypatch):
  """Whatever takes it; Orbax refuses `..`."""
  monkeypatch.setenv("HOME", str(here))
  x = here / "sub" / "x"
  x.mkdir(parents=True)
  (here / "link").symlink_to(here / "other" / "deep")
  (here / "other" / "deep").mkdir(parents=True)
  (here / "other" / "sub").symlink_to(here / "sub")  # As link/../sub.
  (x / "config.json").write_bytes(config_lib.encoded(base.get_config()))
  paths = [path.format(name=here.name, here=here) for path in PATHS]
  read = {n for n, place in config_lib.PLACES.items() if place == READ}
  read = sorted(read - {"data.tags_file"}) + ["detect.output"]
  faults = []
  for path in paths:
    modes = {*config_lib.MODES} - {"search"}  # It has a record of its own.
    modes = modes if path == paths[-1] else {"evaluate"}
    workdir = lambda *how: str(command.resolve(command.Command(*how), {})[1])
    found = {mode: workdir(mode, "base", path) for mode in modes}
    both = workdir("report", None, f"{path},{path}")
    config = base.get_config()
    for name in read:
      config_lib.set_field(config, name, path)
    config_lib.expand(config)
    found |= dict(zip("ab", both.split(","), strict=True))
    found |= {name: config_lib.flat(config)[name] for name in read}
    faults += [
      (path, taker, leads_to)
      for taker, leads_to in found.items()
      if ".." in Path(leads_to).parts or not Path(leads_to).samefile(x)
    ]
  assert not faults


def test_a_workdir_names_no_place_to_write_to(here, monkeypatch, capfd):
  """Its inputs are printed, where a mode may read them."""
  monkeypatch.setenv("HOME", str(here))
  written = {n for n, place in config_lib.PLACES.items() if place == WRITTEN}
  fields = {
    "format": config_lib.FORMAT,
    "data": {"source": "files", "path": "~/corpus"},
    "detect": {"input": "log", "output": "o", "port": "1"},
    "search": {"storage": "sqlite:///password"},
  }
  (here / "w").mkdir()
  (here / "w" / "config.json").write_text(json.dumps(fields))
  config, workdir = resolve("--workdir=~/w", "--mode=detect", "--follow")
  assert workdir == here / "w" and config.data.path == f"{here}/corpus"
  assert {config_lib.flat(config)[name] for name in written} == {None}
  lines = capfd.readouterr().err
  assert "ignored, only flags and --config set them: detect.output," in lines
  assert "may read detect.input='log'" in lines
  assert f"may read data.path='{here}/corpus', which {here}/w/" in lines
  # A run that was trained here is the user's own; its copy need not be.
  with files.locked(here / "w" / "lock", "trained"):
    resolve("--workdir=w", "--mode=evaluate")
    assert "may read" not in capfd.readouterr().err
  shutil.copytree(here / "w", here / "copy")
  with files.locked(here / "copy" / "lock", "trained"):  # It stays a copy.
    pass
  resolve("--workdir=copy", "--mode=evaluate")
  lines = capfd.readouterr().err.splitlines()
  line = f"may read data.path='{here}/corpus', which copy/config.json names,"
  assert f"{line} of a run that was not trained here" in lines
  resolve("--workdir=w", "--mode=sample", "--config.data.window=3")
  assert "may read" not in capfd.readouterr().err
  # Flags and --config set them, and no workdir records them.
  (here / "own.json").write_text(json.dumps({"detect": fields["detect"]}))
  config, _ = resolve("--config=own.json", "--config.detect.port=2")
  assert (config.detect.output, config.detect.port) == ("o", "2")
  (here / "saved.json").write_bytes(config_lib.encoded(config))
  saved = config_lib.flat(json.loads((here / "saved.json").read_text()))
  assert not written & saved.keys() and "detect.labels" in saved
  for name in FIELDS:  # No path is forgotten.
    assert not name.endswith(("path", "file")) or name in config_lib.PLACES
