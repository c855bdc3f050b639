"""Labelled texts: the forms of files in which each text has a label.

A file that is not of its form is refused with the file's name and the line.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import PurePath
from typing import NamedTuple

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Column, Tokens, in_order
from seqrnn.data.read.encoding import Place, encode_texts
from seqrnn.data.read.reading import Source
from seqrnn.errors import UserError

TEXTS = 2**25  # Of a corpus; each takes some 20 bytes, however short it is.

Known = Collection[str] | None  # As `read` has it.


class Labelled(NamedTuple):
  """A text and its label.

  Attributes:
    source: its file.
    line: in the file; 0: the text is the whole file.
    label: empty where there is none.
    text: its parts, cut anywhere.
  """

  source: Source
  line: int
  label: str
  text: Iterable[str]

  @property
  def place(self) -> str:
    """For messages."""
    place = self.source.place
    return f"{place}:{self.line}" if self.line else place


def read(sources: list[Source], data: Config, known: Known = None) -> Corpus:
  """The corpus of files of the form `data.format`, with their labels.

  Args:
    sources: the files.
    data: the fields that say their form.
    known: the labels of a run, whose files need not have labels: a text
      without one has the label "", and a word that may be a label, as the name
      of a file, is one if it is known. None: all texts have labels.

  Raises:
    UserError: a file is not of that form, or `data.unit` does not go with it.
  """
  form = _FORMS[data.format]
  found = (one for source in sources for one in form(source, data, known))
  return with_labels(found, data.unit, data.errors, known is not None)


def texts(sources: list[Source], unit: str, errors: str) -> Corpus:
  """The corpus of texts without labels, one on each line that is not blank.

  Raises:
    UserError: as `read`.
  """
  found = (
    Labelled(source, number, "", [line])
    for source in sources
    for number, line in _lines(source, errors)
  )
  return with_labels(found, unit, errors, optional=True)


def with_labels(
  found: Iterable[Labelled], unit: str, errors: str, optional: bool = False
) -> Corpus:
  """The corpus of labelled texts; equal texts stay on one side of a split.

  Raises:
    UserError: a text is empty, or a label that is not optional; there are too
      many texts, or `unit` is not one of texts.
  """
  if unit not in ("char", "byte", "word"):
    raise UserError(
      f"data.unit={unit!r}: a labelled text has unit char, byte or word"
    )
  labels, groups = Tokens(), Column("<u8")

  def parts() -> Iterator[tuple[Place, Iterable[bytes]]]:
    for one in found:
      if not (optional and one.label == "") and _is_empty(one.label):
        raise UserError(f"{one.place}: its label is empty")
      if len(labels) == TEXTS:
        raise UserError(
          f"{one.place}: a corpus of labelled texts has at most {TEXTS:,} texts"
        )
      labels.append(one.label)
      yield (one.source.name, one.line), content(one)

  def content(one: Labelled) -> Iterator[bytes]:
    group, empty = hashlib.sha256(), True
    for part in one.text:
      empty = empty and _is_empty(part)
      # Half of a surrogate pair, which JSON can hold, is refused later.
      encoded = part.encode("utf-8", "surrogatepass")
      group.update(encoded)
      yield encoded
    if empty:
      raise UserError(f"{one.place}: its text is empty")
    groups.append(int.from_bytes(group.digest()[:8]))

  errors = "strict" if errors == "strict" else "replace"
  corpus = encode_texts(parts(), unit, errors)
  digests, group = in_order(groups.numbers())
  given = labels.texts()
  return corpus._replace(
    group=group,
    groups=digests,
    labels=None if given.symbols == [""] else given,
  )


def _is_empty(text: str) -> bool:
  return not text.removeprefix("\ufeff").strip()


def _lines(source: Source, errors: str) -> Iterator[tuple[int, str]]:
  """The lines that are not blank, with their numbers."""
  found = reading.lines(source, errors, reading.LONGEST)
  return ((n, line) for n, line in enumerate(found, 1) if line.strip())


def _tabs(source: Source, data: Config, known: Known) -> Iterator[Labelled]:
  count = None
  for number, line in _lines(source, data.errors):
    label, tab, _ = line.partition("\t")
    if known is not None and not tab:
      yield Labelled(source, number, "", [line])
      continue
    columns = line.count("\t") + 1
    count = count or columns
    if columns < 2:
      raise UserError(
        f"{source.place}:{number}: has no tab; data.format=tab has a label, a"
        " tab and a text"
      )
    if columns != count:
      raise UserError(
        f"{source.place}:{number}: has {columns} columns, where the first line"
        f" has {count}"
      )
    yield Labelled(source, number, label, [line.rpartition("\t")[2]])


def _space(source: Source, data: Config, known: Known) -> Iterator[Labelled]:
  for number, line in _lines(source, data.errors):
    label, _, content = line.partition(" ")
    if known is not None and label not in known:
      label, content = "", line
    yield Labelled(source, number, label, [content])


def _csv(source: Source, data: Config, known: Known) -> Iterator[Labelled]:
  for number, row in reading.rows(source, data.errors):
    yield _fields(source, number, row, data, known)


def _jsonl(source: Source, data: Config, known: Known) -> Iterator[Labelled]:
  for number, line in _lines(source, data.errors):
    try:
      row = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise UserError(f"{source.place}:{number}: not JSON ({error})") from None
    if not isinstance(row, dict):
      raise UserError(f"{source.place}:{number}: must be a JSON object")
    column = data.label_column or "label"
    if isinstance(row.get(column), int | float):  # Or true, or false.
      row[column] = json.dumps(row[column])
    yield _fields(source, number, row, data, known)


def _fields(
  source: Source, line: int, row: dict, data: Config, known: Known
) -> Labelled:
  """A row's label and text, in the fields that `data` names."""
  label, text = data.label_column or "label", data.text_column or "text"
  if known is not None and row.get(label) is None:
    row[label] = ""
  for part, column in ("label", label), ("text", text):
    if not isinstance(row.get(column), str):
      raise UserError(
        f"{source.place}:{line}: has no {part} in field {column!r}, which"
        f" data.{part}_column names"
      )
  return Labelled(source, line, row[label], [row[text]])


def _folders(source: Source, data: Config, known: Known) -> Iterator[Labelled]:
  label, slash, _ = source.name.partition("/")
  if known is not None:
    label = label if slash and label in known else ""
  elif not slash:
    raise UserError(
      f"{source.place}: lies in no folder, which data.format=folders takes as"
      " its label"
    )
  yield Labelled(source, 0, label, reading.text(source, data.errors))


def _files(source: Source, data: Config, known: Known) -> Iterator[Labelled]:
  label = PurePath(source.name).name.partition(".")[0]
  if known is not None and label not in known:
    label = ""
  for number, line in _lines(source, data.errors):
    yield Labelled(source, number, label, [line])


_FORMS: dict[str, Callable[..., Iterator[Labelled]]] = {
  "tab": _tabs,
  "space": _space,
  "csv": _csv,
  "jsonl": _jsonl,
  "folders": _folders,
  "files": _files,
}
