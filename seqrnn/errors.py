"""Exceptions that end a run and are no bug, and safe lines for terminals."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_LIMIT = 2000  # Characters of a message.
_NAMES = 10  # Of a list in a message.
_LENGTH = 40  # Characters of a name that a message shows.
_RESUME = "repeat the command to resume"


class UserError(Exception):
  """A user's mistake, in a line that names the field or file, value and rule.

  run.py prints the line and exits with status 2. Any other exception that
  reaches run.py is a bug of seqrnn and shows its traceback.
  """

  def _render_traceback_(self) -> list[str]:
    """What IPython and notebooks show in place of a traceback."""
    return [f"error: {visible(str(self))}"]


class MachineError(UserError):
  """The machine prevents the run, as a full disk or a held lock does.

  The config is valid, so the run can be resumed later.
  """


class DataError(UserError, ValueError):
  """Data in memory that a function cannot read; a ValueError as well."""


class Interrupted(Exception):
  """A signal has ended the training, after a checkpoint was saved.

  Attributes:
    number: of the signal.
    status: the exit status, 128 + this number.
  """

  def __init__(self, number: int, event: str = "", resume: str = _RESUME):
    name = signal.Signals(number).name
    super().__init__(f"stopped by {name}{event}; {resume}")
    self.number, self.status = number, 128 + number

  def _render_traceback_(self) -> list[str]:
    """What IPython and notebooks show in place of a traceback."""
    return [str(self)]


@contextmanager
def needs_package(user: str, names: str, extra: str) -> Iterator[None]:
  """Names the package that an import of its block lacks.

  Any other ImportError is a bug, of seqrnn or of the package.

  Args:
    user: what needs the packages: a field with its value, or a file.
    names: of the packages, separated by blanks.
    extra: of seqrnn, which brings the packages.

  Raises:
    UserError: a package is not installed.
  """
  try:
    yield
  except ModuleNotFoundError as error:
    if (name := str(error.name).partition(".")[0]) not in names.split():
      raise
    raise UserError(
      f"{user}: needs the package {name}: pip install 'seqrnn[{extra}]'"
    ) from None


def escaped(text: str, keep: str = "") -> str:
  """Returns untrusted text with control characters escaped for a terminal."""
  return "".join(
    c if c.isprintable() or c in keep else c.encode("unicode_escape").decode()
    for c in text
  )


def counted(count: int, noun: str) -> str:
  """Returns a count of things that have a regular plural."""
  return f"{count:,} {noun}" + "s" * (count != 1)


def listed(names: Sequence[object]) -> str:
  """Returns the first names, quoted and short, and how many more there are."""
  more = len(names) - _NAMES
  rest = f" and {more:,} more" if more > 0 else ""
  some = (shortened(repr(name), _LENGTH) for name in names[:_NAMES])
  return " ".join(some) + rest


def shortened(text: str, length: int) -> str:
  """Returns the beginning of a text, with `...` if it is longer."""
  return text if len(text) <= length else f"{text[:length]}..."


def visible(text: str) -> str:
  """Returns a message as one line of bounded length, safe for a terminal."""
  text = escaped(" ".join(text.splitlines()))
  if len(text) > _LIMIT:  # Keep the end, which states the broken rule.
    text = f"{text[: _LIMIT // 2]}...{text[-_LIMIT // 2 :]}"
  return text


def report(text: str):
  """Prints a message as a line on stderr, if anybody reads it."""
  with suppress(OSError):
    print(visible(text), file=sys.stderr, flush=True)
