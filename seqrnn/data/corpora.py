"""Corpora: documents of symbols, from files or from what needs no file.

What is read here is read as it stands: nothing is lowercased, stripped or left
out but what a unit says.
"""

import dis
import functools
import glob
import importlib.util
import itertools
import os
import sysconfig
import types
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seqrnn.config import Config
from seqrnn.errors import UserError

UNITS = ("char", "byte", "word", "id", "session")
SPLITS = ("train", "validation", "test")

# Named sets: where each is fetched from, once, and the SHA-256 it must have.
CATALOGUE = {
  "tinyshakespeare": (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
    "tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
  ),
}


class Document(NamedTuple):
  """A sequence of symbols that nothing runs across.

  Attributes:
    name: for messages and tables.
    symbols: a str is a sequence of characters, a list holds tokens.
    group: documents of one group stay on one side of a split.
    begins: False for a piece without the document's first symbol.
    ends: False for a piece without the document's last symbol.
  """

  name: str
  symbols: str | list[str]
  group: str
  begins: bool = True
  ends: bool = True


def read(data: Config, split: str | None = None) -> list[Document]:
  """The documents of `data.source`: all of them, or of a split with a path.

  Raises:
    UserError: fields that exclude each other, a file that is missing or not
      what `data.unit` says, a corpus without symbols.
  """
  given = [
    field
    for field in ("path", *(f"{name}_path" for name in SPLITS))
    if data[field] is not None
  ]
  if given and data.source != "files":
    raise UserError(
      f"data.{given[0]}={data[given[0]]!r}: is read with data.source=files"
      f" only, not with data.source={data.source!r}"
    )
  if "path" in given and len(given) > 1:
    raise UserError(
      f"data.path={data.path!r}, data.{given[1]}={data[given[1]]!r}: give one"
      " path that is split here, or one for each split, not both"
    )
  if data.source == "files" and not given:
    raise UserError(
      "data.path=None: data.source=files needs data.path, or data.train_path,"
      " data.validation_path and data.test_path"
    )
  field = "path" if split is None else f"{split}_path"
  if (split or data.source == "files") and field not in given:
    raise UserError(f"data.{field}=None: no path is given for what is asked")
  match data.source:
    case "files":
      documents = _files(f"data.{field}", data[field], data.unit)
    case "stdlib":
      documents = list(_stdlib(data.unit))
    case "opcodes":
      documents = list(_opcodes(data.unit))
    case name if name in CATALOGUE:
      documents = parse(_fetch(name), data.unit, name)
    case _:
      sources = ", ".join(("stdlib", "opcodes", "files", *CATALOGUE))
      raise UserError(f"data.source={data.source!r}: must be one of {sources}")
  if not documents:
    value = (
      f"data.{field}={data[field]!r}"
      if given
      else f"data.source={data.source!r}"
    )
    raise UserError(f"{value}: the corpus is empty, it has no symbols")
  return documents


def parse(text_bytes: bytes, unit: str, name: str) -> list[Document]:
  """The documents in a file's bytes; none where there are no symbols.

  Raises:
    UserError: not UTF-8, or an unknown unit.
  """
  if unit not in UNITS:
    raise UserError(f"data.unit={unit!r}: must be one of {', '.join(UNITS)}")
  if unit == "byte":
    # Latin-1 maps each byte to the character of the same number.
    symbols = text_bytes.decode("latin-1")
    return [Document(name, symbols, name)] if symbols else []
  try:
    text = text_bytes.decode("utf-8").removeprefix("\ufeff")
  except UnicodeDecodeError as error:
    raise UserError(
      f"{name}: byte {error.start} is not UTF-8; data.unit=byte reads anything"
    ) from None
  text = text.replace("\r\n", "\n")
  # Not splitlines(): it breaks lines at U+0085, U+2028 and form feeds, too.
  lines = text.split("\n")
  if unit == "session":
    sessions = (
      (f"{name}:{n}", line.split()) for n, line in enumerate(lines, 1)
    )
    return [Document(place, ids, place) for place, ids in sessions if ids]
  if unit == "char":
    symbols = text
  elif unit == "word":
    words = itertools.chain.from_iterable(
      (*line.split(), "\n") for line in lines
    )
    symbols = list(words)[:-1]  # A newline stands between two lines.
  else:
    symbols = [token for line in lines if (token := line.strip())]
  return [Document(name, symbols, name)] if symbols else []


def from_text(text: str, unit: str, name: str = "text") -> list[Document]:
  """The documents of a text typed on the command line."""
  # There, bytes that are not UTF-8 arrive as lone surrogates.
  return parse(text.encode("utf-8", "surrogateescape"), unit, name)


def _files(field: str, value: str, unit: str) -> list[Document]:
  """A file, the matches of a glob, or all of a folder, in order of names.

  Names are relative to the folder, or to what stands before the glob's first
  wildcard: so a split by names does not depend on where a corpus lies.
  """
  path = Path(os.path.expanduser(value))
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
    raise UserError(f"{field}={value!r}: {missing}")
  documents = []
  for name, file in sorted((f.relative_to(root).as_posix(), f) for f in found):
    try:
      text_bytes = file.read_bytes()
    except OSError as error:
      raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    documents += parse(text_bytes, unit, name)
  return documents


def _walk(folder: Path) -> Iterator[Path]:
  """The files in a folder and below; hidden ones are no part of a corpus."""

  def refuse(error: OSError):
    raise UserError(f"{error.filename}: cannot be read: {error.strerror}")

  for parent, folders, files in os.walk(folder, onerror=refuse):
    folders[:] = [name for name in folders if not name.startswith(".")]
    yield from (Path(parent, f) for f in files if not f.startswith("."))


def _modules() -> list[Path]:
  return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


@functools.cache
def _stdlib(unit: str) -> tuple[Document, ...]:
  """The sources of this Python's standard library, a module a document."""
  documents = []
  for module in _modules():
    source = module.read_bytes()
    if unit != "byte":
      # A module names its own encoding where it is not UTF-8.
      source = importlib.util.decode_source(source).encode()
    documents += parse(source, unit, module.name)
  return tuple(documents)


@functools.cache
def _opcodes(unit: str) -> tuple[Document, ...]:
  """The opcodes of each code object of the standard library's modules."""
  if unit not in ("session", "id"):
    raise UserError(
      f"data.unit={unit!r}: data.source=opcodes has unit session or id"
    )
  documents = []
  for module in _modules():
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # Theirs are not our user's.
      code = compile(
        module.read_bytes(), module.name, "exec", dont_inherit=True, optimize=0
      )
    for part in _code_objects(code):
      name = f"{module.stem}:{part.co_qualname}:{part.co_firstlineno}"
      opcodes = [step.opname for step in dis.get_instructions(part)]
      documents.append(Document(name, opcodes, module.stem))
  return tuple(documents)


def _code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
  yield code
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _code_objects(constant)


def _fetch(name: str) -> bytes:
  """The file of a named set, from the cache or, the first time, the network."""
  import pooch  # Brings requests, which only this needs.

  url, sha256 = CATALOGUE[name]
  address = urllib.parse.urlsplit(url)
  loopback = (address.scheme, address.hostname) == ("http", "127.0.0.1")
  if address.scheme != "https" and not loopback:
    raise UserError(f"{url}: a data set is fetched by https only")
  pooch.get_logger().setLevel("WARNING")
  try:
    file = pooch.retrieve(
      url, f"sha256:{sha256}", fname=name, path=pooch.os_cache("seqrnn")
    )
    return Path(file).read_bytes()
  except (OSError, ValueError) as error:  # The network, the cache; the hash.
    reason = " ".join(str(error).split())
    raise UserError(
      f"data.source={name!r}: cannot be fetched ({reason});"
      " data.source=files with data.path=<your copy> works, too"
    ) from None
