"""What counts as the loss of another process."""

import jax
import pytest

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
