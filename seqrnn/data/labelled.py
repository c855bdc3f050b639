"""Labelled texts: one label a document, or one tag a symbol.

What `data.format` says is read here; what is not of that form is refused with
its file and line.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from seqrnn.config import Config
from seqrnn.data.encoding import (
  Corpus,
  Document,
  Source,
  collect,
  encode_in_memory,
  text,
)
from seqrnn.errors import UserError


class Labelled(NamedTuple):
  """A text and its label; `name` is its file, and line where it has one."""

  name: str
  label: str
  text: str


def read(sources: list[Source], data: Config) -> Corpus:
  """The corpus of files of the form `data.format`, labels or tags with it.

  Raises:
    UserError: a file is not of that form, or `data.unit` is none of it.
  """
  if data.format in _TAGGED:
    return _tagged(sources, data)
  return with_labels(_LABELLED[data.format](sources, data), data)


def with_labels(found: Iterable[Labelled], data: Config) -> Corpus:
  """The corpus of texts with labels; equal ones stay on one side of a split.

  Raises:
    UserError: a text or a label is empty, or `data.unit` cuts texts otherwise.
  """
  if data.unit not in ("char", "byte", "word"):
    raise UserError(
      f"data.unit={data.unit!r}: a labelled text has unit char, byte or word"
    )
  labels: list[Document] = []

  def sources() -> Iterator[Source]:
    for name, label, content in found:
      for part, value in (("label", label), ("text", content)):
        if not value.removeprefix("\ufeff").strip():
          raise UserError(f"{name}: its {part} is empty")
      labels.append(Document(name, [label], content))
      # Half of a surrogate pair, as JSON may have it, is then refused.
      yield Source(name, content.encode("utf-8", "surrogatepass"))

  errors = "replace" if data.errors == "replace" else "strict"
  corpus = encode_in_memory(sources(), data.unit, errors)
  collected = collect(labels, "id")
  return corpus._replace(
    group=collected.group, groups=collected.groups, labels=collected
  )


def spaces(corpus: Corpus) -> Corpus:
  """Texts without their white space, each symbol tagged whether some follows.

  Raises:
    UserError: `data.unit` is not char, or no symbol is left.
  """
  if corpus.unit != "char":
    raise UserError(
      f"data.unit={corpus.unit!r}: data.format=spaces has unit char"
    )
  blank_V = np.array([symbol.isspace() for symbol in corpus.symbols], bool)
  blank_N = blank_V[corpus.ids]
  kept = np.flatnonzero(~blank_N)
  follows_N = np.append(blank_N[1:], False)
  follows_N[corpus.bounds[1:] - 1] = False  # What follows is another document.
  bounds = np.searchsorted(kept, corpus.bounds)
  some = np.flatnonzero(np.diff(bounds))
  bare = corpus._replace(
    ids=corpus.ids[kept],
    bounds=np.append(bounds[some], len(kept)),
    names=[corpus.names[j] for j in some.tolist()],
    group=corpus.group[some],
  )
  tags = bare._replace(
    unit="id", symbols=["none", "space"], ids=follows_N[kept].astype(np.uint8)
  )
  return bare._replace(tags=tags)


def _lines(source: Source, data: Config) -> Iterator[tuple[str, str]]:
  """The lines that are not blank, with the names they have in messages."""
  # Not splitlines(): it breaks lines at U+0085, too.
  for number, line in enumerate(text(source, data.errors).split("\n"), 1):
    if line.strip():
      yield f"{source.name}:{number}", line


def _tabs(sources: list[Source], data: Config) -> Iterator[Labelled]:
  for source in sources:
    count = None
    for name, line in _lines(source, data):
      columns = line.split("\t")
      count = count or len(columns)
      if len(columns) < 2:
        raise UserError(
          f"{name}: has no tab; data.format=tab has lines of a label, a tab and"
          " a text"
        )
      if len(columns) != count:
        raise UserError(
          f"{name}: has {len(columns)} columns, where the first line has"
          f" {count}"
        )
      yield Labelled(name, columns[0], columns[-1])


def _space(sources: list[Source], data: Config) -> Iterator[Labelled]:
  for source in sources:
    for name, line in _lines(source, data):
      label, _, content = line.partition(" ")
      yield Labelled(name, label, content)


def rows(source: Source, errors: str) -> Iterator[tuple[int, dict[str, str]]]:
  """The rows of a csv file below its header, with the lines they end at.

  Raises:
    UserError: it cannot be read, or a row is none.
  """
  content = text(source, errors)
  csv.field_size_limit(max(csv.field_size_limit(), len(content)))
  found = csv.DictReader(io.StringIO(content, newline=""), strict=True)
  try:
    for row in found:
      if None in row:
        raise UserError(
          f"{source.name}:{found.line_num}: has more columns than the header"
        )
      yield found.line_num, row
  except csv.Error as error:
    line = found.reader.line_num
    raise UserError(f"{source.name}:{line}: {error}") from None


def _csv(sources: list[Source], data: Config) -> Iterator[Labelled]:
  for source in sources:
    for number, row in rows(source, data.errors):
      yield _fields(f"{source.name}:{number}", row, data)


def _jsonl(sources: list[Source], data: Config) -> Iterator[Labelled]:
  for source in sources:
    for name, line in _lines(source, data):
      try:
        row = json.loads(line)
      except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON ({error})") from None
      if not isinstance(row, dict):
        raise UserError(f"{name}: must be a JSON object")
      label = row.get(data.label_field)
      if isinstance(label, int):  # A number, true or false names a label, too.
        row[data.label_field] = json.dumps(label)
      yield _fields(name, row, data)


def _fields(name: str, row: dict, data: Config) -> Labelled:
  """The two fields of a row that are asked for."""
  for part in ("label", "text"):
    field = data[f"{part}_field"]
    if not isinstance(row.get(field), str):
      raise UserError(
        f"{name}: has no {part} in field {field!r}, which"
        f" data.{part}_field names"
      )
  return Labelled(name, row[data.label_field], row[data.text_field])


def _folders(sources: list[Source], data: Config) -> Iterator[Labelled]:
  for source in sources:
    label, slash, _ = source.name.partition("/")
    if not slash:
      raise UserError(
        f"{source.name}: lies in no folder, which data.format=folders takes as"
        " its label"
      )
    yield Labelled(source.name, label, text(source, data.errors))


def _files(sources: list[Source], data: Config) -> Iterator[Labelled]:
  for source in sources:
    label = PurePath(source.name).name.partition(".")[0]
    for name, line in _lines(source, data):
      yield Labelled(name, label, line)


_LABELLED: dict[str, Callable[..., Iterator[Labelled]]] = {
  "tab": _tabs,
  "space": _space,
  "csv": _csv,
  "jsonl": _jsonl,
  "folders": _folders,
  "files": _files,
}


def _tagged(sources: list[Source], data: Config) -> Corpus:
  """Sentences, a blank line after each, of lines with a word and its tag."""
  if data.unit != "word":
    raise UserError(
      f"data.unit={data.unit!r}: data.format={data.format} has unit word"
    )
  columns = _TAGGED[data.format]
  words, tags = [], []
  for source in sources:
    fresh = True  # Whether the next line begins a sentence.
    lines = text(source, data.errors).split("\n")
    for number, line in enumerate(lines, 1):
      name = f"{source.name}:{number}"
      if not line.strip():
        fresh = True
        continue
      found = columns(name, line)
      if found is None:
        continue
      if fresh:
        words.append(Document(name, [], name))
        tags.append(Document(name, [], name))
        fresh = False
      words[-1].symbols.append(found[0])
      tags[-1].symbols.append(found[1])
  # Equal sentences stay on one side of a split.
  words = [d._replace(group=" ".join(d.symbols)) for d in words]
  return collect(words, "word")._replace(tags=collect(tags, "id"))


def _two_columns(name: str, line: str) -> tuple[str, str]:
  columns = line.split()
  if len(columns) != 2:
    raise UserError(
      f"{name}: has {len(columns)} columns; data.format=columns has two, a word"
      " and its tag"
    )
  return columns[0], columns[1]


def _conllu(name: str, line: str) -> tuple[str, str] | None:
  """Word and UPOS; None where the line is a comment or no word of its own."""
  if line.startswith("#"):
    return None
  columns = line.split("\t")
  if len(columns) != 10 or not columns[1] or not columns[3]:
    raise UserError(
      f"{name}: has {len(columns)} columns; CoNLL-U has ten, with a word in the"
      " second and its tag in the fourth"
    )
  if not columns[0].isdecimal():  # 1-2 is a token of two words, 8.1 has none.
    return None
  return columns[1], columns[3]


_TAGGED: dict[str, Callable[[str, str], tuple[str, str] | None]] = {
  "columns": _two_columns,
  "conllu": _conllu,
}
