"""Embedded corpora: made of Python's standard library, or of a package."""

import collections
import dis
import functools
import importlib
import importlib.util
import pkgutil
import platform
import sysconfig
import types
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from seqrnn.data.documents import Corpus, Document, collect, digest
from seqrnn.data.read.encoding import encode
from seqrnn.data.read.forms import LabelledFile, with_labels
from seqrnn.data.read.reading import Source
from seqrnn.errors import needs_package

_MODULES = 12  # The fewest modules of a package that is a label.
_NO_PACKAGES = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_NAMES = 40  # The fewest names of a language that is a label.


def _of_python(corpus: Corpus) -> Corpus:
  """The corpus with the Python version that it depends on."""
  return corpus._replace(origin=f"Python {platform.python_version()}")


def _modules() -> list[Path]:
  return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


@functools.cache
def stdlib(unit: str) -> Corpus:
  """The sources of this Python's standard library, a module a document."""
  sources = []
  for module in _modules():
    content = module.read_bytes()
    if unit != "byte":
      # A module names its own encoding where it is not UTF-8.
      content = importlib.util.decode_source(content).encode()
    sources.append(Source(module.name, content))
  return encode(sources, unit, "strict")


def packages(unit: str) -> Corpus:
  """The modules of the standard library's larger packages, by package."""
  library, files = Path(sysconfig.get_paths()["stdlib"]), []
  for package in sorted(library.iterdir()):
    if package.name in _NO_PACKAGES:
      continue
    modules = [m for m in sorted(package.rglob("*.py")) if m.stat().st_size]
    names = [module.relative_to(library) for module in modules]
    names = [name for name in names if not _NO_PACKAGES & {*name.parts}]
    for name in names if len(names) >= _MODULES else ():
      text = importlib.util.decode_source((library / name).read_bytes())
      files.append(_labelled(name.as_posix(), package.name, text))
  return _of_python(with_labels(files, unit))


def _labelled(name: str, label: str, text: str) -> LabelledFile:
  """A file that is one labelled text."""
  return Source(name, b""), [(0, label, text)]


@functools.cache
def topics(unit: str) -> Corpus:
  """The topics of Python's help, a document each."""
  from pydoc_data.topics import topics

  sources = [Source(name, text.encode()) for name, text in topics.items()]
  return _of_python(encode(sources, unit, "strict"))


@functools.cache
def names(unit: str) -> Corpus:
  """Surnames in Latin letters by language.

  Names of several languages, and languages of few names, are left out.

  Raises:
    UserError: the package faker is missing.
  """
  with needs_package("config.data.source='names'", "faker", "names"):
    import faker
    from faker.providers import person
  languages: dict[str, set[str]] = {}
  for module_info in pkgutil.iter_modules(person.__path__):
    module = importlib.import_module(f"{person.__name__}.{module_info.name}")
    for kind in ("last_names", "last_romanized_names", "unisex_last_names"):
      for name in getattr(module.Provider, kind, ()):
        if all(c in " '-" or "LATIN" in unicodedata.name(c, "") for c in name):
          language = module_info.name.partition("_")[0]
          languages.setdefault(name.strip(), set()).add(language)
  single = {name: min(of) for name, of in languages.items() if len(of) == 1}
  counts = collections.Counter(single.values())
  files = (
    _labelled(name, language, name)
    for name, language in sorted(single.items())
    if name and counts[language] >= _NAMES
  )
  return with_labels(files, unit)._replace(origin=f"faker {faker.VERSION}")


@functools.cache
def opcodes(unit: str) -> Corpus:
  """The opcodes of each code object of the standard library's modules."""
  documents, groups = [], []
  for module in _modules():
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # Of the library's code.
      code = compile(
        module.read_bytes(), module.name, "exec", dont_inherit=True, optimize=0
      )
    for part in _code_objects(code):
      name = f"{module.stem}:{part.co_qualname}:{part.co_firstlineno}"
      opcodes = [step.opname for step in dis.get_instructions(part)]
      documents.append(Document(name, opcodes))
      groups.append(digest(module.stem.encode()))
  return collect(documents, unit)._replace(groups=np.array(groups, np.uint64))


def _code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
  yield code
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _code_objects(constant)


# By `data.source`: functions of `data.unit`.
CORPORA: dict[str, Callable[[str], Corpus]] = {
  "stdlib": stdlib,
  "opcodes": opcodes,
  "packages": packages,
  "topics": topics,
  "names": names,
}
