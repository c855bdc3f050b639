"""Programs that XLA has compiled, kept between processes, up to a limit.

JAX has a limit of its own, but reads a file for each entry it has at each one
it adds, which takes longer than many a compilation once there are a thousand.
"""

import hashlib
import os
import platform
import re
import shutil
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import platformdirs

# Compiled functions that a module keeps of the experiments used last, so that
# a second call with the same experiment compiles nothing. jax.jit knows a
# function by its identity: what closes over an experiment's function must be
# made once for it.
CACHED_FUNCTIONS = 16
_LIMIT = 2 * 10**9  # Bytes of the cache of a machine.
_LEFT = 0.75  # Of it, once it was exceeded.
_UNUSED = 30 * 86400.0  # Seconds after which that of another machine goes.
_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"


def enable_cache():
  """Has JAX keep what it compiles; call it before JAX is imported.

  The same program then starts in a third of the time. JAX's own variables take
  precedence.
  """
  os.environ.setdefault(_DIRECTORY, str(_folder()))
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")
  prune()


def _folder() -> Path:
  return platformdirs.user_cache_path("seqrnn") / "compiled" / _machine()


def prune(limit: int = _LIMIT):
  """Removes what was not used for longest, where it is more than the limit.

  Other processes may use the cache meanwhile. A folder that the user has named
  in JAX's variables is left alone.
  """
  folder = _folder()
  own = os.environ.get(_DIRECTORY) == str(folder)
  if not own or "JAX_COMPILATION_CACHE_MAX_SIZE" in os.environ:
    return
  with suppress(OSError):
    _drop_oldest(folder, limit)
    os.utime(folder)  # It is used.
    for other in folder.parent.iterdir():
      if time.time() - other.stat().st_mtime > _UNUSED:
        shutil.rmtree(other, ignore_errors=True)


def _drop_oldest(folder: Path, limit: int):
  found = []
  with os.scandir(folder) as entries:
    for entry in entries:
      with suppress(FileNotFoundError):  # Another process has removed it.
        seen = entry.stat()
        used = max(seen.st_atime, seen.st_mtime)
        found.append((used, seen.st_size, entry.path))
  size = sum(size for _, size, _ in found)
  if size <= limit:
    return
  for _, less, path in sorted(found):
    if size <= _LEFT * limit:
      return
    Path(path).unlink(missing_ok=True)
    size -= less


def _machine() -> str:
  """A name for what compiled code rests on: compiler and processor."""
  try:
    text = Path("/proc/cpuinfo").read_text()
    facts = re.findall(r"^(?:model name|flags|Features)\s*: .*", text, re.M)
  except OSError:
    facts = [platform.processor()]
  digest = hashlib.sha256("".join(sorted(set(facts))).encode()).hexdigest()
  return f"jaxlib-{metadata.version('jaxlib')}-{digest[:12]}"
