"""Large corpora on disk: read once, then memory-mapped by every run.

A folder of the user's cache has a corpus: a .npy file for each array and a
pickle of all else. The folder's name is a hash of the files, of the settings
and of the code that reads them.
"""

import functools
import hashlib
import itertools
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from seqrnn.data.documents import Corpus
from seqrnn.data.read.reading import PACKED, Source
from seqrnn.errors import report
from seqrnn.runtime import files

LARGE = 32 * 2**20  # Bytes of the smallest corpus that is written to disk.

_UNPACKED = 10  # Bytes of a text that are packed to one.
_OPEN = 2  # Corpora that a process keeps: a run reads the same several times.
_opened: dict[str, Corpus] = {}  # By their keys.
# Classes that a corpus consists of, and what NumPy makes arrays with.
_NAMES = {
  *("Corpus", "LogCuts", "IdleTimes", "Names", "Texts", "Stored"),
  *("ndarray", "dtype", "scalar", "_frombuffer", "_reconstruct"),
}
_MODULES = ("seqrnn.data.", "numpy.")  # And what is in them.

# A corpus, and the lines about it for stderr.
ReadCorpus = tuple[Corpus, list[str]]


def open_corpus(
  sources: Sequence[Source], settings: Sequence, read: Callable[[], ReadCorpus]
) -> Corpus:
  """The corpus of sources; a large one is written to disk and memory-mapped.

  Args:
    sources: of the corpus.
    settings: all that `read` depends on beside the sources; JSON can hold it.
    read: returns the corpus, and lines about it for stderr.

  Raises:
    UserError: as `read`.
    MachineError: the folder cannot be written to.
  """
  stamps = [*map(_stamp, sources)]
  key = json.dumps([settings, stamps])
  if key not in _opened:
    sizes = (
      size * (_UNPACKED if path.endswith(tuple(PACKED)) else 1)
      for _, path, size, _ in stamps
    )
    if sum(sizes) < LARGE:
      corpus, lines = read()
    else:  # A log may grow meanwhile.
      changed = lambda: stamps != [*map(_stamp, sources)]
      corpus, lines = _on_disk(key, read, changed)
    for line in lines:
      report(line)
    while len(_opened) >= _OPEN:
      del _opened[next(iter(_opened))]
    _opened[key] = corpus
  return _opened[key]


def _stamp(source: Source) -> tuple[str, str, int, int]:
  """The name, the path or the hash, the size and the time of a source."""
  if isinstance(source.content, bytes):
    digest = hashlib.sha256(source.content).hexdigest()
    return source.name, digest, len(source.content), 0
  path, size, time = source.content.absolute(), 0, 0
  with suppress(OSError):  # Reported when it is read.
    size, time = path.stat().st_size, path.stat().st_mtime_ns
  return source.name, str(path), size, time


@functools.cache
def _code() -> str:
  """The SHA-256 of the code that reads, so that no version is set by hand."""
  digest = hashlib.sha256()
  for path in sorted(Path(__file__).parents[1].rglob("*.py")):
    digest.update(path.read_bytes())
  return digest.hexdigest()


def _on_disk(
  key: str, read: Callable[[], ReadCorpus], changed: Callable[[], bool]
) -> ReadCorpus:
  import platformdirs  # Finds Pooch's folder without importing requests.

  parent = platformdirs.user_cache_path("seqrnn") / "corpora"
  folder = parent / hashlib.sha256((_code() + key).encode()).hexdigest()
  with files.write_errors(parent):
    parent.mkdir(parents=True, exist_ok=True)
    # That others wait only saves time: a folder is renamed when it is complete.
    with files.locked(folder.with_suffix(".lock"), "read", wait=True):
      reading = _load(folder) if folder.exists() else None
      if reading is None:
        report(f"reading a large corpus; it is kept in {folder}")
        reading = read()
        if not changed():
          _save(folder, reading)
      return reading


def _save(folder: Path, reading: ReadCorpus):
  """Writes a corpus and its lines to a folder, completely or not at all."""
  temporary = folder.with_suffix(".tmp")
  shutil.rmtree(temporary, ignore_errors=True)  # Of a process that was killed.
  temporary.mkdir()
  columns: list[pickle.PickleBuffer] = []  # Each array once.
  try:
    content = pickle.dumps(reading, 5, buffer_callback=columns.append)
    for number, column in enumerate(columns):
      content_N = np.frombuffer(column.raw(), np.uint8)
      np.save(temporary / f"{number}.npy", content_N)
    (temporary / "corpus.pickle").write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)  # A damaged one.
    temporary.rename(folder)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


class _Unpickler(pickle.Unpickler):
  """Reads a corpus; any other object is refused, so that no file runs code."""

  def find_class(self, module: str, name: str) -> type | Callable:
    """The class or the function of NumPy of this name."""
    if name not in _NAMES or not f"{module}.".startswith(_MODULES):
      raise pickle.UnpicklingError(f"{module}.{name}")
    return super().find_class(module, name)


def _load(folder: Path) -> ReadCorpus | None:
  """The corpus in a folder; None if it is damaged."""
  columns = (
    np.load(folder / f"{number}.npy", mmap_mode="r")
    for number in itertools.count()
  )
  try:
    with (folder / "corpus.pickle").open("rb") as file:
      return _Unpickler(file, buffers=columns).load()
  except Exception:  # A damaged file raises any type.
    report(f"{folder}: damaged, made again")
    return None
