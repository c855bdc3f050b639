"""Detection on Apache Spark (extra `spark`): logs of many machines."""

import importlib
from types import ModuleType

from seqrnn.errors import UserError


def import_engine() -> ModuleType:
  """The module `engine` of this package, which needs PySpark.

  Raises:
    UserError: PySpark is not installed.
  """
  try:
    return importlib.import_module(f"{__name__}.engine")
  except ModuleNotFoundError as error:
    if str(error.name).startswith("seqrnn"):
      raise
    raise UserError(
      f"config.detect.engine='spark': there is no {error.name}; it needs pip"
      " install pyspark pyarrow, and Java 17 or newer"
    ) from None
