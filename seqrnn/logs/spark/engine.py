"""The engine that examines sessions: this process, or Apache Spark."""

import importlib
from types import ModuleType

from seqrnn.errors import UserError


def of_spark(module: str) -> ModuleType:
  """A module that needs PySpark.

  Raises:
    UserError: PySpark is not installed.
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    if str(error.name).startswith("seqrnn"):
      raise
    raise UserError(
      f"config.detect.engine='spark': there is no {error.name}; it needs pip"
      " install pyspark pyarrow, and Java 17 or newer"
    ) from None
