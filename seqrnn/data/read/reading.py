"""Reading: files or bytes as chunks, text, lines or the rows of a table.

Content is read as it is (spelling.py changes symbols later). No file
is in memory as a whole, and a packed file is read as it is unpacked.
"""

import codecs
import csv
import glob
import gzip
import hashlib
import importlib
import io
import itertools
import lzma
import math
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from seqrnn.errors import MachineError, UserError

CHUNK = 2**20  # Bytes read at once.
LINE = 2**16  # Characters of a line of a log; a longer line is left out.
LONGEST = 2**24  # Characters of a line, or of a field, that has a whole text.
LINES = 2**28  # Of a file; an event takes some 20 bytes, however short it is.
# How a user can read a file that has a wrong byte.
NOT_UTF8 = (
  "is not UTF-8; is it a file of text? data.errors=latin-1 reads each byte as"
  " a character, data.errors=replace puts U+FFFD there"
)


@contextmanager
def _zstd(file: IO[bytes]) -> Iterator[IO[bytes]]:
  """The unpacked bytes of a file."""
  for name in ("compression.zstd", "backports.zstd"):  # Python 3.14 has one.
    with suppress(ImportError):
      zstd = importlib.import_module(name)
      break
  else:
    raise OSError(
      "it needs the package backports.zstd: pip install backports.zstd"
    )
  try:
    with zstd.ZstdFile(file) as content:
      yield content
  except zstd.ZstdError as error:
    raise OSError(str(error)) from None


PACKED: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".zst": _zstd}


class Version(NamedTuple):
  """The first bytes of a file, as they are stored.

  Attributes:
    size: their number.
    digest: their SHA-256.
  """

  size: int
  digest: str


class Source(NamedTuple):
  """Where bytes come from: a file, or memory.

  Attributes:
    name: of its documents.
    content: the file, or the bytes.
    version: the bytes of the file that are read; None: all, whatever they are.
    advance: called with the number of bytes that were read of the file.
  """

  name: str
  content: Path | bytes
  version: Version | None = None
  advance: Callable[[int], None] | None = None

  @property
  def place(self) -> str:
    """The path, for messages: files of several splits may have one name."""
    return str(self.content) if isinstance(self.content, Path) else self.name


def files(field: str, value: str) -> list[Source]:
  """A file, the matches of a glob, or all files of a folder, ordered by name.

  Names are relative to the folder, or to the part before the glob's first
  wildcard, so that a split by names does not depend on where a corpus lies.

  Raises:
    UserError: there is no such file.
  """
  if not value:
    raise UserError(f"{field}={value!r}: must not be empty")
  path = Path(value)
  folder = os.path.isdir(path)
  if folder:
    root, found = path, set(_walk(path))
  elif os.path.exists(path):
    root, found = path.parent, {path}
  else:
    fixed = itertools.takewhile(lambda p: not set(p) & set("*?["), path.parts)
    root = Path(*fixed)
    matches = map(Path, glob.glob(str(path), recursive=True))
    found = {match for match in matches if not match.is_dir()}
  if not found:
    missing = "no file in this folder" if folder else "no such file"
    raise MachineError(f"{field}={value!r}: {missing}")
  named = sorted((file.relative_to(root).as_posix(), file) for file in found)
  return [Source(name, file) for name, file in named]


def _walk(folder: Path) -> Iterator[Path]:
  """The files in a folder and below, without hidden files and folders."""

  def refuse(error: OSError):
    raise MachineError(f"{error.filename}: cannot be read: {error.strerror}")

  for parent, folders, names in os.walk(folder, onerror=refuse):
    folders[:] = [name for name in folders if not name.startswith(".")]
    yield from (Path(parent, n) for n in names if not n.startswith("."))


class _Stored(io.RawIOBase):
  """The first bytes of a file, and their SHA-256.

  Attributes:
    digest: the SHA-256 of the bytes that were read, if a version is asked for.
  """

  def __init__(self, file: io.FileIO, size: float, source: Source):
    super().__init__()
    self.digest = hashlib.sha256()
    self._file, self._left = file, size
    self._hashed = source.version is not None
    self._advance = source.advance

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    size = min(len(buffer), self._left)
    count = self._file.readinto(memoryview(buffer)[: int(size)])
    self._left -= count
    if self._hashed:
      self.digest.update(memoryview(buffer)[:count])
    if self._advance:
      self._advance(count)
    return count


def with_version(source: Source) -> Source:
  """The source, of which its bytes of now are read.

  Raises:
    UserError: as `chunks`.
  """
  digest, size = hashlib.sha256(), 0
  for chunk in chunks(source, may_grow=True, unpack=False):
    digest.update(chunk)
    size += len(chunk)
  return source._replace(version=Version(size, digest.hexdigest()))


def chunks(
  source: Source, may_grow: bool = False, unpack: bool = True
) -> Iterator[bytes]:
  """The bytes of a source, at most CHUNK at once; no chunk is empty.

  Files that end in .gz, .xz or .zst are unpacked.

  Args:
    source: read up to its size when reading begins.
    may_grow: a file that is longer afterwards has not changed.
    unpack: False: the bytes of a packed file are not unpacked.

  Raises:
    UserError: the file is not a regular one, cannot be read, or changes
      meanwhile.
  """
  path, version = source.content, source.version
  if isinstance(path, bytes):
    yield from (path[i : i + CHUNK] for i in range(0, len(path), CHUNK))
    return
  try:
    # Checked before it is opened: opening a pipe waits for its writer, and a
    # device may have no end.
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise UserError(f"{path}: not a regular file")
    with path.open("rb", buffering=0) as file:
      before = os.fstat(file.fileno())
      opened = PACKED.get(path.suffix) if unpack else None
      if opened and not before.st_size:
        raise EOFError("it is empty, which no packed file is")
      # At most its size: a file may grow as fast as it is read.
      size = version.size if version else math.inf if opened else before.st_size
      stored = _Stored(file, size, source)
      with (opened or nullcontext)(stored) as content:
        while chunk := content.read(CHUNK):
          yield chunk
      after = os.fstat(file.fileno())
      if version and stored.digest.hexdigest() != version.digest:
        raise changed(source)
      if may_grow and not opened and after.st_size > before.st_size:
        return
  except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    reason = getattr(error, "strerror", None) or error
    raise MachineError(f"{path}: cannot be read: {reason}") from None
  if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
    raise changed(source)


def changed(source: Source) -> MachineError:
  """The error for a file that changes while it is read."""
  return MachineError(f"{source.content}: changed while it was read")


def decode(name: str, content: Iterable[bytes], errors: str) -> Iterator[str]:
  """Text of bytes, with newlines as line ends and no byte order mark.

  The text before a wrong byte is yielded before the error is raised. So the
  first mistake in a file is the one reported, however the file is cut into
  chunks.

  Args:
    name: for messages.
    content: UTF-8, or what `errors` says.
    errors: as `data.errors`.

  Raises:
    UserError: a byte is not UTF-8.
  """
  if errors == "latin-1":  # Every byte is a character.
    decoder = codecs.getincrementaldecoder("latin-1")()
  else:
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
  read = 0
  held = ""  # A carriage return that a newline may follow.
  begun = False
  fault = None
  for chunk in itertools.chain(content, [b""]):
    last = not chunk
    left, _ = decoder.getstate()  # The first bytes of a character.
    try:
      text = decoder.decode(chunk, last)
    except UnicodeDecodeError as error:
      text = (left + chunk)[: error.start].decode()
      fault = UserError(
        f"{name}: byte {read - len(left) + error.start} {NOT_UTF8}"
      )
    read += len(chunk)
    if text and not begun:
      text = text.removeprefix("\ufeff")
      begun = True
    text = held + text
    held = "\r" if text.endswith("\r") and not (last or fault) else ""
    yield text.removesuffix(held).replace("\r\n", "\n")
    if fault:
      raise fault


def text(source: Source, errors: str) -> Iterator[str]:
  """The text of a source, a chunk at a time.

  Raises:
    UserError: as `chunks` and `decode`.
  """
  return decode(source.place, chunks(source), errors)


def lines(
  source: Source,
  errors: str,
  longest: int | None = None,
  may_grow: bool = False,
) -> Iterator[str]:
  """The lines of a source; only newlines end a line.

  Args:
    source: of which one line at a time is in memory.
    errors: as `data.errors`.
    longest: characters of a line at most; None: it is a line of a log, and of a
      line of more than LINE characters these and the next one are yielded.
    may_grow: as of `chunks`.

  Raises:
    UserError: as `text`, a line is longer, or there are too many.
  """
  most = LINE + 1 if longest is None else None
  held = ""
  number = 1
  content = chunks(source, may_grow)
  for part in decode(source.place, content, errors):
    part, start = held + part, 0
    # One at a time: objects of all short lines take 15 times the part.
    while (end := part.find("\n", start)) >= 0:
      yield part[start:end][:most]
      start, number = end + 1, number + 1
      if number > LINES:
        raise UserError(
          f"{source.place}: line {number}: a file has at most {LINES:,} lines"
        )
    held = part[start:][:most]
    if longest is not None and len(held) > longest:
      raise UserError(
        f"{source.place}: line {number}: has more than {longest} characters"
      )
  if held:
    yield held


def rows(source: Source, errors: str) -> Iterator[tuple[int, dict[str, str]]]:
  """The rows of a csv file below its header, each with its last line.

  Raises:
    UserError: the file cannot be read, a row is not csv, or two columns have
      the same name.
  """
  csv.field_size_limit(LONGEST)
  ended = (
    part
    for line in lines(source, errors, LONGEST)
    # Lines of a csv file may end with a carriage return alone.
    for part in io.StringIO(f"{line}\n", newline="")
  )
  found = csv.DictReader(ended, strict=True)
  try:
    counts = Counter(name for name in found.fieldnames or () if name)
    for name, count in counts.most_common(1):
      if count > 1:
        raise UserError(
          f"{source.place}:{found.line_num}: has {count} columns {name!r};"
          " names of columns must differ"
        )
    for row in found:
      if None in row:
        raise UserError(
          f"{source.place}:{found.line_num}: has more columns than the header"
        )
      yield found.line_num, row
  except csv.Error as error:
    line = found.reader.line_num
    raise UserError(f"{source.place}:{line}: {error}") from None
