"""The session of Spark, and its errors in one line."""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from seqrnn.errors import UserError

_SETTINGS = ("maxPartitionBytes", "openCostInBytes")
# The exceptions of a Python worker that a user can mend.
_MISTAKE = re.compile(
  r"^(?:seqrnn\.errors\.(?:User|Machine)Error: |(?=ModuleNotFoundError: ))(.*)",
  re.M,
)
_SPARK_ERROR = re.compile(r"\[([A-Z_.]+)\] ([^\n]*)")


@contextmanager
def open_session() -> Iterator[SparkSession]:
  """The active session, or one of Spark's own settings, which is stopped.

  Raises:
    UserError: there is no Java.
  """
  active = SparkSession.getActiveSession()
  if active is not None:
    yield active
    return
  if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
    raise UserError(
      "config.detect.engine='spark': needs Java 17 or newer, and there is no"
      " java on the PATH"
    )
  if "PYSPARK_GATEWAY_PORT" not in os.environ:  # Not started by spark-submit.
    use_this_python()
  with SparkSession.builder.appName("seqrnn").getOrCreate() as session:
    if session.conf.get("spark.log.level", None) is None:
      session.sparkContext.setLogLevel("ERROR")
    yield session


@contextmanager
def whole_files(session: SparkSession) -> Iterator[None]:
  """Makes the session read each file in one task, from its first line."""
  names = [f"spark.sql.files.{name}" for name in _SETTINGS]
  before = [str(session.conf.get(name)) for name in names]
  try:
    for name in names:
      session.conf.set(name, str(2**50))
    yield
  finally:
    for name, value in zip(names, before, strict=True):
      session.conf.set(name, value)


def use_this_python():
  """Makes workers on this machine run the Python that runs this."""
  os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


@contextmanager
def reporting() -> Iterator[None]:
  """Turns a user's mistake that Spark reports into one line.

  Raises:
    UserError: a file, a table or a line is refused.
  """
  try:
    yield
  except (PySparkException, Py4JJavaError) as error:
    if mistake := _MISTAKE.search(str(error)):
      raise UserError(mistake[1]) from error
    if known := _SPARK_ERROR.search(str(error)):
      raise UserError(f"Spark: {known[2].strip()} ({known[1]})") from error
    raise
