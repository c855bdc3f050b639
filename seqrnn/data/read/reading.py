"""Reading: files or bytes as chunks, text, lines or the rows of a table.

Content is read as it is (spelling.py changes symbols later). No file
is in memory as a whole, and a packed file is read as it is unpacked.
"""

import codecs
import glob
import gzip
import importlib
import itertools
import lzma
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from seqrnn.errors import MachineError, UserError
from seqrnn.runtime.files import CsvError, read_csv

CHUNK = 2**20  # Bytes read at once.
LINE = 2**16  # Characters of a line of a log; a longer line is left out.
LONGEST = 2**24  # Characters of a line, or of a field, that has a whole text.
# How a user can read a file that has a wrong byte.
NOT_UTF8 = (
  "is not UTF-8; is it a file of text? data.errors=latin-1 reads each byte as"
  " a character, data.errors=replace puts U+FFFD there"
)


def _zstd(file: IO[bytes]) -> IO[bytes]:
  """The unpacked bytes of a file."""
  for name in ("compression.zstd", "backports.zstd"):  # Python 3.14 has one.
    with suppress(ImportError):
      return importlib.import_module(name).ZstdFile(file)
  raise OSError(
    "it needs the package backports.zstd: pip install backports.zstd"
  )


PACKED: dict[str, Callable] = {
  ".gz": gzip.open,
  ".xz": lzma.open,
  ".zst": _zstd,
}


class Source(NamedTuple):
  """Where bytes come from: a file, or memory.

  Attributes:
    name: of its documents.
    content: the file, or the bytes; of Spark, chunks of them.
  """

  name: str
  content: Path | bytes

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
    root, paths = path, set(_walk(path))
  elif os.path.exists(path):
    root, paths = path.parent, {path}
  else:
    fixed = itertools.takewhile(lambda p: not set(p) & set("*?["), path.parts)
    root = Path(*fixed)
    matches = map(Path, glob.glob(str(path), recursive=True))
    paths = {match for match in matches if not match.is_dir()}
  if not paths:
    missing = "no file in this folder" if folder else "no such file"
    place = f"the current folder is {os.getcwd()}"
    raise MachineError(f"{field}={value!r}: {missing}; {place}")
  named = sorted((file.relative_to(root).as_posix(), file) for file in paths)
  return [Source(name, file) for name, file in named]


def _walk(folder: Path) -> Iterator[Path]:
  """The files in a folder and below, without hidden files and folders."""

  def refuse(error: OSError):
    raise MachineError(f"{error.filename}: cannot be read: {error.strerror}")

  for parent, folders, names in os.walk(folder, onerror=refuse):
    folders[:] = [name for name in folders if not name.startswith(".")]
    yield from (Path(parent, n) for n in names if not n.startswith("."))


def chunks(source: Source, may_grow: bool = False) -> Iterator[bytes]:
  """The bytes of a source, at most CHUNK at once; no chunk is empty.

  Files that end in .gz, .xz or .zst are unpacked.

  Args:
    source: read up to its size when reading begins.
    may_grow: a file that is longer afterwards has not changed.

  Raises:
    UserError: the file is not a regular one, cannot be read, or changes
      meanwhile.
  """
  path: Any = source.content
  if isinstance(path, bytes):
    yield from (path[i : i + CHUNK] for i in range(0, len(path), CHUNK))
    return
  if not isinstance(path, Path):
    yield from path
    return
  try:
    # Checked before it is opened: opening a pipe waits for its writer, and a
    # device may have no end.
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise UserError(f"{path}: not a regular file")
    with path.open("rb", buffering=0) as file:
      before = os.fstat(file.fileno())
      unpack = PACKED.get(path.suffix)
      if unpack and not before.st_size:
        raise EOFError("it is empty, which no packed file is")
      # At most its size: a file may grow as fast as it is read.
      left = sys.maxsize if unpack else before.st_size
      with (unpack or nullcontext)(file) as content:
        while chunk := content.read(min(CHUNK, left)):
          left -= len(chunk)
          yield chunk
      after = os.fstat(file.fileno())
  except UserError:
    raise
  except Exception as error:  # Each packer raises types of its own.
    reason = getattr(error, "strerror", None) or error
    raise MachineError(f"{path}: cannot be read: {reason}") from None
  if may_grow and not unpack and after.st_size > before.st_size:
    return
  if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
    raise MachineError(f"{path}: changed while it was read")


def decode(name: str, content: Iterable[bytes], errors: str) -> Iterator[str]:
  """Text of bytes, with newlines as line ends and no byte order mark.

  Args:
    name: for messages.
    content: UTF-8, or Latin-1 if `errors` names it.
    errors: as `data.errors`.

  Raises:
    UserError: a byte is not UTF-8.
  """
  encoding = "latin-1" if errors == "latin-1" else "utf-8"
  how = "strict" if errors == "latin-1" else errors
  decoder = codecs.getincrementaldecoder(encoding)(how)
  read, has_begun = 0, False
  held = ""  # A carriage return that a newline may follow.
  for chunk in itertools.chain(content, [b""]):
    before, _ = decoder.getstate()  # The first bytes of a character.
    if not read and errors == "strict" and _is_utf16(chunk):
      raise UserError(f"{name}: seems to be UTF-16; convert the file to UTF-8")
    try:
      part = decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
      byte = read - len(before) + error.start
      raise UserError(f"{name}: byte {byte} {NOT_UTF8}") from None
    read += len(chunk)
    if part and not has_begun:
      part, has_begun = part.removeprefix("\ufeff"), True
    part = held + part
    held = "\r" if chunk and part.endswith("\r") else ""
    yield part.removesuffix(held).replace("\r\n", "\n")


def _is_utf16(content: bytes) -> bool:
  """Whether a file begins with UTF-16's mark, or has many second bytes of 0."""
  few, many = sorted(content[i::2].count(0) for i in range(2))
  marks = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
  return content.startswith(marks) or many > max(7, 8 * few, len(content) // 20)


def text(source: Source, errors: str) -> Iterator[str]:
  """The text of a source, a chunk at a time.

  Raises:
    UserError: as `chunks` and `decode`.
  """
  return decode(source.place, chunks(source), errors)


def lines(
  source: Source,
  errors: str,
  longest: int | None = LONGEST,
  may_grow: bool = False,
) -> Iterator[str]:
  """The lines of a source; only newlines end a line.

  Args:
    source: of which a chunk at a time is in memory.
    errors: as `data.errors`.
    longest: characters of a line at most; None: it is a line of a log, and of a
      line of more than LINE characters these and the next one are yielded.
    may_grow: as of `chunks`.

  Raises:
    UserError: as `text`, or a line is longer.
  """
  most = LINE + 1 if longest is None else None
  held, count = "", 0
  for part in decode(source.place, chunks(source, may_grow), errors):
    *ended, held = (held + part).split("\n")
    yield from (line[:most] for line in ended)
    count, held = count + len(ended), held[:most]
    if longest is not None and len(held) > longest:
      raise UserError(
        f"{source.place}: line {count + 1}: has more than {longest} characters"
      )
  if held:
    yield held


def rows(source: Source, errors: str) -> Iterator[tuple[int, dict[str, Any]]]:
  """The rows of a csv file below its header, each with its last line.

  Semicolons or tabs separate the columns of a file whose header has them and
  no comma. A field that a short row lacks is None; a row of empty fields is
  left out.

  Raises:
    UserError: the file cannot be read, a row is not csv, or two columns have
      the same name.
  """
  content = (f"{line}\n" for line in lines(source, errors))
  first = next(content, "")
  delimiter = next((mark for mark in ",;\t" if mark in first), ",")
  reader = read_csv(itertools.chain([first], content), delimiter)
  try:
    _, header = next(reader, (0, []))
    for name in header:
      if name and header.count(name) > 1:
        raise UserError(
          f"{source.place}: has {header.count(name)} columns {name!r}; names of"
          " columns must differ"
        )
    for number, row in reader:
      if not any(map(str.strip, row)):
        continue
      if len(row) > len(header):
        raise UserError(
          f"{source.place}:{number}: has {len(row)} columns, but the"
          f" header {len(header)}; a field that contains {delimiter!r} must"
          " stand in double quotes"
        )
      yield number, dict(itertools.zip_longest(header, row))
  except CsvError as error:
    rule = str(error)
    if "new-line" in rule:  # The module advises what no user can follow.
      rule = "a carriage return ends no line; end each line with a newline"
    raise UserError(f"{source.place}:{error.line}: {rule}") from None
