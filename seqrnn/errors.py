"""What ends a run without being a bug."""

_LINE = 2000  # Characters of a message.


class UserError(Exception):
  """A mistake of the user's: one line that names field or file, value, rule.

  run.py prints it and ends with status 2. Anything else that escapes is a
  bug of seqrnn and shows its traceback.
  """


class MachineError(UserError):
  """The machine is in the way: a full disk, a missing right, a held lock.

  No field of a config is wrong, so what was begun may go on later.
  """


class Interrupted(Exception):
  """A signal ended the training, and a checkpoint was written.

  Attributes:
    status: the exit status that says so.
  """

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status


def escaped(text: str, keep: str = "") -> str:
  """What a terminal would obey, written out; anyone may have made the text."""
  return "".join(
    c if c.isprintable() or c in keep else c.encode("unicode_escape").decode()
    for c in text
  )


def visible(text: str) -> str:
  """A message in one line of bounded length, whatever is quoted in it."""
  text = escaped(" ".join(text.splitlines()))
  if len(text) > _LINE:  # The rule that was broken stands at the end.
    text = f"{text[: _LINE // 2]}...{text[-_LINE // 2 :]}"
  return text
