"""Flags of several processes, and the loss of one."""

import jax
import pytest

from seqrnn import cli
from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import processes


@pytest.mark.parametrize(
  "text", ["gloo.txt: no such file", "barrier/heartbeat", "ABORTED"]
)
def test_only_jax_says_that_a_process_was_lost(text):
  assert processes.lost(jax.errors.JaxRuntimeError(f"UNKNOWN: {text}"))
  for kind in (UserError, MachineError, OSError, ValueError):
    assert not processes.lost(kind(text))


def test_the_cause_of_an_error_may_say_so():
  cause = jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out")
  wrapped, mistake = RuntimeError("cannot be saved"), UserError("a mistake")
  wrapped.__cause__ = mistake.__context__ = cause
  assert processes.lost(wrapped)
  assert not processes.lost(mistake)


ADDRESS = "--coordinator=127.0.0.1:9"
MISTAKES = [
  ((ADDRESS, "--num_processes=2", "--process_id=2"), "--process_id=2: must be"),
  ((ADDRESS, "--num_processes=2"), "--process_id: is missing; --coordinator"),
  ((ADDRESS, "--process_id=0"), "--num_processes: is missing; --coordinator"),
  (("--num_processes=2", "--process_id=0"), "--coordinator: is missing; -"),
  (
    ("--coordinator=here", "--num_processes=2", "--process_id=0"),
    "--coordinator=here: must be host:port",
  ),
  (
    ("--coordinator=127.0.0.1:", "--num_processes=2", "--process_id=0"),
    "--coordinator=127.0.0.1:: must be host:port",
  ),
  (
    (
      "--coordinator=127.0.0.1:99999",
      "--num_processes=2",
      "--process_id=0",
    ),
    "--coordinator=127.0.0.1:99999: ",
  ),
  (
    ("--coordinator=a..b:4000", "--num_processes=2", "--process_id=1"),
    "--coordinator=a..b:4000: must be host:port",
  ),
  (
    (
      "--coordinator=no.such.host.invalid:4000",
      "--num_processes=2",
      "--process_id=1",
    ),
    "--coordinator=no.such.host.invalid:4000: ",
  ),
  (
    (ADDRESS, "--num_processes=2", "--process_id=0", "--mode=sample"),
    "--mode=sample: runs in one process",
  ),
  (
    (ADDRESS, "--num_processes=2", "--process_id=0", "--distributed=auto"),
    "--distributed=auto, --coordinator=127.0.0.1:9: give one of the two",
  ),
  (
    (ADDRESS, "--num_processes=0", "--process_id=0"),
    "--num_processes=0: ",
  ),
  ((ADDRESS, "--num_processes=2", "--process_id=-1"), "--process_id=-1: "),
]


def test_a_mistake_in_the_flags_is_refused_in_a_line(tmp_path, capfd):
  for flags, expected in MISTAKES:
    workdir = tmp_path / "run"
    line = ["run.py", "--config=configs/rnn.py", f"--workdir={workdir}", *flags]
    assert cli.main(line) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith(f"error: {expected}"), err
    assert err.count("\n") == 1
    assert not workdir.exists()
