"""Labelled texts: one label a document, or one tag a symbol.

What `data.format` says is read here; what is not of that form is refused with
its file and line.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from seqrnn.config import Config
from seqrnn.data.columns import Column, Tokens, in_order
from seqrnn.data.encoding import (
  LONGEST,
  Corpus,
  Names,
  Place,
  Source,
  encode_parts,
  lines,
  text,
)
from seqrnn.errors import UserError


class Labelled(NamedTuple):
  """A text and its label.

  Attributes:
    file: where it stands.
    line: in the file; 0: it is the whole file.
    label: empty where there is none.
    text: cut anywhere.
  """

  file: str
  line: int
  label: str
  text: Iterable[str]

  @property
  def name(self) -> str:
    """As messages name it."""
    return f"{self.file}:{self.line}" if self.line else self.file


def read(
  sources: list[Source], data: Config, known: Collection[str] | None = None
) -> Corpus:
  """The corpus of files of the form `data.format`, labels or tags with it.

  Args:
    sources: the files.
    data: how they are read.
    known: labels of a run that is asked about the files, which need not say
      theirs: a text or a symbol without one has the label "". What may be a
      label or not, as a name of a file, is one if it is among these. None:
      all have labels.

  Raises:
    UserError: a file is not of that form, or `data.unit` is none of it.
  """
  if data.format in _TAGGED:
    return _tagged(sources, data, known is not None)
  found = _LABELLED[data.format](sources, data, known)
  return with_labels(found, data.unit, data.errors, known is not None)


def texts(sources: list[Source], unit: str, errors: str) -> Corpus:
  """The corpus of texts without labels, one a line that is not blank.

  Raises:
    UserError: as `read`.
  """
  found = (
    Labelled(source.name, number, "", [line])
    for source in sources
    for number, line in _lines(source, errors)
  )
  return with_labels(found, unit, errors, optional=True)


def with_labels(
  found: Iterable[Labelled], unit: str, errors: str, optional: bool = False
) -> Corpus:
  """The corpus of texts with labels; equal ones stay on one side of a split.

  Raises:
    UserError: a text is empty, or a label that is not optional, or the unit
      cuts texts otherwise.
  """
  if unit not in ("char", "byte", "word"):
    raise UserError(
      f"data.unit={unit!r}: a labelled text has unit char, byte or word"
    )
  labels, groups = Tokens(), Column("<u8")

  def parts() -> Iterator[tuple[Place, Iterable[bytes]]]:
    for one in found:
      if not (optional and one.label == "") and _is_empty(one.label):
        raise UserError(f"{one.name}: its label is empty")
      labels.append(one.label)
      yield (one.file, one.line), content(one)

  def content(one: Labelled) -> Iterator[bytes]:
    group, empty = hashlib.sha256(), True
    for part in one.text:
      empty = empty and _is_empty(part)
      # Half of a surrogate pair, as JSON may have it, is then refused.
      encoded = part.encode("utf-8", "surrogatepass")
      group.update(encoded)
      yield encoded
    if empty:
      raise UserError(f"{one.name}: its text is empty")
    groups.append(int.from_bytes(group.digest()[:8]))

  errors = "strict" if errors == "strict" else "replace"
  corpus = encode_parts(parts(), unit, errors)
  names, group = in_order(groups.numbers())
  corpus = corpus._replace(group=group, groups=names)
  ids = labels.ids.numbers()
  if labels.distinct == [""]:
    return corpus
  one_each = np.arange(len(ids) + 1)
  return corpus._replace(
    labels=corpus._replace(
      unit="id", symbols=labels.distinct, ids=ids, bounds=one_each
    )
  )


def _is_empty(text: str) -> bool:
  return not text.removeprefix("\ufeff").strip()


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


def _lines(source: Source, errors: str) -> Iterator[tuple[int, str]]:
  """The lines that are not blank, with their numbers."""
  found = lines(source, errors, LONGEST)
  return ((n, line) for n, line in enumerate(found, 1) if line.strip())


Known = Collection[str] | None  # As `read` has it.


def _tabs(
  sources: list[Source], data: Config, known: Known
) -> Iterator[Labelled]:
  for source in sources:
    count = None
    for number, line in _lines(source, data.errors):
      label, tab, _ = line.partition("\t")
      if known is not None and not tab:
        yield Labelled(source.name, number, "", [line])
        continue
      columns = line.count("\t") + 1
      count = count or columns
      if columns < 2:
        raise UserError(
          f"{source.name}:{number}: has no tab; data.format=tab has a label, a"
          " tab and a text"
        )
      if columns != count:
        raise UserError(
          f"{source.name}:{number}: has {columns} columns, where the first line"
          f" has {count}"
        )
      yield Labelled(source.name, number, label, [line.rpartition("\t")[2]])


def _space(
  sources: list[Source], data: Config, known: Known
) -> Iterator[Labelled]:
  for source in sources:
    for number, line in _lines(source, data.errors):
      label, _, content = line.partition(" ")
      if known is not None and label not in known:
        label, content = "", line
      yield Labelled(source.name, number, label, [content])


def rows(source: Source, errors: str) -> Iterator[tuple[int, dict[str, str]]]:
  """The rows of a csv file below its header, with the lines they end at.

  Raises:
    UserError: it cannot be read, or a row is none.
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
    for row in found:
      if None in row:
        raise UserError(
          f"{source.name}:{found.line_num}: has more columns than the header"
        )
      yield found.line_num, row
  except csv.Error as error:
    line = found.reader.line_num
    raise UserError(f"{source.name}:{line}: {error}") from None


def _csv(
  sources: list[Source], data: Config, known: Known
) -> Iterator[Labelled]:
  for source in sources:
    for number, row in rows(source, data.errors):
      yield _fields(source.name, number, row, data, known)


def _jsonl(
  sources: list[Source], data: Config, known: Known
) -> Iterator[Labelled]:
  for source in sources:
    for number, line in _lines(source, data.errors):
      try:
        row = json.loads(line)
      except (ValueError, RecursionError) as error:
        raise UserError(f"{source.name}:{number}: not JSON ({error})") from None
      if not isinstance(row, dict):
        raise UserError(f"{source.name}:{number}: must be a JSON object")
      label = row.get(data.label_field)
      if isinstance(label, int | float):  # A number, true or false is one, too.
        row[data.label_field] = json.dumps(label)
      yield _fields(source.name, number, row, data, known)


def _fields(
  file: str, line: int, row: dict, data: Config, known: Known
) -> Labelled:
  """The two fields of a row that are asked for."""
  if known is not None and row.get(data.label_field) is None:
    row[data.label_field] = ""
  for part in ("label", "text"):
    field = data[f"{part}_field"]
    if not isinstance(row.get(field), str):
      raise UserError(
        f"{file}:{line}: has no {part} in field {field!r}, which"
        f" data.{part}_field names"
      )
  return Labelled(file, line, row[data.label_field], [row[data.text_field]])


def _folders(
  sources: list[Source], data: Config, known: Known
) -> Iterator[Labelled]:
  for source in sources:
    label, slash, _ = source.name.partition("/")
    if known is not None:
      label = label if slash and label in known else ""
    elif not slash:
      raise UserError(
        f"{source.name}: lies in no folder, which data.format=folders takes as"
        " its label"
      )
    yield Labelled(source.name, 0, label, text(source, data.errors))


def _files(
  sources: list[Source], data: Config, known: Known
) -> Iterator[Labelled]:
  for source in sources:
    label = PurePath(source.name).name.partition(".")[0]
    if known is not None and label not in known:
      label = ""
    for number, line in _lines(source, data.errors):
      yield Labelled(source.name, number, label, [line])


_LABELLED: dict[str, Callable[..., Iterator[Labelled]]] = {
  "tab": _tabs,
  "space": _space,
  "csv": _csv,
  "jsonl": _jsonl,
  "folders": _folders,
  "files": _files,
}


def _tagged(sources: list[Source], data: Config, optional: bool) -> Corpus:
  """Sentences, a blank line after each, of lines with a word and its tag."""
  if data.unit != "word":
    raise UserError(
      f"data.unit={data.unit!r}: data.format={data.format} has unit word"
    )
  columns = _TAGGED[data.format]
  words, tags = Tokens(), Tokens()
  groups, firsts, numbers = Column("<u8"), Column("<u8"), Column()
  files = []
  for source in sources:
    files.append((source.name, len(numbers)))
    group = None  # Of the sentence that the next line is of.
    for number, line in enumerate(lines(source, data.errors), 1):
      if line.strip():
        found = columns(f"{source.name}:{number}", line, optional)
        if found is None:
          continue
        if group is None:
          firsts.append(len(words.ids))
          numbers.append(number)
        # Equal sentences stay on one side of a split.
        group = hashlib.sha256() if group is None else _joined(group)
        group.update(found[0].encode())
        words.append(found[0])
        tags.append(found[1])
      elif group is not None:
        groups.append(int.from_bytes(group.digest()[:8]))
        group = None
    if group is not None:
      groups.append(int.from_bytes(group.digest()[:8]))
  firsts.append(len(words.ids))
  names = Names(files, numbers.numbers())
  digests, group_D = in_order(groups.numbers())
  corpus = Corpus(
    "word",
    words.distinct,
    words.ids.numbers(),
    firsts.numbers().astype(np.int64),
    names,
    group_D,
    digests,
  )
  if tags.distinct == [""]:
    return corpus
  return corpus._replace(
    tags=corpus._replace(
      unit="id", symbols=tags.distinct, ids=tags.ids.numbers()
    )
  )


def _joined(group):
  """The hash of a sentence whose next word follows."""
  group.update(b" ")
  return group


def _two_columns(name: str, line: str, optional: bool) -> tuple[str, str]:
  columns = line.split()
  if optional and len(columns) == 1:
    return columns[0], ""
  if len(columns) != 2:
    plain = "; data.format=text reads a sentence a line" if optional else ""
    raise UserError(
      f"{name}: has {len(columns)} columns; data.format=columns has two, a word"
      f" and its tag{plain}"
    )
  return columns[0], columns[1]


def _conllu(name: str, line: str, optional: bool) -> tuple[str, str] | None:
  """Word and UPOS; None where the line is a comment or no word of its own."""
  if line.startswith("#"):
    return None
  columns = line.split("\t")
  tag = columns[3] if len(columns) > 3 else ""
  if optional and tag == "_":  # As CoNLL-U marks what is not there.
    tag = ""
  if len(columns) != 10 or not columns[1] or not (tag or optional):
    plain = "; data.format=text reads a sentence a line" if optional else ""
    raise UserError(
      f"{name}: has {len(columns)} columns; CoNLL-U has ten, with a word in the"
      f" second and its tag in the fourth{plain}"
    )
  if not columns[0].isdecimal():  # 1-2 is a token of two words, 8.1 has none.
    return None
  return columns[1], tag


_TAGGED: dict[str, Callable[[str, str, bool], tuple[str, str] | None]] = {
  "columns": _two_columns,
  "conllu": _conllu,
}
