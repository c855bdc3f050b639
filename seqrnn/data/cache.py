"""Encoded corpora on disk: encoded once, then memory-mapped by every run.

A file of the user's cache folder holds the ids, the documents, a JSON object of
the other fields, and a footer with the sizes of these parts and a checksum. The
file's name is a hash of the sources and of the settings.
"""

import hashlib
import json
import mmap
import os
import secrets
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from seqrnn.data import encoding, reading
from seqrnn.data.documents import Corpus
from seqrnn.data.encoding import Encoded
from seqrnn.data.reading import Source
from seqrnn.errors import MachineError
from seqrnn.runtime import files

LARGE = 32 * 2**20  # Bytes of the smallest corpus that is kept here.

_VERSION = 1  # Of the format, and of the symbols of each unit.
_SIZES = struct.Struct("<8sQQ")  # Magic, bytes of documents and of JSON.
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"seqrnn\0\1"


def size(sources: Sequence[Source]) -> int:
  """Bytes of sources, 0 for a file that is missing."""
  total = 0
  for source in sources:
    if isinstance(source.content, bytes):
      total += len(source.content)
    else:
      with suppress(OSError):  # Reported when it is read.
        total += source.content.stat().st_size
  return total


def open_corpus(sources: Sequence[Source], unit: str, errors: str) -> Corpus:
  """The corpus of sources, memory-mapped; it is encoded if it is not cached.

  Processes that need the same corpus at once wait for the first one. That only
  saves time: a file gets its name when it is finished, and its checksum is
  verified when it is opened.

  Raises:
    UserError: as `reading.chunks` and `encoding.encode`, or the folder cannot
      be written to.
  """
  import platformdirs  # Finds Pooch's folder without importing requests.

  folder = platformdirs.user_cache_path("seqrnn") / "corpora"
  digests = [_digest(source) for source in sources]
  names = [source.name for source in sources]
  key = json.dumps([_VERSION, unit, errors, names, digests]).encode()
  path = folder / hashlib.sha256(key).hexdigest()
  try:
    if path.exists() and (corpus := _load(path, unit)):
      return corpus
    folder.mkdir(parents=True, exist_ok=True)
    held = files.lock(
      path.with_suffix(".lock"), wait=True, on_wait=_report_wait
    )
    assert held is not None, "`wait` returns with the lock"
    with held:
      corpus = _load(path, unit) if path.exists() else None
      if corpus is None:
        files.remove_abandoned(folder)
        _write(path, sources, digests, unit, errors)
        corpus = _load(path, unit)
  except OSError as error:
    raise MachineError(
      f"{folder}: cannot keep the encoded corpus: {error.strerror};"
      " the environment variable XDG_CACHE_HOME names another place"
    ) from None
  if corpus is None:
    raise MachineError(f"{path}: damaged right after it was written")
  return corpus


def _digest(source: Source) -> str:
  digest = hashlib.sha256()
  for chunk in reading.chunks(source):
    digest.update(chunk)
  return digest.hexdigest()


def _report_wait():
  print("waiting for a process that encodes this corpus", file=sys.stderr)


def _write(
  path: Path,
  sources: Sequence[Source],
  digests: list[str],
  unit: str,
  errors: str,
):
  """Encodes sources to a file, whole or not at all."""
  temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
  try:
    with (
      temporary.open("x+b") as file,
      tempfile.TemporaryFile(dir=path.parent) as documents,
      _bar(size(sources)) as advance,
    ):
      watched = (
        ((source.name, 0), _watch(source, digest, advance))
        for source, digest in zip(sources, digests, strict=True)
      )
      encoded = encoding.encode(watched, unit, errors, file, documents)
      file.write(bytes(-file.tell() % 8))  # Aligns the documents.
      size_of_documents = documents.tell()
      documents.seek(0)
      while chunk := documents.read(reading.CHUNK):
        file.write(chunk)
      rest = json.dumps(encoded._asdict()).encode()
      file.write(rest)
      file.write(_SIZES.pack(_MAGIC, size_of_documents, len(rest)))
      # Of the file as it is, since a wider type rewrites the ids.
      file.write(_CHECKSUM.pack(_checksum(file, file.tell())))
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _load(path: Path, unit: str) -> Corpus | None:
  """The corpus in a file; None if the file is damaged."""
  with path.open("rb") as file:
    footer = os.fstat(file.fileno()).st_size - _SIZES.size - _CHECKSUM.size
    if footer > 0:
      checksum = _CHECKSUM.pack(_checksum(file, footer + _SIZES.size))
      intact = checksum == file.read()
      file.seek(footer)
      magic, size_of_documents, size_of_rest = _SIZES.unpack(
        file.read(_SIZES.size)
      )
    if footer <= 0 or not intact or magic != _MAGIC:
      print(f"{path}: damaged, encoded again", file=sys.stderr)
      return None
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  place = footer - size_of_rest
  encoded = Encoded(**json.loads(content[place:footer]))
  place -= size_of_documents
  documents = np.frombuffer(content, "<i8", size_of_documents // 8, place)
  documents = documents.reshape(-1, 2)
  ids = np.frombuffer(content, encoded.kind, documents[-1, 0])
  return encoding.open_encoded(unit, encoded, ids, documents)


def _checksum(file: BinaryIO, size: int) -> int:
  """The CRC-32 of a file's first bytes, after which its position stands."""
  checksum = 0
  file.seek(0)
  while size:
    chunk = file.read(min(size, reading.CHUNK))
    checksum = zlib.crc32(chunk, checksum)
    size -= len(chunk)
  return checksum


def _watch(
  source: Source, digest: str, advance: Callable[[int], None]
) -> Iterator[bytes]:
  """The bytes of a source, which must have this digest."""
  found = hashlib.sha256()
  for chunk in reading.chunks(source):
    found.update(chunk)
    yield chunk
    advance(len(chunk))
  if found.hexdigest() != digest:
    raise reading.changed(source)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
  """A progress bar of the bytes encoded, on a terminal."""
  from rich import progress
  from rich.console import Console

  console = Console()
  with progress.Progress(
    progress.TextColumn("{task.description}"),
    progress.BarColumn(bar_width=24),
    progress.DownloadColumn(binary_units=True),
    progress.TimeRemainingColumn(),
    console=console,
    disable=not console.is_terminal,
  ) as bar:
    task = bar.add_task("encoding", total=total)
    yield lambda size: bar.advance(task, size)
