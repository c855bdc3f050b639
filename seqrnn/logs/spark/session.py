"""The session of Spark, and its errors in one line."""

# The extra `spark` may not be installed.
# pyright: reportMissingImports=false

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from seqrnn.errors import UserError

_JAVA = 17  # The oldest version that Spark 4 runs on.
_USER_ERROR = re.compile(r"^seqrnn\.errors\.(?:User|Machine)Error: (.*)", re.M)
_NO_MODULE = re.compile(r"^ModuleNotFoundError: (.*)", re.M)


@contextmanager
def opened() -> Iterator[SparkSession]:
  """The active session, or one of Spark's own settings, which is stopped.

  Raises:
    UserError: there is no Java that Spark runs on.
  """
  active = SparkSession.getActiveSession()
  if active is not None:
    yield active
    return
  _require_java()
  if "PYSPARK_GATEWAY_PORT" not in os.environ:  # Not started by spark-submit.
    use_this_python()
  session = SparkSession.builder.appName("seqrnn").getOrCreate()
  if session.conf.get("spark.log.level", None) is None:
    session.sparkContext.setLogLevel("ERROR")
  try:
    yield session
  finally:
    session.stop()


def use_this_python():
  """Makes workers on this machine run the Python that runs this."""
  os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def _require_java():
  home = os.environ.get("JAVA_HOME")
  java = shutil.which("java", path=home and os.path.join(home, "bin"))
  needed = f"config.detect.engine='spark': needs Java {_JAVA} or newer"
  if java is None:
    raise UserError(f"{needed}, and there is no java on the PATH")
  said = subprocess.run([java, "-version"], capture_output=True, text=True)
  version = re.search(r'version "(\d+)', said.stderr + said.stdout)
  if version and int(version[1]) < _JAVA:
    raise UserError(f"{needed}; {java} is version {version[1]}")


@contextmanager
def reporting() -> Iterator[None]:
  """Turns a user's mistake that Spark reports into one line.

  Raises:
    UserError: a file, a table or a line is not what it must be.
  """
  try:
    yield
  except (PySparkException, Py4JJavaError) as error:
    text = str(error)
    if found := _USER_ERROR.search(text):
      raise UserError(found[1]) from error
    if found := _NO_MODULE.search(text):
      raise UserError(
        f"Spark's workers: {found[1]}; each needs this package, and the Python"
        " of the driver (spark.pyspark.python, or --archives of spark-submit)"
      ) from error
    if line := _line_of(text):
      raise UserError(f"Spark: {line}") from error
    raise


def _line_of(text: str) -> str | None:
  """What a person can mend, in one line; None: it is no such error."""
  found = re.search(r"\[([A-Z_.]+)\] ([^\n]*)", text)
  if found is None:
    return None
  return f"{found[2].strip()} ({found[1]})"
