"""Large corpora on disk: read once, then memory-mapped by every run.

A folder of the user's cache has a corpus: a .npy file for each column, and
corpus.json, which names them. The folder's name is a hash of the files, of the
settings and of the code that reads them.
"""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.data.documents import Corpus, Names
from seqrnn.data.logs.cuts import Cuts
from seqrnn.data.logs.formats import report
from seqrnn.data.read.columns import Stored, Texts, stored
from seqrnn.data.read.reading import PACKED, Source
from seqrnn.errors import MachineError
from seqrnn.runtime import files

LARGE = 32 * 2**20  # Bytes of the smallest corpus that is written to disk.

_UNPACKED = 10  # Bytes of a text that are packed to one.
_OPEN = 2  # Corpora that a process keeps: a run reads the same several times.
_opened: dict[str, Corpus] = {}  # By their keys.
# Classes whose attributes have names in corpus.json.
_CLASSES = {
  Corpus: Corpus._fields,
  Stored: ("content", "ends"),
  Texts: ("symbols", "ids"),
  Names: ("files", "firsts", "lines"),
  Cuts: Cuts._fields,
}

# A corpus, and the lines about it for stderr.
Reading = tuple[Corpus, list[str]]


def open_corpus(
  sources: Sequence[Source],
  settings: Sequence[Any],
  read: Callable[[], Reading],
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
  key = _key(sources, settings)
  if key not in _opened:
    large = sum(map(_size, sources)) >= LARGE
    corpus, lines = _on_disk(sources, settings, read) if large else read()
    for line in lines:
      report(line)
    while len(_opened) >= _OPEN:
      del _opened[next(iter(_opened))]
    _opened[key] = corpus
  return _opened[key]


def _key(sources: Sequence[Source], settings: Sequence[Any]) -> str:
  """Names the files, by their sizes and times, and the settings."""
  stamps = []
  for source in sources:
    if isinstance(source.content, bytes):
      stamp = [hashlib.sha256(source.content).hexdigest()]
    else:
      stamp = [str(source.content.absolute())]
      with suppress(OSError):  # Reported when it is read.
        status = source.content.stat()
        stamp += [status.st_size, status.st_mtime_ns]
    stamps.append([source.name, *stamp])
  return json.dumps([settings, stamps])


def _size(source: Source) -> int:
  """Bytes of a source, estimated if packed; 0 for a file that is missing."""
  if isinstance(source.content, bytes):
    return len(source.content)
  with suppress(OSError):
    packed = source.content.suffix in PACKED
    return source.content.stat().st_size * (_UNPACKED if packed else 1)
  return 0


@functools.cache
def _code() -> str:
  """The SHA-256 of the code that reads, so that no version is set by hand."""
  digest = hashlib.sha256()
  for path in sorted(Path(__file__).parents[1].rglob("*.py")):
    digest.update(path.read_bytes())
  return digest.hexdigest()


def _on_disk(
  sources: Sequence[Source],
  settings: Sequence[Any],
  read: Callable[[], Reading],
) -> Reading:
  import platformdirs  # Finds Pooch's folder without importing requests.

  parent = platformdirs.user_cache_path("seqrnn") / "corpora"
  key = _key(sources, settings)
  folder = parent / hashlib.sha256((_code() + key).encode()).hexdigest()
  try:
    parent.mkdir(parents=True, exist_ok=True)
    lock = files.lock(folder.with_suffix(".lock"), wait=True, on_wait=_wait)
    assert lock is not None, "`wait` returns with the lock"
    # That others wait only saves time: a folder is renamed when it is complete.
    with lock:
      reading = _load(folder)
      if reading is None:
        report(f"reading a large corpus; it is kept in {folder}")
        reading = read()
        if key == _key(sources, settings):  # Unless a log has grown meanwhile.
          _save(folder, reading)
      return reading
  except OSError as error:
    raise MachineError(
      f"{parent}: cannot keep the corpus: {error.strerror}; the environment"
      " variable XDG_CACHE_HOME names another folder, and TMPDIR one for"
      " temporary files"
    ) from None


def _wait():
  report("waiting for a process that reads the same corpus")


def _save(folder: Path, reading: Reading):
  """Writes a corpus and its lines to a folder, completely or not at all."""
  corpus, lines = reading
  temporary = folder.with_suffix(".tmp")
  shutil.rmtree(temporary, ignore_errors=True)  # Of a process that was killed.
  temporary.mkdir()
  try:
    content = [_save_value(corpus, "corpus", temporary, {}), lines]
    (temporary / "corpus.json").write_text(json.dumps(content))
    shutil.rmtree(folder, ignore_errors=True)  # A damaged one.
    temporary.rename(folder)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _save_value(value: Any, name: str, folder: Path, saved: dict) -> Any:
  """Writes the columns of a value; returns its entry of corpus.json.

  Args:
    value: a field of a corpus.
    name: of its column, or the first part of the names of several.
    folder: of the columns.
    saved: by id(), the values with an entry, and the entries: a column of
      several fields is written once.
  """
  if value is None or isinstance(value, str | float):
    return value
  if id(value) in saved:
    return saved[id(value)][1]
  if isinstance(value, np.ndarray):
    np.save(folder / f"{name}.npy", value, allow_pickle=False)
    entry = {"column": f"{name}.npy"}
  else:
    if type(value) not in _CLASSES:
      value = stored(value)
    entry = {"class": type(value).__name__} | {
      field: _save_value(
        getattr(value, field), f"{name}.{field}", folder, saved
      )
      for field in _CLASSES[type(value)]
    }
  saved[id(value)] = value, entry
  return entry


def _load(folder: Path) -> Reading | None:
  """The corpus in a folder; None if there is none, or it is damaged."""
  if not folder.exists():
    return None
  try:
    corpus, lines = json.loads((folder / "corpus.json").read_bytes())
    return _load_value(corpus, folder), lines
  except (OSError, ValueError, EOFError):
    report(f"{folder}: damaged, made again")
    return None


def _load_value(entry: Any, folder: Path) -> Any:
  """The value of an entry of corpus.json."""
  if not isinstance(entry, dict):
    return entry
  if "column" in entry:
    column = np.load(folder / entry["column"], mmap_mode="r")
    return np.asarray(column)  # Not np.memmap, whose slices are slow.
  [cls] = (cls for cls in _CLASSES if cls.__name__ == entry["class"])
  fields = {name: _load_value(entry[name], folder) for name in _CLASSES[cls]}
  if cls is Corpus:
    fields["symbols"] = list(fields["symbols"])
  return cls(**fields)
