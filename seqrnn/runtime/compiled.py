"""The cache of compiled programs that processes share, up to a limit.

JAX's own limit reads a file of every entry whenever it adds one. With a
thousand entries that takes longer than most compilations.
"""

import hashlib
import os
import platform
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import platformdirs

# The size of each lru_cache of jitted functions. jax.jit identifies a function
# by its identity, so a function that closes over an experiment is kept for
# later calls with the same experiment.
CACHED_FUNCTIONS = 16
_NARROW = 32  # The least padded length.
_LIMIT = 2 * 10**9  # Bytes of the cache.
_LEFT = 0.75  # The share of the limit that is kept when it is exceeded.
_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"


def padded_length(length: int) -> int:
  """A power of two, at least 32: of few lengths, few programs are compiled."""
  return max(_NARROW, 1 << (length - 1).bit_length())


def enable_cache():
  """Enables JAX's compilation cache; call it before JAX is imported.

  A program that was compiled before starts in a third of the time. JAX's
  environment variables take precedence.
  """
  os.environ.setdefault(_DIRECTORY, str(_folder()))
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")
  prune()


def enable_in_process():
  """Enables the cache in a process of the user's, unless JAX has one.

  Where JAX was imported before seqrnn, XLA would log each program that it loads
  as an error, so there it stays off.
  """
  import jax

  silent = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3"
  if silent and jax.config.values["jax_compilation_cache_dir"] is None:
    jax.config.update("jax_compilation_cache_dir", str(_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)


def _folder() -> Path:
  return platformdirs.user_cache_path("seqrnn") / "compiled" / _machine()


def prune(limit: int = _LIMIT):
  """Removes the least recently used programs beyond the limit.

  Other processes may use the cache meanwhile. A folder that the user named in
  JAX's environment variables is left unchanged.
  """
  folder = _folder()
  ours = os.environ.get(_DIRECTORY) == str(folder)
  if not ours or "JAX_COMPILATION_CACHE_MAX_SIZE" in os.environ:
    return
  programs = []
  for path in folder.parent.glob("*/*"):  # Of older machines and versions, too.
    with suppress(OSError):  # Another process has removed it.
      seen = path.stat()
      used = max(seen.st_atime, seen.st_mtime)
      programs.append((used, seen.st_size, path))
  size = sum(size for _, size, _ in programs)
  if size > limit:
    for _, less, path in sorted(programs):
      if size > _LEFT * limit:
        with suppress(OSError):
          path.unlink(missing_ok=True)
        size -= less


def _machine() -> str:
  """A name of the compiler and the processor, on which programs depend."""
  try:
    text = Path("/proc/cpuinfo").read_text()
    facts = re.findall(r"^(?:model name|flags|Features)\s*: .*", text, re.M)
  except OSError:
    facts = [platform.processor()]
  digest = hashlib.sha256("".join(sorted(set(facts))).encode()).hexdigest()
  return f"jaxlib-{metadata.version('jaxlib')}-{digest[:12]}"
