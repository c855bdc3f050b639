"""Settings that mean nothing where they are set: each is reported in a line."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import base
from seqrnn import program
from seqrnn.config import command, overrides, warned
from seqrnn.config import read as config_lib
from seqrnn.config.field import WRITTEN
from seqrnn.config.read import FIELDS
from seqrnn.logs.follow import feedback
from seqrnn.models import cells, network
from seqrnn.training import train

USED = {name: field.used for name, field in FIELDS.items() if field.used}
PATHS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def found(given, **fields):
  """The lines about the fields given, beside others that a config has."""
  config = base.get_config()
  config.update_from_flattened_dict({**fields, **given})
  return list(warned.unused(config, given, base.get_config()))


def test_a_line_names_the_field_its_value_and_why():
  assert found({"optimizer.momentum": 0.9}) == [
    "config.optimizer.momentum=0.9: has no effect with optimizer.name='adam';"
    " it needs optimizer.name sgd or rmsprop"
  ]
  assert found({"model.merge": "sum"}) == [
    "config.model.merge='sum': has no effect with task='language_model',"
    " model.bidirectional=False; it needs task gap_model; or"
    " model.bidirectional true"
  ]
  given = {"model.letters": 8, "train.class_weights": "balanced"}
  assert [line.partition("=")[0] for line in found(given)] == [
    "config.model.letters",
    "config.train.class_weights",
  ]


@pytest.mark.parametrize("name", USED)
def test_each_field_is_reported_without_and_not_with_what_it_needs(name):
  config = base.get_config()
  group, key = config_lib.locate(config, name)
  kind, default = group.get_type(key), config_lib.flat(config)[name]
  holds = config_lib.RULES[name].holds
  others = {
    bool: [not default],
    int: [1, 2, 100],
    float: [0.25, 0.5],
    tuple: [(0.5,)],
    str: ["word", "replace", "last", "2/5", "weight", "tails", "sum", "max"]
    + ["balanced", "train", "even_pairs", "none", "x"]
    + ["jsonl"],
  }
  value = next(v for v in others[kind] if holds(v) and v != default)
  for way in USED[name]:
    assert found({name: value}, **{n: v[0] for n, v in way.items()}) == []
  wrong = "none" if name == "search.pruning" else value
  without = {
    "task": "polyphony" if name.startswith(("data", "model")) else "tagging",
    "optimizer.name": "sgd" if name.endswith("epsilon") else "adagrad",
    "model.cell": "gru",
    "search.method": "coarse" if name == "search.pruning" else "tpe",
    "embed.of": "vocabulary",
  }
  if name == "sample.tempo":
    without["task"] = "language_model"
  [line] = found({name: wrong}, **without)
  assert line.startswith(f"config.{name}={wrong!r}: has no effect with ")
  # A field that no user has set, or that has its default, is no mistake.
  config.update_from_flattened_dict({**without, name: wrong})
  assert list(warned.unused(config, (), base.get_config())) == []
  assert found({name: default}, **without) == []


def test_what_a_search_may_choose_and_a_task_of_the_users_own_may_use_it():
  space = {"search.space": ("optimizer.name=choice(adam, sgd)",)}
  assert found({"optimizer.momentum": 0.9}, **space) == []
  assert found({"model.letters": 8}, task="backwards") == []


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_a_config_of_the_project_sets_nothing_in_vain(path):
  defaults = base.get_config()
  config = config_lib.read(path)
  given = config_lib.changes(defaults, config)
  assert list(warned.unused(config, given, defaults)) == []


@pytest.mark.parametrize("cell", cells.CELLS)
def test_the_cells_with_a_forget_bias_are_these(cell):
  config = base.get_config().model
  made = []
  for bias in (1.0, 3.0):
    config.update(cell=cell, hidden_size=2, forget_bias=bias)
    body = network.recurrent(config, False)
    inputs = np.zeros((1, 1, 2), np.float32), np.ones((1, 1), bool)
    init = jax.make_jaxpr(body.init)
    made.append(str(init(jax.random.key(0), *inputs, body.initial_carry(1))))
  [needed] = USED["model.forget_bias"]
  assert (made[0] != made[1]) == (cell in needed["model.cell"])


@pytest.fixture
def resolved(tmp_path, monkeypatch, capfd):
  """A function from flags to what a run that they begin has on stderr."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr("seqrnn.modes.train.run", lambda *_: None)
  (tmp_path / "own.py").write_text(
    "from configs import base\n\ndef get_config():\n  c = base.get_config()\n"
    "  c.model.pooling = 'max'\n  return c\n"
  )

  def resolve(*flags):
    assert program.main(["run.py", *flags]) == 0
    return capfd.readouterr().err

  return resolve


def test_what_flags_and_a_config_set_is_reported_before_a_mode(
  resolved, tmp_path, capfd
):
  line = "warning: config.{}: has no effect with "
  err = resolved("--config=own.py", "--config.model.forget_bias=2").split("\n")
  assert err[0].startswith(line.format("model.pooling='max'"))
  assert err[1:] == [""]
  flags = ["--config.optimizer.momentum=0.5", "--config.optimizer.decay=0.9"]
  err = resolved("--config=own.py", *flags).split("\n")
  assert [text.split("=")[0] for text in err] == [
    "warning: config.model.pooling",
    "warning: config.optimizer.momentum",
    "",
  ]
  # What only a flag makes useless in a config is not reported.
  text = (tmp_path / "own.py").read_text()
  text = text.replace("  c.model", "  c.task = 'classification'\n  c.model", 1)
  (tmp_path / "labels.py").write_text(text)
  assert resolved("--config=labels.py") == ""
  assert resolved("--config=labels.py", "--config.task=tagging") == ""
  parsed = program.define()
  parsed(["run.py", "--config=own.py", "--process_id=1"])
  command.resolve(parsed, {}, None)
  assert capfd.readouterr().err == ""  # The first of several reports it.
  # What a file in JSON has may be left of anything.
  config = config_lib.read(tmp_path / "own.py")
  config_lib.save(config, tmp_path / "own.json")
  assert resolved("--config=own.json") == ""
  err = resolved("--config=own.json", *flags)
  assert err.startswith(line.format("optimizer.momentum=0.5"))
  assert err.count("\n") == 1


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      "--config=logs --config.data.log_format=auto",
      "a header is itself the format of a line",
    ),
    (  # The file does not set the empty field.
      "--config=classification --config.train.freeze=taken",
      "nothing is taken from another run; set train.start_from",
    ),
    (
      "--config=rnn --config.data.offset=1 --config.data.random_offset=true",
      "the offset must be either fixed or random",
    ),
    (
      "--config=logs --config.data.log_session=((a",
      "must be a regular expression with one group; Python reads it with an"
      " error: missing ), unterminated subpattern at position 1",
    ),
    (
      "--config=logs --config.data.log_session=a",
      "with one group; it has none",
    ),
    (
      "--config=logs --config.detect.redact=[a",
      "; Python reads it with an error: unterminated character set at"
      " position 0",
    ),
    (
      "--mode=detect",
      "--workdir: is missing, the folder of the run for --mode=detect; train a"
      " run first, for example with --config=logs --workdir=runs/logs, then"
      " --workdir=runs/logs --mode=detect",
    ),
    (
      "--mode=detect --config=logs",
      "--workdir=runs/logs: has no run; train it first: the command without"
      " --mode",
    ),
    (
      "--mode=detect --workdir=no",
      "--workdir=no: has no run; train it first: --config=NAME --workdir=no"
      " without --mode",
    ),
  ],
)
def test_a_refusal_says_what_to_type(
  tmp_path, monkeypatch, capfd, flags, message
):
  monkeypatch.chdir(tmp_path)
  assert program.main(["run.py", *flags.split()]) == 2
  assert capfd.readouterr().err.endswith(message + "\n")


def test_flags_that_a_mode_does_not_read_are_reported(
  tmp_path, monkeypatch, capfd
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr("seqrnn.modes.sample.run", lambda *_: None)
  run = tmp_path / "runs" / "a"
  run.mkdir(parents=True)
  config_lib.save(base.get_config(), run / "config.json")
  flags = ["--workdir=runs/a", "--mode=sample"]

  def err(*more):
    assert program.main(["run.py", *flags, *more]) == 0
    return capfd.readouterr().err.splitlines()

  assert err("--config.sample.seed=1", "--config.data.path=x") == []
  assert err("--config.seed=1", "--config.optimizer.learning_rate=2.") == [
    "warning: config.optimizer.learning_rate=2.0: has no effect with"
    " --mode=sample; the modes train, search, describe, detect use it",
    "warning: config.seed=1: has no effect with --mode=sample; the modes train,"
    " search, describe, detect, report use it; did you mean"
    " config.sample.seed?",
  ]
  # It names the workdir of the config.
  config_lib.save(base.get_config(), tmp_path / "a.json")
  assert err("--config=a.json", "--config.seed=0") == []
  assert program.main(["run.py", "--mode=evaluate"]) == 2
  assert capfd.readouterr().err == (
    "error: --workdir: is missing, the folder of the run for --mode=evaluate;"
    " the runs here are runs/a\n"
  )


def resolve(*flags):
  """The config and the workdir of a command line."""
  parsed = program.define()
  program.parse(parsed, ["run.py", *flags])
  return command.resolve(parsed, overrides.from_flags(parsed), None)


PLACES = {
  "data": {"source": "files", "path": "~/corpus", "train_path": "t"},
  "detect": {"input": "log", "output": "o", "port": 1, "address": "0.0.0.0"},
  "search": {"storage": "sqlite:///password"},
  "report": {"beside": "b"},
}
PLACES["detect"]["state"] = PLACES["detect"]["labels"] = "~/x"


@pytest.mark.parametrize(
  ("record", "flags", "shown"),
  [
    (
      "config.json",
      ["--mode=detect", "--config.detect.labels=mine"],
      ["data.path='{}/corpus'", "data.train_path='t'"],
    ),
    ("config.json", ["--mode=detect", "--follow"], ["detect.input='log'"]),
    ("config.json", ["--mode=sample"], []),
    (
      "search.json",
      ["--mode=search"],
      ["data.path='{}/corpus'", "data.train_path='t'"],
    ),
  ],
)
def test_a_workdir_names_no_place_to_write_to_and_its_input_is_shown(
  tmp_path, monkeypatch, capfd, record, flags, shown
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  Path("w").mkdir()
  Path("w", record).write_text(json.dumps({"format": 1, **PLACES}))
  config, _ = resolve("--workdir=w", *flags)
  ignored, *lines = capfd.readouterr().err.splitlines()
  assert ignored == (
    f"w/{record}: ignored, only flags and --config set them: detect.output,"
    " detect.port, search.storage"
  )
  assert lines == [
    f"w/{record}: input {line.format(tmp_path)}" for line in shown
  ]
  written, defaults = set(), config_lib.flat(base.get_config())
  for name, place in config_lib.PLACES.items():
    if place == WRITTEN:
      written.add(name)
      assert config_lib.flat(config)[name] == defaults[name]
  # Flags and --config set them, and no workdir records them.
  if record == "search.json":
    config, _ = resolve(
      "--workdir=w", *flags, "--config.search.storage=sqlite:///mine"
    )
    assert config.search.storage == "sqlite:///mine"
  Path("own.json").write_text(json.dumps({"detect": PLACES["detect"]}))
  config, _ = resolve(
    "--config=own.json", "--config.detect.port=2", "--workdir=v"
  )
  assert (config.detect.output, config.detect.port) == ("o", "2")
  (tmp_path / "saved.json").write_bytes(config_lib.encoded(config))
  saved = config_lib.flat(json.loads((tmp_path / "saved.json").read_text()))
  assert not written & saved.keys() and "detect.labels" in saved
  printed = json.loads(
    config_lib.encoded(config, recorded=False)
  )  # For --config.
  assert written <= config_lib.flat(printed).keys()
  assert (
    "config.detect.port='2': has no effect with --mode=train; the modes"
    in (capfd.readouterr().err)
  )


def test_home_is_one_place_wherever_a_path_is_typed(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  config = base.get_config()
  texts = [name for name in config_lib.PLACES if FIELDS[name].kind is str]
  for name in texts:
    config_lib.override(config, name, "~/x")
  config_lib.expand(config)
  assert {config_lib.flat(config)[name] for name in texts} == {f"{tmp_path}/x"}
  for name in FIELDS:  # No path is forgotten.
    if name.endswith(("path", "file")):
      assert name in config_lib.PLACES
  (tmp_path / "w").mkdir()
  fields = {"format": 1, "data": {"source": "files", "path": "~/x"}}
  (tmp_path / "w" / "config.json").write_text(json.dumps(fields))
  for flags in (["--mode=detect"], ["--mode=detect", "--follow"]):
    config, workdir = resolve(
      "--workdir=~/w", *flags, "--config.detect.output=~/s"
    )
    assert feedback.state_folder(config, workdir) == tmp_path / "s"
    assert config.data.path == f"{tmp_path}/x"
  config, workdir = resolve(
    "--config=~/w/config.json", "--workdir=~/w", "--config.data.path=~/x"
  )
  assert workdir == tmp_path / "w"
  assert train.check_owner(config, workdir).data.path == f"{tmp_path}/x"


def changed(**fields):
  """The defaults with other values; _ stands for the dot of a name."""
  config = base.get_config()
  for name, value in fields.items():
    config_lib.override(config, name.replace("_", ".", 1), value)
  return config


@pytest.mark.parametrize(
  ("fields", "expected"),
  [
    ({}, "rnn"),
    ({"model_hidden_size": "256"}, "rnn-hidden_size=256"),
    ({"optimizer_name": "sgd"}, "rnn-optimizer.name=sgd"),
    (
      {"schedule_name": "step", "train_ema": ".5"},
      "rnn-schedule.name=step-ema=0.5",
    ),
    ({"train_epochs": "3", "sample_seed": "3"}, "rnn"),
    ({"seed": "3", "search_method": "grid"}, "rnn-method=grid-seed=3"),
    ({"data_path": "a/[b]*"}, "rnn-path=a__b__"),
  ],
)
def test_a_name_has_the_last_parts_of_changed_fields(fields, expected):
  name = command.run_name("rnn", base.get_config(), changed(**fields))
  assert sorted(name.split("-")) == sorted(expected.split("-"))


def test_fields_never_share_a_label():
  labels = command._LABELS
  assert len(set(labels.values())) == len(labels)
  assert {name for name in FIELDS if name.startswith(command.NAMING)} == set(
    labels
  )
