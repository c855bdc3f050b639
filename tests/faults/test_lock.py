"""One training at a time in a workdir."""

import signal

import pytest

from tests.faults.conftest import call, contents, steps, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("lock")
  return write_config(folder, {"train.max_steps": 10, "train.eval_every": 5})


def test_a_second_training_is_refused_until_the_first_is_dead(
  config, start, capfd
):
  workdir = config.parent / "run"
  first = start(config, workdir, fault="STOP steps 7")
  first.until(lambda: first.struck and first.stopped)
  before = contents(workdir)
  assert call(config, workdir) == 2
  _, err = capfd.readouterr()
  assert err.startswith(f"error: {workdir}: is being trained by process ")
  assert err.count("\n") == 1
  assert f"by process {first.number} on " in err
  assert contents(workdir) == before
  first.send(signal.SIGKILL)
  assert first.ended().status == -signal.SIGKILL
  assert call(config, workdir) == 0
  assert steps(workdir)[-1] == 10
