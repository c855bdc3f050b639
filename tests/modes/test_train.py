"""The training loop: the files it writes, and that stopping changes nothing."""

import os
import re
import signal
import threading
from collections import deque
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqrnn.errors import Interrupted, MachineError, UserError
from seqrnn.experiments import build
from seqrnn.run import load_run
from seqrnn.runtime import sharding
from seqrnn.training import step as step_lib
from seqrnn.training import train
from seqrnn.training.checkpoint import steps
from seqrnn.training.checkpoint_writer import Checkpoints
from seqrnn.training.progress import Progress
from tests.conftest import FUSED, read_csv, tiny


def rows(workdir):
  return read_csv(workdir / "metrics.csv")


def parameters(workdir, step):
  return load_run(workdir, step).params


def contents(folder):
  """Every file below a folder."""
  return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same_run(a, b, step):
  """Parameters equal to the bit, and every byte of metrics.csv."""
  assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
  same = jax.tree.map(np.array_equal, parameters(a, step), parameters(b, step))
  assert all(jax.tree.leaves(same))


class Crash(Exception):
  pass


def crash_at(monkeypatch, step):
  """Lets the training die as a killed one does: nothing more is written."""
  original = Progress.step

  def dying(self, loss, symbols):
    original(self, loss, symbols)
    if self._done == step:
      raise Crash

  monkeypatch.setattr(Progress, "step", dying)


KINDS = {
  "stateful": {
    "data.stateful": True,
    "model.dropout": 0.3,
    "train.ema": 0.9,
    "data.split": "stream_tails",
    "data.boundaries": False,
    "data.validation_fraction": 0.2,
  },
  "windows": {
    "data.random_offset": True,
    "data.step": 5,
    "model.symbol_dropout": 0.1,
    "train.batch_size": 6,  # Four devices do not divide it.
  },
}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
  """A config, and a run of it that nothing interrupts."""
  folder = tmp_path_factory.mktemp("whole")
  config = tiny(
    folder,
    {
      **FUSED,
      **KINDS[request.param],
      "train.epochs": 2,
      "train.batches_per_epoch": 6,
      "checkpoint.every": 2,
      "optimizer.name": "rmsprop",
      "schedule.name": "cosine",
    },
  )
  if config.data.stateful:  # Stream tails are of one document.
    config.data.path += "/0.txt"
  return (config, folder / "run", train.fit(build, config, folder / "run"))


def test_going_on_repeats_an_uninterrupted_run_to_the_bit(
  whole, tmp_path, monkeypatch, capsys
):
  config, workdir, result = whole
  with monkeypatch.context() as patch:
    crash_at(patch, 8 if config.data.stateful else 4)
    with pytest.raises(Crash):
      train.fit(build, config, tmp_path)
  capsys.readouterr()
  again = train.fit(build, config, tmp_path)
  out = capsys.readouterr().out
  # The line comes before any of training.
  [resumed, *trained] = re.findall(r"^(?:resuming from )?step \d+", out, re.M)
  assert re.fullmatch("resuming from step [246]", resumed), out
  assert trained[-1] == "step 12"
  assert again == result
  assert_same_run(workdir, tmp_path, 12)


@pytest.mark.parametrize("whole", ["windows"], indirect=True)
def test_devices_do_not_change_the_result(whole, tmp_path, monkeypatch):
  config, four, _ = whole
  one = sharding.one_device()
  monkeypatch.setattr(sharding, "mesh", lambda: one)
  train.fit(build, config, tmp_path)
  for a, b in zip(rows(tmp_path), rows(four), strict=True):
    for name in a:
      assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-4), name
  trees = parameters(tmp_path, 12), parameters(four, 12)
  jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), *trees)


LONG = {
  "train.batches_per_epoch": 5,
  "train.epochs": 2,
  "checkpoint.every": 2,
  "optimizer.learning_rate": 0.01,
}


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
  """A folder with a run of two epochs, five steps each; and its result."""
  folder = tmp_path_factory.mktemp("ten")
  return folder, train.fit(build, tiny(folder, LONG), folder / "run")


def test_it_learns_and_writes_what_it_did(ten):
  folder, result = ten
  table = rows(folder / "run")
  losses = [float(row["validation_loss"]) for row in table]
  assert len(losses) == 2 and losses[1] < 0.97 * losses[0]
  assert result["best"] == pytest.approx(losses[1], rel=1e-6)
  for row, nats in zip(table, losses, strict=True):
    bits, perplexity = (
      float(row[f"validation_{name}"])
      for name in ("bits_per_symbol", "perplexity")
    )
    assert bits == pytest.approx(nats / np.log(2), rel=1e-5)
    assert perplexity == pytest.approx(np.exp(nats), rel=1e-5)
    assert float(row["learning_rate"]) == 0.01
  written = {path.name for path in (folder / "run").iterdir()}
  assert written == {
    *("config.json", "vocabulary.json", "checkpoints", "metrics.csv"),
    *("timing.csv", "history.png", "lock", "sha256"),
  }


def test_a_finished_run_says_so_and_more_epochs_resume_it(
  ten, tmp_path, capsys
):
  folder, result = ten
  workdir, first = tmp_path / "run", tiny(folder, LONG | {"train.epochs": 1})
  train.fit(build, first, workdir)
  before = contents(workdir)
  train.fit(build, first, workdir)
  out = capsys.readouterr().out
  assert out.count("finished at step 5; best validation loss") == 2
  assert "parameters" in out
  for path in (workdir / "lock", workdir / "history.png"):
    del before[path]
  assert before.items() <= contents(workdir).items()
  assert train.fit(build, tiny(folder, LONG), workdir) == result
  assert_same_run(folder / "run", workdir, 10)


def test_patience_stops_and_the_best_checkpoint_stays(tmp_path, monkeypatch):
  """With a plateau schedule, and averaged parameters."""
  config = tiny(
    tmp_path,
    {
      "train.ema": 0.8,
      "train.epochs": 50,
      "train.batches_per_epoch": 2,
      "train.patience": 3,
      "checkpoint.keep": 2,
      "schedule.name": "plateau",
      "schedule.after": 1,
      "schedule.factor": 0.5,
      "optimizer.name": "sgd",
      "optimizer.learning_rate": 30.0,  # The validation loss goes up and down.
    },
  )
  original, seen = step_lib.programs, []

  def programs(*args):
    step, start = original(*args)

    def watched(state, batch, *how):
      seen.append((int(state.step), jax.device_get(state.params)))
      return step(state, batch, *how)

    watched.lower = step.lower
    return watched, start

  monkeypatch.setattr(step_lib, "programs", programs)
  workdir = tmp_path / "run"
  result = train.fit(build, config, workdir)
  losses = [float(row["validation_loss"]) for row in rows(workdir)]
  best = int(np.argmin(losses))
  assert len(losses) == best + 1 + 3 < 50
  last, best_step = result["step"], 2 * (best + 1)
  assert result["best_step"] == best_step
  assert steps(workdir / "checkpoints") == [best_step, last - 2, last]
  assert load_run(workdir).step == best_step
  # A row was trained with the rate that the rows before it led to.
  lowest, rate = np.inf, 30.0
  for row, loss in zip(rows(workdir), losses, strict=True):
    assert float(row["learning_rate"]) == pytest.approx(rate, rel=1e-5)
    lowest, rate = (loss, rate) if loss < lowest else (lowest, rate * 0.5)
  # What is saved is the mean of the parameters of all steps.
  newest = dict(seen)  # The last of each step: the probe came before.
  for step in (best_step, last - 2):
    weights = 0.8 ** np.arange(step, -1, -1.0)
    mean = jax.tree.map(
      lambda *leaves, weights=weights: np.average(leaves, 0, weights),
      *(newest[n] for n in range(step + 1)),
    )
    run = load_run(workdir, step)
    jax.tree.map(
      partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
      run.params,
      mean,
    )


def test_a_signal_ends_the_first_compilation(tmp_path, monkeypatch):
  """However long it takes."""
  ended, calls = threading.Event(), []

  def compile_for_ever(_):
    calls.append(1)
    if len(calls) == 2:  # The step, after the initial state.
      os.kill(os.getpid(), signal.SIGTERM)
    ended.wait()

  monkeypatch.setattr(step_lib, "_kept", deque())
  monkeypatch.setattr(jax.stages.Lowered, "compile", compile_for_ever)
  before = signal.getsignal(signal.SIGTERM)
  line = "^stopped by SIGTERM before the first step; repeat the command$"
  with pytest.raises(Interrupted, match=line) as caught:
    train.fit(build, tiny(tmp_path), tmp_path / "r")
  ended.set()
  assert caught.value.status == 128 + signal.SIGTERM
  assert signal.getsignal(signal.SIGTERM) is before
  assert not (tmp_path / "r" / "config.json").exists()


def test_a_signal_saves_and_names_the_command_to_resume(
  ten, tmp_path, monkeypatch
):
  config, workdir = tiny(ten[0], LONG), tmp_path / "run"
  original = Progress.step

  def signalled(self, loss, symbols):
    original(self, loss, symbols)
    if self._done == 7:
      signal.raise_signal(signal.SIGINT)

  before = signal.getsignal(signal.SIGINT)
  with monkeypatch.context() as patch:
    patch.setattr(Progress, "step", signalled)
    with pytest.raises(Interrupted, match="saved at step 7; .* to resume"):
      train.fit(build, config, workdir)
  assert signal.getsignal(signal.SIGINT) is before
  assert train.fit(build, config, workdir) == ten[1]
  assert_same_run(ten[0] / "run", workdir, 10)


NAN_AT = 7  # The number of the update whose loss is not finite.


def poisoned(monkeypatch):
  """Loss and gradient are not finite at NAN_AT."""
  original = step_lib.programs

  def programs(*args):
    step, start = original(*args)

    def poison(state, batch, *how):
      bad = int(state.step) == NAN_AT
      new, loss = step(state, batch, *how)
      if not bad:
        return new, loss
      nan = jax.tree.map(lambda x: x * jnp.nan, (new.params, loss))
      return new._replace(params=nan[0]), nan[1]

    poison.lower = step.lower
    return poison, start

  monkeypatch.setattr(step_lib, "programs", programs)


def test_a_loss_that_is_not_finite_stops(ten, tmp_path, monkeypatch):
  config, workdir = tiny(ten[0], LONG), tmp_path / "run"
  with monkeypatch.context() as patch:
    poisoned(patch)
    with pytest.raises(UserError) as caught:
      train.fit(build, config, workdir)
  assert re.fullmatch(
    r"config\.optimizer\.learning_rate=0\.01: at step \d+, with a learning"
    r" rate of 0\.01, a loss, .* is not finite, and was not saved; train in"
    r" another --workdir with a lower optimizer\.learning_rate or .*clip_norm",
    str(caught.value),
  )
  assert steps(workdir / "checkpoints")[-1] == 6
  train.fit(build, config, workdir)
  assert_same_run(ten[0] / "run", workdir, 10)


@pytest.mark.parametrize("taken_over", [True, False])
def test_it_stops_where_the_workdir_was_removed(
  ten, tmp_path, monkeypatch, taken_over
):
  """As Orbax has written a second checkpoint."""
  fields = LONG | {"checkpoint.every": None}
  config, workdir = tiny(ten[0], fields), tmp_path / "run"
  original, calls = Checkpoints._commit, []

  def removing(*args):
    calls.append(1)
    if len(calls) == 2:
      workdir.rename(workdir.with_name("gone"))
      # Orbax's late writes make folders again.
      late = "" if taken_over else "checkpoints/10.orbax-checkpoint-tmp/params"
      (workdir / late).mkdir(parents=True)
      if taken_over:  # By a new training.
        (workdir / "lock").touch()
    return original(*args)

  monkeypatch.setattr(Checkpoints, "_commit", removing)
  with pytest.raises(MachineError, match="run/lock: was removed or"):
    train.fit(build, config, workdir)
  assert workdir.exists() == taken_over
  assert [path.name for path in workdir.rglob("*")] == ["lock"] * taken_over
