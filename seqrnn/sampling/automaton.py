"""outlines-core in a process of its own, whose time and memory are bounded.

The automaton of a short expression can have billions of states, and
outlines-core has no limit. `python automaton.py regex` reads a regular
expression and writes its automaton; `schema` reads a JSON schema and writes its
regular expression. This module imports nothing large.
"""

import array
import contextlib
import importlib.util
import resource
import subprocess
import sys

STATES = 2**15  # The most states over bytes; over symbols there are far fewer.
_SECONDS, _BYTES = 5, 2**29  # Limits of the process.
_TOO_LARGE = 3  # An exit status.
_ROW = 257  # A state after each byte, and whether a text may end here.


class PatternError(Exception):
  """A pattern has no automaton; the message follows its name and value."""


TOO_LARGE = PatternError(
  f"its automaton needs more than {STATES:,} states, {_SECONDS} s or"
  f" {_BYTES >> 20} MB"
)


def bounded(work: str, text: str) -> bytes:
  """The output of a process.

  Raises:
    PatternError: outlines-core refuses the text, is not installed, or exceeds a
      limit.
  """
  if importlib.util.find_spec("outlines_core") is None:
    raise PatternError(
      "needs the package outlines-core; pip install 'seqrnn[patterns]'"
    )
  command = [sys.executable, "-P", __file__, work]
  # outlines-core refuses surrogates.
  content = text.encode("utf-8", "surrogatepass")
  done = subprocess.run(command, input=content, capture_output=True)
  if done.returncode < 0 or done.returncode == _TOO_LARGE:
    raise TOO_LARGE
  if done.returncode:
    error = done.stderr.decode().strip().rpartition("\n")[2]
    raise PatternError(f"outlines-core refuses it: {error}")
  return done.stdout


def byte_automaton(text: str) -> bytes:
  """Rows of 32-bit states: 0 matches nothing, 1 is the first."""
  from outlines_core import Index, Vocabulary

  tokens = {bytes([byte]): [byte] for byte in range(256)}
  index = Index(text, Vocabulary(256, tokens))
  transitions = index.get_transitions()
  if len(transitions) > STATES:
    sys.exit(_TOO_LARGE)
  first = index.get_initial_state()
  ids = {state: n for n, state in enumerate({first: 0} | transitions, 1)}
  rows = array.array("i", bytes(4 * _ROW * (len(ids) + 1)))
  for state, after in transitions.items():
    for byte, to in after.items():
      rows[ids[state] * _ROW + byte] = ids[to]
  return rows.tobytes()


def _main():
  for limit, value in (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_CPU, _SECONDS),
    (resource.RLIMIT_AS, _BYTES),
  ):
    with contextlib.suppress(ValueError, OSError):  # A lower limit stays.
      resource.setrlimit(limit, (value, value))
  text = sys.stdin.buffer.read().decode()
  try:
    if sys.argv[1] == "schema":
      from outlines_core import json_schema

      output = json_schema.build_regex_from_schema(text).encode()
    else:
      output = byte_automaton(text)
  except MemoryError:
    sys.exit(_TOO_LARGE)
  sys.stdout.buffer.write(output)


if __name__ == "__main__":
  _main()
