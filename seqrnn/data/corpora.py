"""Corpora: documents of symbols, from files or from what needs no file."""

import collections
import dis
import functools
import glob
import importlib
import importlib.util
import itertools
import os
import pkgutil
import platform
import sysconfig
import types
import unicodedata
import urllib.parse
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from seqrnn.config import Config
from seqrnn.data import cache, labelled, logs
from seqrnn.data.encoding import (
  Corpus,
  Document,
  Source,
  collect,
  encode_in_memory,
)
from seqrnn.errors import MachineError, UserError

SPLITS = ("train", "validation", "test")

_MODULES = 12  # Of a package, at least, that is a label.
_NO_PACKAGES = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_NAMES = 40  # Of a language, at least.
# Formats whose texts are single lines, or sentences that can be.
_LINES = ("tab", "space", "files", "columns", "conllu")
_EMBEDDED = ("stdlib", "opcodes", "packages", "topics", "names")

# Named sets: where each is fetched from, once, and the SHA-256 it must have.
CATALOGUE = {
  "tinyshakespeare": (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
    "tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
  ),
}


def read(data: Config, split: str | None = None) -> Corpus:
  """The corpus of `data.source`: all of it, or of a split with a path.

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
  if data.format not in ("text", "spaces") and data.source != "files":
    raise UserError(
      f"data.format={data.format!r}: is read with data.source=files only, not"
      f" with data.source={data.source!r}"
    )
  field = "path" if split is None else f"{split}_path"
  with reading(f"data.source={data.source!r}"):
    return _read(field, split, given, data)


@contextmanager
def reading(what: str) -> Iterator[None]:
  """Names what is read where memory ends, which no setting of a model helps.

  Raises:
    UserError: it does.
  """
  try:
    yield
  except MemoryError:
    raise UserError(
      f"{what}: there is not enough memory to read it; read less of it"
    ) from None


def _read(
  field: str, split: str | None, given: list[str], data: Config
) -> Corpus:
  """What `read` does once its fields are known to go together."""
  if (split or data.source == "files") and field not in given:
    raise UserError(f"data.{field}=None: no path is given for what is asked")
  match data.source:
    case "files":
      return read_files(f"data.{field}", data[field], data)
    case "stdlib":
      corpus = _stdlib(data.unit)
    case "opcodes":
      corpus = _opcodes(data.unit)
    case "packages":
      corpus = labelled.with_labels(_packages(), data.unit, data.errors)
      corpus = corpus._replace(origin=f"Python {platform.python_version()}")
    case "topics":
      corpus = _topics(data.unit)
    case "names":
      found, origin = _names()
      corpus = labelled.with_labels(found, data.unit, data.errors)
      corpus = corpus._replace(origin=origin)
    case name if name in CATALOGUE:
      corpus = encode([Source(name, _fetch(name))], data.unit, data.errors)
    case _:
      known = ", ".join((*_EMBEDDED, "files", *CATALOGUE))
      raise UserError(f"data.source={data.source!r}: must be one of {known}")
  return _finished(f"data.source={data.source!r}", corpus, data)


def read_files(field: str, value: str, data: Config) -> Corpus:
  """The corpus of files, of the form that the other fields of `data` say.

  Args:
    field: for messages, the name of the field that names the files.
    value: of it: a file, a glob or a folder.
    data: the fields; its own paths count for nothing.

  Raises:
    UserError: as `read`.
  """
  with reading(f"{field}={value!r}"):
    corpus = _of_form(files(field, value), data)
    return _finished(f"{field}={value!r}", corpus, data)


def read_asked(
  field: str, value: str, data: Config, known: Collection[str] | None = None
) -> Corpus:
  """The corpus of files that a run is asked about, as it has learned.

  Args:
    field: as in `read_files`.
    value: as in `read_files`.
    data: of the run.
    known: the labels or tags of the run, where it has some; the files may lack
      them. None: it has none.

  Raises:
    UserError: as `read`.
  """
  with reading(f"{field}={value!r}"):
    corpus = _of_form(files(field, value), data, known)
    return _finished(f"{field}={value!r}", corpus, data)


def _of_form(
  sources: list[Source], data: Config, known: Collection[str] | None = None
) -> Corpus:
  """The corpus of files, of the form that `data` says."""
  if data.unit == "log":
    return logs.read(sources, logs.form(data))
  if data.unit == "session" and data.format == "csv":
    return logs.read_table(sources, data)
  if data.format not in ("text", "spaces"):
    return labelled.read(sources, data, known)
  # Of the sources with labels, these are whole files and the others lines.
  if known is not None and data.format == "text" and data.source != "packages":
    return labelled.texts(sources, data.unit, data.errors)
  return encode(sources, data.unit, data.errors)


def _finished(value: str, corpus: Corpus, data: Config) -> Corpus:
  """What has to be done with a corpus of any source."""
  if data.format == "spaces":
    corpus = labelled.spaces(corpus)
  if not len(corpus.ids):
    raise UserError(f"{value}: the corpus is empty, it has no symbols")
  return corpus


def encode(sources: list[Source], unit: str, errors: str) -> Corpus:
  """The corpus of sources; a large one is memory-mapped.

  Raises:
    UserError: as `cache.open_corpus`.
  """
  if cache.size(sources) < cache.LARGE:
    return encode_in_memory(sources, unit, errors)
  return cache.open_corpus(sources, unit, errors)


def parse(
  content: bytes | Path,
  unit: str,
  name: str,
  errors: str,
  data: Config | None = None,
) -> list[Document]:
  """The documents in bytes or in a small file; none where no symbols are.

  The other fields of `data` say their form, without labels: where a text or a
  sentence is a line of a file, so it is here. None: they are text, and of a log
  each line is content.

  Raises:
    UserError: as `encoding.encode`; or the file cannot be read.
  """
  sources = [Source(name, content)]
  if unit == "log":
    form = logs.Form(errors) if data is None else logs.form(data)
    corpus = logs.read(sources, form._replace(errors=errors))
  elif data is not None and (data.format in _LINES or data.source == "names"):
    corpus = labelled.texts(sources, unit, errors)
  else:
    corpus = encode_in_memory(sources, unit, errors)
  if data is not None and data.format == "spaces":
    corpus = labelled.spaces(corpus)
  return [
    Document(name, corpus.text(*corpus.bounds[j : j + 2].tolist()), name)
    for j, name in enumerate(corpus.names)
  ]


def from_text(
  text: str, unit: str, data: Config | None = None
) -> list[Document]:
  """The documents of a text typed on the command line, as `parse` gives them.

  Raises:
    UserError: it is no text.
  """
  try:
    # There, bytes that are not UTF-8 arrive as lone surrogates.
    content = text.encode("utf-8", "surrogateescape")
    if unit != "byte":
      content.decode()
  except UnicodeDecodeError as error:
    raise UserError(
      f"text: byte {error.start} is not UTF-8, as what is typed must be;"
      " a file of it can be read with data.errors=latin-1"
    ) from None
  except UnicodeEncodeError as error:
    raise UserError(
      f"text: character {error.start} is half of a surrogate pair"
    ) from None
  return parse(content, unit, "text", "strict", data)


def files(field: str, value: str) -> list[Source]:
  """A file, the matches of a glob, or all of a folder, in order of names.

  Names are relative to the folder, or to what stands before the glob's first
  wildcard: so a split by names does not depend on where a corpus lies.
  """
  if not value:
    raise UserError(f"{field}={value!r}: must not be empty")
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
    raise MachineError(f"{field}={value!r}: {missing}")
  named = sorted((file.relative_to(root).as_posix(), file) for file in found)
  return [Source(name, file) for name, file in named]


def _walk(folder: Path) -> Iterator[Path]:
  """The files in a folder and below; hidden ones are no part of a corpus."""

  def refuse(error: OSError):
    raise MachineError(f"{error.filename}: cannot be read: {error.strerror}")

  for parent, folders, files in os.walk(folder, onerror=refuse):
    folders[:] = [name for name in folders if not name.startswith(".")]
    yield from (Path(parent, f) for f in files if not f.startswith("."))


def _library() -> Path:
  return Path(sysconfig.get_paths()["stdlib"])


def _modules() -> list[Path]:
  return sorted(_library().glob("*.py"))


@functools.cache
def _stdlib(unit: str) -> Corpus:
  """The sources of this Python's standard library, a module a document."""
  sources = []
  for module in _modules():
    content = module.read_bytes()
    if unit != "byte":
      # A module names its own encoding where it is not UTF-8.
      content = importlib.util.decode_source(content).encode()
    sources.append(Source(module.name, content))
  return encode_in_memory(sources, unit, "strict")


def _packages() -> Iterator[labelled.Labelled]:
  """The modules of the standard library's larger packages, by package."""
  library = _library()
  for package in sorted(library.iterdir()):
    if package.name in _NO_PACKAGES:
      continue
    modules = [
      (name, module)
      for module in sorted(package.rglob("*.py"))
      if not _NO_PACKAGES & set((name := module.relative_to(library)).parts)
      and module.stat().st_size
    ]
    if len(modules) >= _MODULES:
      for name, module in modules:
        text = importlib.util.decode_source(module.read_bytes())
        yield labelled.Labelled(name.as_posix(), 0, package.name, [text])


@functools.cache
def _topics(unit: str) -> Corpus:
  """The topics of Python's help, a document each."""
  from pydoc_data.topics import topics

  sources = [Source(name, text.encode()) for name, text in topics.items()]
  corpus = encode_in_memory(sources, unit, "strict")
  return corpus._replace(origin=f"Python {platform.python_version()}")


@functools.cache
def _names() -> tuple[list[labelled.Labelled], str]:
  """Surnames in Latin letters by language, and the version of their source.

  Names of several languages, and languages of few names, are left out.

  Raises:
    UserError: the package faker is missing.
  """
  try:
    import faker
    from faker.providers import person
  except ImportError:
    raise UserError(
      "data.source='names': needs the package faker; pip install"
      " 'seqrnn[names]' brings it"
    ) from None
  languages: dict[str, set[str]] = {}
  for found in pkgutil.iter_modules(person.__path__):
    module = importlib.import_module(f"{person.__name__}.{found.name}")
    for kind in ("last_names", "last_romanized_names", "unisex_last_names"):
      for name in getattr(module.Provider, kind, ()):
        if all(c in " '-" or _latin(c) for c in name):
          language = found.name.partition("_")[0]
          languages.setdefault(name.strip(), set()).add(language)
  own = {name: min(of) for name, of in languages.items() if len(of) == 1}
  counts = collections.Counter(own.values())
  names = [
    labelled.Labelled(name, 0, language, [name])
    for name, language in sorted(own.items())
    if name and counts[language] >= _NAMES
  ]
  return names, f"faker {faker.VERSION}"


def _latin(character: str) -> bool:
  return "LATIN" in unicodedata.name(character, "")


@functools.cache
def _opcodes(unit: str) -> Corpus:
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
  return collect(documents, unit)


def _code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
  yield code
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _code_objects(constant)


def _fetch(name: str) -> Path:
  """The file of a named set, from the cache or, the first time, the network."""
  import pooch  # Brings requests, which only this needs.

  url, sha256 = CATALOGUE[name]
  address = urllib.parse.urlsplit(url)
  loopback = (address.scheme, address.hostname) == ("http", "127.0.0.1")
  if address.scheme != "https" and not loopback:
    raise UserError(f"{url}: a data set is fetched by https only")
  pooch.get_logger().setLevel("WARNING")
  try:
    folder = pooch.os_cache("seqrnn")
    return Path(pooch.retrieve(url, f"sha256:{sha256}", name, folder))
  except (OSError, ValueError) as error:  # The network, the cache; the hash.
    reason = " ".join(str(error).split())
    raise UserError(
      f"data.source={name!r}: cannot be fetched ({reason});"
      " data.source=files with data.path=<your copy> works, too"
    ) from None
