"""What ends a run without being a bug."""


class UserError(Exception):
  """A mistake of the user's: one line that names field or file, value, rule.

  run.py prints it and ends with status 2. Anything else that escapes is a
  bug of seqrnn and shows its traceback.
  """


class Interrupted(Exception):
  """A signal ended the training, and a checkpoint was written.

  Attributes:
    status: the exit status that says so.
  """

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status
