"""Settings of training that change: recorded, or refused by a finished run."""

import itertools
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest

import experiments
from seqrnn.errors import UserError
from seqrnn.reporting import fields
from seqrnn.settings import command
from seqrnn.settings import config as config_lib
from seqrnn.training import changes, fit, optimizers
from seqrnn.training.changes import Change, Settings
from seqrnn.training.position import Position
from seqrnn.training.progress import Progress
from tests.conftest import tiny

SMALL = {"train.batches_per_epoch": 4, "train.epochs": 2, "checkpoint.keep": 9}


def begin(tmp_path, **fields):
  """A config that differs from SMALL in fields of `train`."""
  own = {f"train.{name}": value for name, value in fields.items()}
  return tiny(tmp_path, SMALL | {"model.hidden_size": 4} | own)


def run(config, workdir):
  return fit.fit(experiments.build, config, workdir)


def test_a_finished_run_refuses_what_would_train_nothing(tmp_path, capsys):
  workdir = tmp_path / "run"
  run(begin(tmp_path, epochs=1), workdir)
  record = (workdir / "config.json").read_bytes()
  for given, told in (
    ({"label_smoothing": 0.4}, "train.label_smoothing=0.0, not 0.4"),
    ({"patience": 3}, "train.patience=none, not 3"),
    (
      {"eval_every": 2, "rollbacks": 1},
      "train.eval_every=none, not 2; train.rollbacks=3, not 1",
    ),
  ):
    with pytest.raises(UserError) as caught:
      run(begin(tmp_path, **{"epochs": 1, **given}), workdir)
    assert str(caught.value) == (
      f"{workdir}: finished at step 4, trained with {told}; to train with"
      " another value, raise train.epochs, or name another --workdir"
    )
    assert (workdir / "config.json").read_bytes() == record
  with pytest.raises(UserError, match="raise train.epochs and train.max_steps"):
    run(begin(tmp_path, epochs=1, max_steps=2), workdir)
  assert (workdir / "config.json").read_bytes() == record
  assert not (workdir / "settings.csv").exists()
  capsys.readouterr()
  run(begin(tmp_path, epochs=1, sample_length=3), workdir)  # It trains nothing.
  out = capsys.readouterr().out
  assert "changed: train.sample_length: 60 -> 3\n" in out
  assert "finished at step 4;" in out
  # With more epochs it trains.
  run(begin(tmp_path, epochs=2, label_smoothing=0.4), workdir)
  assert (workdir / "settings.csv").read_text() == (
    "step,field,before,after\n4,train.epochs,1,2\n"
    "4,train.label_smoothing,0.0,0.4\n"
  )
  assert experiments.load(workdir).config.train.label_smoothing == 0.4
  with pytest.raises(UserError, match=r"label_smoothing=0\.4, not 0\.0"):
    run(begin(tmp_path, epochs=2), workdir)
  with pytest.raises(UserError, match=r"train\.epochs=2, not 1"):
    run(begin(tmp_path, epochs=1, label_smoothing=0.4), workdir)


def _cosine(part):
  return 0.01 * (0.99 * (1 + math.cos(math.pi * part)) / 2 + 0.01)


@pytest.mark.parametrize(
  ("name", "rates"),
  [
    ("cosine", (_cosine(0.9), _cosine(0.5))),
    ("step", (0.01, 0.001)),
    ("constant", None),
  ],
)
def test_a_run_whose_schedule_has_ended_warns(name, rates, tmp_path, capsys):
  config = begin(tmp_path, epochs=2)
  config.optimizer.learning_rate = 0.01
  config.schedule.update(name=name, every=1, factor=0.1, final=0.01)
  training: Any = SimpleNamespace(
    config=config,
    experiment=SimpleNamespace(batches=lambda *_: range(10)),
    learning_rate=optimizers.schedule(config, 10, 20, 0.01),
  )
  settings = Settings({"train.epochs": 1, "train.max_steps": None}, [])
  fit._warn_of_decay(training, settings, Position(step=9, epoch=0))
  assert ("warning" in capsys.readouterr().err) == (name == "cosine")
  fit._warn_of_decay(training, settings, Position(step=10, epoch=1))
  err = capsys.readouterr().err
  if rates is None:
    assert err == ""
    return
  assert err.startswith(f"warning: schedule.name={name!r}: the learning rate")
  found = re.search(r"had decayed to (\S+) and is (\S+) now", err)
  assert found is not None
  assert [*map(float, found.groups())] == pytest.approx(rates, rel=0.01)


@pytest.mark.parametrize("limit", ["epochs", "max_steps"])
def test_a_shorter_schedule_warns(limit, tmp_path, capsys):
  config = begin(tmp_path, epochs=2)
  config.optimizer.learning_rate = 0.01
  config.schedule.update(name="cosine", final=0.01)
  if limit == "max_steps":
    config.train.update(epochs=10, max_steps=20)
  training: Any = SimpleNamespace(
    config=config,
    experiment=SimpleNamespace(batches=lambda *_: range(10)),
    learning_rate=optimizers.schedule(config, 10, 20, 0.01),
  )
  settings = Settings({"train.epochs": 10, "train.max_steps": None}, [])
  fit._warn_of_decay(training, settings, Position(step=16, epoch=1))
  found = re.search(r"to (\S+) and is (\S+) now", capsys.readouterr().err)
  assert found is not None
  rates = _cosine(0.15), _cosine(0.8)
  assert [*map(float, found.groups())] == pytest.approx(rates, rel=0.01)
  # Nothing changes, although the cosine decays.
  settings = Settings(config_lib.flat(config), [])
  fit._warn_of_decay(training, settings, Position(step=16, epoch=1))
  assert capsys.readouterr().err == ""


def test_a_limit_that_is_raised_goes_on_or_changes_nothing(tmp_path, capsys):
  workdir, other = tmp_path / "run", {"batches_per_epoch": 2, "eval_every": 1}
  config = begin(tmp_path, epochs=3, patience=1, **other)
  config.optimizer.update(name="sgd", learning_rate=30.0)
  stopped = run(config, workdir)["step"]
  assert stopped < 6  # Out of patience.
  config.train.epochs = 4
  capsys.readouterr()
  assert run(config, workdir)["step"] == stopped
  assert (
    "train.epochs stays 3, not 4: train.patience has ended the training\n"
  ) in capsys.readouterr().out
  assert experiments.load(workdir).config.train.epochs == 3
  assert not (workdir / "settings.csv").exists()
  config.optimizer.learning_rate = 1.0
  with pytest.raises(UserError, match="raise train.patience, or name another"):
    run(config, workdir)
  config.train.patience = None
  assert run(config, workdir)["step"] == 8
  assert (workdir / "settings.csv").read_text().splitlines()[1:] == [
    f"{stopped},optimizer.learning_rate,30.0,1.0",
    f"{stopped},train.epochs,3,4",
    f"{stopped},train.patience,1,none",
  ]


def test_another_length_of_an_epoch_is_refused_and_not_recorded(tmp_path):
  workdir = tmp_path / "run"
  run(begin(tmp_path, max_steps=3), workdir)  # Batch 3 of the first epoch.
  record = (workdir / "config.json").read_bytes()
  for field in ({"batches_per_epoch": 2}, {"samples_per_epoch": 8}):
    config = begin(
      tmp_path, max_steps=4, **{"batches_per_epoch": None, **field}
    )
    with pytest.raises(UserError, match="batch 3 of an epoch, which now has 2"):
      run(config, workdir)
    assert (workdir / "config.json").read_bytes() == record
    assert not (workdir / "settings.csv").exists()
  assert run(begin(tmp_path, max_steps=4), workdir)["step"] == 4


def test_a_killed_run_has_the_same_changes(tmp_path, monkeypatch):
  fields = {"epochs": 3, "label_smoothing": 0.2}
  for name in ("whole", "parts"):
    run(begin(tmp_path, epochs=1), tmp_path / name)
  run(begin(tmp_path, **fields), tmp_path / "whole")

  class Killed(Exception):
    pass

  def dying(*_):
    raise Killed

  def unsaved(config):
    """Trains steps that no checkpoint keeps."""
    with monkeypatch.context() as patch:
      patch.setattr(Progress, "step", dying)
      with pytest.raises(Killed):
        run(config, tmp_path / "parts")

  table = tmp_path / "parts" / "settings.csv"
  unsaved(begin(tmp_path, **fields))
  once = table.read_text()
  unsaved(begin(tmp_path, **fields | {"label_smoothing": 0.4}))
  assert table.read_text() == once.replace("0.2", "0.4")
  unsaved(begin(tmp_path, **fields | {"label_smoothing": 0.0}))
  assert "label_smoothing" not in table.read_text()
  run(begin(tmp_path, epochs=1), tmp_path / "parts")  # As it was.
  assert not table.exists()
  assert experiments.load(tmp_path / "parts").config.train.epochs == 1
  # Killed between the two files, whose first is settings.csv.
  with monkeypatch.context() as patch:
    patch.setattr(fit, "write_record", dying)
    with pytest.raises(Killed):
      run(begin(tmp_path, **fields), tmp_path / "parts")
  assert table.read_text() == once
  run(begin(tmp_path, **fields), tmp_path / "parts")
  for name in ("settings.csv", "metrics.csv", "config.json"):
    whole, parts = (tmp_path / n / name for n in ("whole", "parts"))
    assert parts.read_bytes() == whole.read_bytes(), name


def test_changes_follow_the_checkpoint_that_training_goes_on_from(tmp_path):
  rows = [
    Change(4, "train.label_smoothing", 0.0, 0.2),
    Change(8, "train.label_smoothing", 0.2, 0.4),
    Change(8, "train.patience", None, 7),
  ]
  config = begin(tmp_path, label_smoothing=0.4, patience=7)
  for step, expected in (
    (9, rows),
    (8, rows),
    (5, [rows[0], *(row._replace(step=5) for row in rows[1:])]),
    (4, [Change(4, *rows[0][1:3], 0.4), rows[2]._replace(step=4)]),
    (0, []),
  ):
    changes.write(tmp_path, rows)
    assert changes.read(tmp_path, config) == rows
    changes.rewind(tmp_path, config, step)
    assert changes.read(tmp_path, config) == expected
    # So it is where a run is begun anew there.
    changes.write(tmp_path, rows)
    was = Settings(config_lib.flat(config), rows)
    position = Position(step=step)
    changes.apply_settings(tmp_path, config, position, was)
    assert changes.read(tmp_path, config) == expected


def test_a_report_shows_them(tmp_path):
  config = begin(tmp_path)
  assert fields.changed(tmp_path, config) == []
  changes.write(tmp_path, [Change(1234, "train.patience", None, 7)])
  [made] = fields.changed(tmp_path, config)
  cells = ["".join(row.itertext()) for row in made.iter("tr")]
  assert cells[1:] == ["1,234train.patiencenone7"]


@pytest.mark.parametrize(
  "content",
  ["", "step\n", "step,field,before,after\n1\n", b"\0,\xff\n"]
  + [
    f"step,field,before,after\n{row}\n"
    for row in ("x,train.ema,0,1", "1,train.no,0,1", "1,train.ema,0,x")
  ],
)
def test_another_table_is_named(tmp_path, content):
  if isinstance(content, str):
    content = content.encode()
  (tmp_path / "settings.csv").write_bytes(content)
  with pytest.raises(UserError) as caught:
    changes.read(tmp_path, begin(tmp_path))
  assert str(caught.value).startswith(f"{tmp_path}/settings.csv: must have the")


def test_all_that_training_rests_on_is_fixed_named_or_recorded():
  shown = {*config_lib.CPU, "train.sample_length", "train.tensorboard"}
  far = {"train.epochs", "train.max_steps"}
  for name in config_lib.RULES:
    if name.startswith(config_lib.TRAINING):
      fixed = name.startswith(config_lib.IDENTITY)
      assert fixed + (name in config_lib.CHANGEABLE) + (name in shown) == 1, (
        name
      )
      assert name.startswith(command.NAMING) != (name in shown | far), name


def test_a_sweep_has_a_workdir_for_each_value(tmp_path):
  config = begin(tmp_path)
  values = {
    "train.label_smoothing": (0.2, 0.4),
    "train.class_weights": ("balanced",),
    "train.patience": (2, 3),
    "train.samples_per_epoch": (5, 6),
    "train.eval_every": (5, 6),
  }
  names = {command.run_name("c", config, config)}
  for name, some in values.items():
    for value in some:
      other = begin(tmp_path, **{name.removeprefix("train."): value})
      names.add(command.run_name("c", config, other))
  assert len(names) == 1 + len(list(itertools.chain(*values.values())))
  assert all(re.fullmatch(r"c(-[\w.]+=[\w.]+)?", name) for name in names)
