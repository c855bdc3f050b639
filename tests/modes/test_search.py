"""Searches: their spaces, and that no trial is lost or repeated."""

import math
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optuna
import pytest
from optuna.distributions import (
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)

from seqrnn import experiments
from seqrnn.config import read as config_lib
from seqrnn.configs import base
from seqrnn.errors import Interrupted, MachineError, UserError
from seqrnn.modes import search
from seqrnn.runtime import files
from seqrnn.searching import space, study
from seqrnn.training import history, train
from tests.conftest import message_of, read_csv, tiny
from tests.modes.test_train import Crash, crash_at

ROOT = Path(__file__).parents[2]


def grid(rates):
  """Fields of a search of these learning rates."""
  space = (f"optimizer.learning_rate=grid({rates})",)
  return {"search.method": "grid", "search.space": space}


def spaces(**texts):
  """A config with these in its space, by names with _ for the dot."""
  config = base.get_config()
  config.search.space = tuple(
    f"{name.replace('_', '.', 1)}={text}" for name, text in texts.items()
  )
  return config


def test_a_space_is_read():
  log = partial(FloatDistribution, log=True)
  categories = CategoricalDistribution
  for name, text, expected in (
    ("optimizer_learning_rate", "log_uniform(1e-4, 1e-1)", log(1e-4, 1e-1)),
    ("model_layers", "integer(1, 3)", IntDistribution(1, 3)),
    (
      "model_hidden_size",
      "log_uniform(20, 2e2)",
      IntDistribution(20, 200, log=True),
    ),
    ("optimizer_clip_norm", "choice(none, 1)", categories([None, 1.0])),
  ):
    # repr, because 1 == True.
    parsed = space.parse_space(spaces(**{name: text}))
    assert repr(parsed) == repr({name.replace("_", ".", 1): expected})
  config = spaces(optimizer_momentum="one_minus_log_uniform(0.01, 1)")
  parsed = space.parse_space(config)
  assert repr(parsed) == repr({"1 - optimizer.momentum": log(0.01, 1.0)})
  config.train.fit_to_data = "model.dropout"
  values = {"1 - optimizer.momentum": 0.25, "model.dropout": 0.5}
  trial = space.trial_config(config, values)
  assert (trial.optimizer.momentum, trial.train.fit_to_data) == (0.75, None)


def test_a_wrong_space_is_refused_in_a_line():
  for name, text, rule in (
    ("model_droput", "uniform(0, 1)", "did you mean model.dropout?"),
    ("model_dropout", "__import__('os')", "must be log_uniform(low, high), "),
    ("model_dropout", "uniform(0, 1)", "of which 1.0 must be from 0 to below"),
    ("train_cpu_devices", "choice(1, 2)", "must be none: a process has"),
  ):
    line = message_of(space.parse_space, spaces(**{name: text}))
    head, field = "config.search.space=", name.replace("_", ".", 1)
    assert rule in line and line.startswith(head)
    assert line[len(head) + 1 :].startswith(field)


def test_the_coarse_rule():
  """The losses of rates, in the order in which the rates are tried."""
  for losses in (
    # Diverges, falls, falls, rises.
    {1: math.inf, 0.1: 3, 0.01: 2, 0.001: 2.5, 0.03: 1.9, 0.00333: 2.2},
    # The first one is the best; no gain is no improvement.
    {1: 2, 0.1: 2, 3: 4, 0.333: 5},
  ):
    tried = {}
    while (rate := study.next_rate(tried)) is not None:
      tried[rate] = losses[rate]
    assert list(tried) == list(losses)


def table(workdir):
  """trials.csv, without what differs from time to time."""
  rows = read_csv(workdir / "trials.csv")
  for row in rows:
    del row["seconds"]
  return rows


def states(workdir):
  return [row["state"] for row in table(workdir)]


def small(tmp_path, overrides):
  fields = {"train.max_steps": 4, "train.eval_every": 2}
  return tiny(tmp_path, {**fields, **overrides})


def run_search(config, workdir):
  return search.run(experiments.build, config, workdir)


@pytest.fixture
def objective(monkeypatch):
  """Puts a function of the config, its losses, in the place of training."""

  def put(loss):
    def run(_, config, folder, should_stop):
      (folder / "config.json").write_bytes(config_lib.encoded(config))
      losses = loss(config)
      for step, value in enumerate(np.atleast_1d(losses).tolist(), 1):
        row = {"step": step, "validation_loss": value}
        history.add_row(folder / "metrics.csv", row)
        if should_stop(row):
          break
      return {"best": value}

    monkeypatch.setattr(train, "fit", run)

  return put


@pytest.fixture
def postgres():
  """The URL of a database, by a server of its own."""
  pytest.importorskip("psycopg")
  if not shutil.which("initdb") or not shutil.which("postgres"):
    pytest.skip("PostgreSQL's initdb and postgres are not on the PATH")
  # PostgreSQL refuses root. Others may not look into tmp_path.
  with tempfile.TemporaryDirectory(prefix="seqrnn-", dir="/tmp") as folder:
    how = {"cwd": folder, "stdout": subprocess.DEVNULL}
    if os.getuid() == 0:
      user = pwd.getpwnam("postgres")
      how |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
      os.chown(folder, user.pw_uid, user.pw_gid)
    data = f"{folder}/data"
    command = ["initdb", "-D", data, "-U", "seqrnn", "-A", "trust", "-N"]
    subprocess.run(command, check=True, **how)
    command = ["postgres", "-D", data, "-k", folder, "-h", "", "-F"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, **how)
    while not Path(folder, ".s.PGSQL.5432").exists():
      assert server.poll() is None
      time.sleep(0.02)
    yield f"postgresql+psycopg://seqrnn@/postgres?host={folder}"
    server.send_signal(signal.SIGINT)
    server.wait()


DRAW = search._draw


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
  """Pictures take seconds; other tests need the programs of a trial again."""
  monkeypatch.setattr(search, "_draw", lambda *_: [])
  monkeypatch.setattr(jax, "clear_caches", lambda: None)


def test_a_grid_is_gone_through_once(tmp_path, objective, capsys):
  config = small(
    tmp_path,
    {
      "search.method": "grid",
      "search.space": (
        "model.cell=choice(lstm, gru)",
        "optimizer.learning_rate=grid(0.2, 0.1)",
      ),
    },
  )

  def loss(config):
    rate = config.optimizer.learning_rate
    if (config.model.cell, rate) == ("lstm", 0.1):
      raise UserError("a loss is not finite")
    return rate + (config.model.cell == "gru")

  objective(loss)
  config.search.trials = 3
  run_search(config, tmp_path / "s")
  out = capsys.readouterr().out
  assert "s: finished; best validation loss 0.2000 in trial 0;" in out
  lines = re.findall(r"^trial (\d  \w+)", out, re.MULTILINE)
  begun = "0  running", "0  finished", "1  running", "1  failed", "2  running"
  assert lines == [*begun, "2  finished"]
  assert (
    "trial 0  running  model.cell=lstm  optimizer.learning_rate=0.2\n" in out
  )
  config.search.trials = 40
  best = run_search(config, tmp_path / "s")
  assert best == {"optimizer.learning_rate": 0.2, "model.cell": "lstm"}
  rows = table(tmp_path / "s")
  assert [tuple(row.values())[1:] for row in rows] == [
    ("finished", "0.2", "1", "0", "lstm", "0.2", ""),
    ("failed", "", "0", "0", "lstm", "0.1", "a loss is not finite"),
    ("finished", "1.2", "1", "0", "gru", "0.2", ""),
    ("finished", "1.1", "1", "0", "gru", "0.1", ""),
  ]
  config.search.space = ("model.cell=choice(lstm, rnn_relu)",)
  with pytest.raises(UserError, match="holds another search, search.space: "):
    run_search(config, tmp_path / "s")


def test_coarse_searches_the_learning_rate_of_a_small_net(tmp_path, objective):
  config = small(
    tmp_path, {"search.method": "coarse", "model.hidden_size": 200}
  )
  objective(lambda c: abs(math.log(c.optimizer.learning_rate / 0.02)))
  best = run_search(config, tmp_path / "s")
  rates = [r["optimizer.learning_rate"] for r in table(tmp_path / "s")]
  assert rates == ["1.0", "0.1", "0.01", "0.001", "0.03", "0.00333"]
  assert best == {"optimizer.learning_rate": 0.03}
  chosen = config_lib.read_config(tmp_path / "s" / "best.json")
  assert chosen.model.hidden_size == 64
  assert chosen.optimizer.learning_rate == 0.03


@pytest.mark.usefixtures("rendered")
def test_a_search_is_repeated_by_its_seed_and_drawn(
  tmp_path, objective, monkeypatch
):
  workdir = tmp_path / "a"
  config = small(
    tmp_path,
    {
      "search.trials": 13,  # Three after TPE's random ones.
      "search.space": (
        "model.layers=integer(1, 3)",
        "data.path=choice(a$^$, b)",  # No formula in the pictures.
        "optimizer.learning_rate=log_uniform(1e-4, 1e-1)",
      ),
    },
  )
  objective(lambda c: c.optimizer.learning_rate + c.model.layers)
  with monkeypatch.context() as patch:
    patch.setattr(search, "_draw", DRAW)
    run_search(config, workdir)
  for name in ("history", "curves", "parameters", "parallel", "importance"):
    picture = workdir / f"search-{name}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
  # A search that was stopped has the same trials.
  for trials in (12, 13):
    config.search.trials = trials
    run_search(config, tmp_path / "b")
  assert table(workdir) == table(tmp_path / "b")
  assert len({row["optimizer.learning_rate"] for row in table(workdir)}) == 13


def random_rates(tmp_path, objective):
  """The config of a search for the learning rate, whose loss is the rate."""
  objective(lambda c: c.optimizer.learning_rate)
  space = {"search.space": ("optimizer.learning_rate=log_uniform(1e-4, 1e-1)",)}
  return small(tmp_path, {"search.method": "random", **space})


def test_a_cut_line_of_the_journal_is_left_out_and_damage_is_refused(
  tmp_path, objective
):
  config = random_rates(tmp_path, objective)
  config.search.trials = 4
  run_search(config, tmp_path / "whole")
  config.search.trials = 2
  run_search(config, tmp_path / "cut")
  journal = tmp_path / "cut" / "trials.log"
  line = journal.read_bytes().splitlines()[-1]
  with journal.open("ab") as file:
    file.write(line[: len(line) // 2])
  config.search.trials = 4
  run_search(config, tmp_path / "cut")
  assert table(tmp_path / "cut") == table(tmp_path / "whole")
  journal.write_bytes(journal.read_bytes()[9:])
  with pytest.raises(UserError, match=r"/trials.log: cannot be read \(.*; re"):
    run_search(config, tmp_path / "cut")


def test_no_trial_fails_by_the_machine_or_a_signal(tmp_path, objective):
  """However often it stops, the trial can be resumed."""
  config = small(tmp_path, grid("0.2, 0.1"))
  lock = tmp_path / "s" / "trials" / "0000" / "lock"

  def trained_elsewhere(_):
    with files.locked(lock, "trained"), files.locked(lock, "trained"):
      pass

  def stopped(_):
    raise Interrupted(signal.SIGINT)

  stops = (trained_elsewhere, MachineError), (stopped, Interrupted)
  for loss, error in 3 * stops:
    objective(loss)
    with pytest.raises(error, match=r"is being trained by|by SIGINT"):
      run_search(config, tmp_path / "s")
  objective(lambda c: c.optimizer.learning_rate)
  run_search(config, tmp_path / "s")
  assert states(tmp_path / "s") == ["finished"] * 2


def test_a_trial_that_kills_its_process_or_is_too_large_fails(
  tmp_path, objective
):
  config = small(tmp_path, grid("0.3, 0.2, 0.1"))
  full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: hbm")
  errors = {0.3: full, 0.2: Crash()}

  def loss(config):
    if error := errors.get(config.optimizer.learning_rate):
      raise error
    return 1.0

  objective(loss)
  for _ in range(3):
    with pytest.raises(Crash):
      run_search(config, tmp_path / "s")
  run_search(config, tmp_path / "s")
  assert states(tmp_path / "s") == ["failed", "failed", "finished"]
  large, killed, _ = (row["error"] for row in table(tmp_path / "s"))
  assert large.startswith("out of memory: model.hidden_size")
  assert killed == "killed 3 times in one place"


def test_a_trial_whose_process_died_resumes_from_its_checkpoint(
  tmp_path, monkeypatch
):
  space = "model.initial_scale=grid(0.1, 1e38)"  # The second overflows.
  fields = {"search.method": "grid", "search.space": (space,)}
  config = small(tmp_path, fields)
  run_search(config, tmp_path / "whole")
  rows = table(tmp_path / "whole")
  assert [row["state"] for row in rows] == ["finished", "failed"]
  assert "is not finite" in rows[1]["error"]
  config.search.trials = 1
  with monkeypatch.context() as patch:
    crash_at(patch, 3)
    with pytest.raises(Crash):
      run_search(config, tmp_path / "parts")
  run_search(config, tmp_path / "parts")
  assert table(tmp_path / "parts") == rows[:1]
  log = (tmp_path / "parts" / "trials" / "0000" / "log.txt").read_text()
  assert "resuming from step 2\n" in log


def test_a_trial_that_falls_behind_is_pruned(tmp_path, objective, monkeypatch):
  early = partial(optuna.pruners.MedianPruner, n_startup_trials=1)
  monkeypatch.setattr(optuna.pruners, "MedianPruner", early)
  objective(lambda c: [c.optimizer.learning_rate, 0.1])
  run_search(small(tmp_path, grid("0.2, 0.3")), tmp_path / "s")
  rows = table(tmp_path / "s")
  assert [row["state"] for row in rows] == ["finished", "pruned"]
  assert [row["evaluations"] for row in rows] == ["2", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("storage", [None, "postgres"])
def test_workers_share_the_trials_and_one_may_be_killed(
  tmp_path, request, storage
):
  url = storage and request.getfixturevalue(storage)
  config = tiny(
    tmp_path,
    {
      "train.max_steps": 12,
      "train.eval_every": 2,
      "train.cpu_devices": 1,
      "search.method": "random",
      "search.trials": 3,
      "search.space": ("optimizer.learning_rate=log_uniform(1e-4, 1e-1)",),
      "search.pruning": "none",
    },
  )
  (tmp_path / "c.json").write_bytes(config_lib.encoded(config))
  workdir, pipe = tmp_path / "s", subprocess.PIPE
  first, second = (
    subprocess.Popen(
      [sys.executable, "-m", "seqrnn", f"--config={tmp_path / 'c.json'}"]
      + ["--mode=search", f"--workdir={workdir}"]
      + [f"--config.search.storage={url or 'none'}"],  # No config.json has it.
      **{"cwd": ROOT, "stdout": pipe, "stderr": pipe, "text": True},
    )
    for _ in range(2)
  )
  trial = workdir / "trials" / "0000"
  while not (trial / "metrics.csv").exists():
    assert first.poll() is None, first.communicate()
    time.sleep(0.02)
  killed = (trial / "lock").read_text().partition(",")[0]
  if int(killed.split()[1]) == second.pid:
    first, second = second, first
  first.kill()
  first.communicate()
  out, err = second.communicate()
  assert (second.returncode, err) == (0, ""), err
  assert states(workdir) == ["finished"] * 3
  assert out.count("trial 0  finished") == 1
  workers = {killed}
  for number in range(3):
    folder = workdir / "trials" / f"{number:04}"
    workers.add((folder / "lock").read_text().partition(",")[0])
    rows = history.read_rows(folder / "metrics.csv")
    assert [row["step"] for row in rows] == ["2", "4", "6", "8", "10", "12"]
    assert (folder / "log.txt").read_text().count(": finished at") == 1
  assert len(workers) == 2
  text = (workdir / "search.json").read_text()
  assert "postgres" not in text
  assert (workdir / "trials.log").exists() == (url is None)


def test_a_database_has_the_trials_of_several_searches(tmp_path, objective):
  config = random_rates(tmp_path, objective)
  config.search.trials = 2
  run_search(config, tmp_path / "alone")
  config.search.storage = f"sqlite:///{tmp_path}/trials.db"
  for workdir in (tmp_path / "s", tmp_path / "other" / "s"):
    run_search(config, workdir)
    assert table(workdir) == table(tmp_path / "alone")
  config.search.storage = None
  with pytest.raises(UserError, match="has its trials in a database"):
    run_search(config, tmp_path / "s")
