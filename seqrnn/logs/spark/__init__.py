"""Detection on Apache Spark (extra `spark`): logs of many machines."""

import importlib
from types import ModuleType

from seqrnn.errors import UserError


def import_module(name: str) -> ModuleType:
  """A module of this package, which needs PySpark.

  Raises:
    UserError: PySpark is not installed.
  """
  try:
    return importlib.import_module(f"{__name__}.{name}")
  except ModuleNotFoundError as error:
    if str(error.name).startswith("seqrnn"):
      raise
    raise UserError(
      f"config.detect.engine='spark': there is no {error.name}; it needs pip"
      " install pyspark pyarrow, and Java 17 or newer"
    ) from None
