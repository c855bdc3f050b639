"""Large corpora on disk: made once, then memory-mapped by every run.

A file of the user's cache folder holds a corpus, as `storage` lays it out. The
file's name is a hash of the sources, of the settings and of the code that reads
them.
"""

import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seqrnn.data.documents import Corpus
from seqrnn.data.logs.formats import report
from seqrnn.data.read import reading
from seqrnn.data.read.reading import Source
from seqrnn.data.sources import storage
from seqrnn.data.sources.storage import Made
from seqrnn.errors import MachineError
from seqrnn.runtime import files

LARGE = 32 * 2**20  # Bytes of the smallest corpus that is kept here.

_UNPACKED = 10  # Bytes of a text that are packed to one.


def size(sources: Sequence[Source]) -> int:
  """Bytes of sources, estimated if packed; 0 for a file that is missing."""
  total = 0
  for source in sources:
    if isinstance(source.content, bytes):
      total += len(source.content)
    else:
      packed = source.content.suffix in reading.PACKED
      with suppress(OSError):  # Reported when it is read.
        stored = source.content.stat().st_size
        total += stored * (_UNPACKED if packed else 1)
  return total


def open_corpus(
  sources: Sequence[Source],
  settings: Sequence[Any],
  make: Callable[[list[Source], Path | None], Made],
) -> Corpus:
  """The corpus of sources; a large one is kept and memory-mapped.

  Processes that need the same corpus at once wait for the first one. That only
  saves time: a file gets its name when it is finished, and its checksum is
  verified when it is opened.

  Args:
    sources: of the corpus.
    settings: all that `make` depends on beside the sources; JSON can hold it.
    make: called with the sources and the folder of temporary files, None for
      the system's; returns the corpus, and lines about it for stderr.

  Raises:
    UserError: as `make`, or the folder cannot be written to.
  """
  small = size(sources) < LARGE
  made = make([*sources], None) if small else _kept(sources, settings, make)
  corpus, lines = made
  for line in lines:
    report(line)
  return corpus


def _kept(
  sources: Sequence[Source],
  settings: Sequence[Any],
  make: Callable[[list[Source], Path | None], Made],
) -> Made:
  import platformdirs  # Finds Pooch's folder without importing requests.

  folder = platformdirs.user_cache_path("seqrnn") / "corpora"
  known = [reading.with_version(source) for source in sources]
  versions = [(source.name, source.version) for source in known]
  key = json.dumps([_code(), settings, versions]).encode()
  path = folder / hashlib.sha256(key).hexdigest()
  try:
    if path.exists() and (made := _load(path)):
      return made
    folder.mkdir(parents=True, exist_ok=True)
    held = files.lock(
      path.with_suffix(".lock"), wait=True, on_wait=_report_wait
    )
    assert held is not None, "`wait` returns with the lock"
    with held:
      made = _load(path) if path.exists() else None
      if made is None:
        files.remove_abandoned(folder)
        _write(path, known, make)
        made = _load(path)
  except OSError as error:
    raise MachineError(
      f"{folder}: cannot keep the corpus: {error.strerror}; the environment"
      " variable XDG_CACHE_HOME names another place, and TMPDIR one for"
      " temporary files"
    ) from None
  if made is None:
    raise MachineError(f"{path}: damaged right after it was written")
  return made


@functools.cache
def _code() -> str:
  """The SHA-256 of the code that reads, so that no version is set by hand."""
  digest = hashlib.sha256()
  for path in sorted(Path(__file__).parent.glob("*.py")):
    digest.update(path.read_bytes())
  return digest.hexdigest()


def _report_wait():
  print("waiting for a process that reads the same corpus", file=sys.stderr)


def _write(
  path: Path,
  sources: list[Source],
  make: Callable[[list[Source], Path | None], Made],
):
  """Writes the corpus of sources to a file, whole or not at all."""
  temporary = files.unfinished(path)
  try:
    with temporary.open("xb") as file:
      with _bar(sources) as advance:
        watched = [source._replace(advance=advance) for source in sources]
        made = make(watched, path.parent)
      storage.write(made, file)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _load(path: Path) -> Made | None:
  """The corpus in a file; None if the file is damaged."""
  with path.open("rb") as file:
    made = storage.read(file)
  if made is None:
    print(f"{path}: damaged, made again", file=sys.stderr)
  return made


@contextmanager
def _bar(sources: list[Source]) -> Iterator[Callable[[int], None]]:
  """A progress bar of the bytes that are read, on a terminal."""
  from rich import progress
  from rich.console import Console

  total = sum(source.version.size for source in sources if source.version)
  console = Console()
  with progress.Progress(
    progress.TextColumn("{task.description}"),
    progress.BarColumn(bar_width=24),
    progress.DownloadColumn(binary_units=True),
    progress.TimeRemainingColumn(),
    console=console,
    disable=not console.is_terminal,
  ) as bar:
    task = bar.add_task("reading", total=total)
    yield lambda size: bar.advance(task, size)
