"""The cache of compiled programs that processes share, while they are used.

JAX's own limit of its size reads a file of every entry whenever it adds one.
With a thousand entries that takes longer than most compilations.
"""

import hashlib
import os
import platform
import re
import time
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path

import platformdirs

# The size of each lru_cache of jitted functions. jax.jit identifies a function
# by its identity, so a function that closes over an experiment is kept for
# later calls with the same experiment.
CACHED_FUNCTIONS = 16
_NARROW = 32  # The least padded length.
_LARGE = 49_152  # The largest size that others are rounded up to.
_UNUSED = 30 * 24 * 3600  # Seconds after which a program is removed.
_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"


class Pure(partial):
  """A partial function that equals another one of equal arguments.

  Programs that are compiled for it serve the other one, too: folds of a
  cross-validation differ in data alone.
  """

  def __eq__(self, other: object) -> bool:
    parts = lambda one: (one.func, one.args, one.keywords)
    return isinstance(other, Pure) and parts(self) == parts(other)

  def __hash__(self) -> int:
    return hash(self.func)  # An argument, as a user's cell, may have no hash.


def padded_length(length: int) -> int:
  """A power of two, at least 32: of few lengths, few programs are compiled."""
  return max(_NARROW, 1 << (length - 1).bit_length())


def rung(size: int) -> int:
  """The size, rounded up to one of few: 3, 6, 12, ..., 24576, 49152.

  Data of similar sizes then have the same, for which a program is compiled.
  Larger ones are as they are: their padding would take time.
  """
  return size if size > _LARGE else 3 << ((size - 1) // 3).bit_length()


def enable_cache():
  """Enables JAX's compilation cache; call it before JAX is imported.

  A program that was compiled before starts in a third of the time. JAX's
  environment variables take precedence.
  """
  folder = platformdirs.user_cache_path("seqrnn") / "compiled" / _machine()
  if os.environ.setdefault(_DIRECTORY, str(folder)) == str(folder):
    _prune(folder)
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")


def _prune(folder: Path):
  """Removes the programs of all machines and versions that are out of use."""
  for path in folder.parent.glob("*/*"):
    with suppress(OSError):  # Another process has removed it.
      seen = path.stat()
      if max(seen.st_atime, seen.st_mtime) < time.time() - _UNUSED:
        path.unlink()


def _machine() -> str:
  """A name of the compiler and the processor, on which programs depend."""
  try:
    text = Path("/proc/cpuinfo").read_text()
    facts = re.findall(r"^(?:model name|flags|Features)\s*: .*", text, re.M)
  except OSError:
    facts = [platform.processor()]
  digest = hashlib.sha256("".join(sorted(set(facts))).encode()).hexdigest()
  return f"jaxlib-{metadata.version('jaxlib')}-{digest[:12]}"
