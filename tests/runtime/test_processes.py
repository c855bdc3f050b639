"""Flags of several processes, and the loss of one."""

import jax

from seqrnn import cli
from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import processes


def test_only_jax_says_that_a_process_was_lost():
  text = "gloo.txt: no such file"
  assert processes.lost(jax.errors.JaxRuntimeError(f"UNKNOWN: {text}"))
  for kind in (UserError, MachineError, OSError, ValueError):
    assert not processes.lost(kind(text))


BOTH = ("--coordinator=127.0.0.1:9", "--num_processes=2")
MISTAKES = [
  ((*BOTH, "--process_id=2"), "--process_id=2: must be below"),
  (BOTH, "--process_id: --coordinator, --num_processes and --process_id must"),
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
