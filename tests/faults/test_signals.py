"""SIGINT and SIGTERM: saved, one line, and resumed to the bit."""

import re
import signal

import pytest

from tests.faults.conftest import STATEFUL, assert_same_run, steps, write_config

pytestmark = pytest.mark.slow

FIELDS = {
  **STATEFUL,
  "train.epochs": 2,
  "train.batches_per_epoch": 20,
  "train.eval_every": 10,
}
STATUS = {"TERM": 143, "INT": 130}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, start):
  """A config, and a run of it that nothing interrupts."""
  folder = tmp_path_factory.mktemp("signals")
  config = write_config(folder, FIELDS)
  return config, folder, start(config, folder / "whole")


def stop(start, config, workdir, fault):
  """A process that gets a signal where it is, and how it ended."""
  process = start(config, workdir, fault=fault)
  done = process.ended()
  assert process.struck, fault
  return done


def finish(start, whole, workdir):
  config, folder, process = whole
  done = start(config, workdir).ended()
  assert (done.status, done.err) == (0, "")
  assert process.ended().status == 0
  assert_same_run(folder / "whole", workdir)


def check(done, workdir, name, step):
  assert done.status == STATUS[name], done
  line = (
    rf"stopped by SIG{name} and saved at step (\d+); repeat the command, or"
    rf" run `seqrnn --workdir={workdir}`, to resume\n"
  )
  match = re.fullmatch(line, done.err)
  assert match, done.err
  assert int(match[1]) == step == steps(workdir)[-1]


@pytest.mark.parametrize(
  ("name", "place", "step"),
  [
    ("TERM", "steps 7", 7),
    pytest.param("TERM", "steps 1", 1, marks=pytest.mark.faults),
    pytest.param("INT", "evaluation 2", 10, marks=pytest.mark.faults),
    pytest.param("TERM", "rows 1", 10, marks=pytest.mark.faults),
    pytest.param("TERM", "orbax 1", None, marks=pytest.mark.faults),
    pytest.param("INT", "rename 1", None, marks=pytest.mark.faults),
  ],
)
def test_a_signal_loses_nothing(whole, start, name, place, step):
  config, folder, _ = whole
  workdir = folder / f"{name}-{place.replace(' ', '-')}"
  done = stop(start, config, workdir, f"{name} {place}")
  # Another thread may be a few steps further.
  check(done, workdir, name, steps(workdir)[-1] if step is None else step)
  finish(start, whole, workdir)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["TERM", "INT"])
@pytest.mark.parametrize("place", ["restore 1", "replace-config.json 1"])
def test_a_signal_before_the_first_step(whole, start, name, place):
  """SIGTERM ends the process, SIGINT in one line."""
  config, folder, _ = whole
  workdir = folder / f"{name}-{place.replace(' ', '-')}"
  done = stop(start, config, workdir, f"{name} {place}")
  if name == "INT":
    assert (done.status, done.err) == (130, "interrupted\n")
  else:
    assert (done.status, done.err) == (-signal.SIGTERM, "")
  assert steps(workdir) == []
  finish(start, whole, workdir)
