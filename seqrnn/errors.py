"""The one exception that is a user's to mend."""


class UserError(Exception):
  """A mistake of the user's: one line that names field or file, value, rule.

  run.py prints it and ends with status 2. Anything else that escapes is a
  bug of seqrnn and shows its traceback.
  """
