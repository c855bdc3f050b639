"""Labelled texts: the forms of files in which each text has a label.

A file that is not of its form is refused with the file's name and the line.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import PurePath

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Column, Tokens, in_order
from seqrnn.data.read.encoding import Encoder
from seqrnn.data.read.reading import Source
from seqrnn.errors import UserError

Known = Collection[str] | None  # As `read_labelled` has it.
# The line, 0 for a whole file; the label, empty for none; and the text, which
# may be in parts.
Row = tuple[int, str, str | Iterable[str]]


def read_labelled(
  sources: list[Source], data: Config, known: Known = None
) -> Corpus:
  """The corpus of files of the form `data.format`, with their labels.

  Args:
    sources: the files.
    data: the fields that name their form.
    known: the labels of a run, whose files need not have labels: a text
      without one has the label "", and a word that may be a label, as the name
      of a file, is one if it is known. None: all texts have labels.

  Raises:
    UserError: a file is not of that form, or `data.unit` does not go with it.
  """
  form = _FORMS[data.format]
  files = ((source, form(source, data, known)) for source in sources)
  return with_labels(files, data.unit, known is not None)


def read_lines(sources: list[Source], unit: str, errors: str) -> Corpus:
  """The corpus of texts without labels, one on each line that is not blank.

  Raises:
    UserError: as `read_labelled`.
  """
  files = (
    (source, ((n, "", line) for n, line in _lines(source, errors)))
    for source in sources
  )
  return with_labels(files, unit, optional=True)


def with_labels(
  files: Iterable[tuple[Source, Iterable[Row]]],
  unit: str,
  optional: bool = False,
) -> Corpus:
  """The corpus of labelled texts; equal texts stay on one side of a split.

  Raises:
    UserError: a text is empty, or a label that is not optional; or `unit` is
      not one of texts.
  """
  if unit not in ("char", "byte", "word"):
    raise UserError(
      f"data.unit={unit!r}: a labelled text has unit char, byte or word"
    )
  encoder, labels, groups = Encoder(unit), Tokens(), Column("<u8")
  for source, rows in files:
    encoder.begin_file(source.name)
    for line, label, text in rows:
      group, is_empty = hashlib.sha256(), True
      for part in (text,) if isinstance(text, str) else text:
        is_empty = is_empty and not part.strip()
        try:
          content = part.encode()
        except UnicodeEncodeError as error:  # JSON can hold it.
          raise UserError(
            f"{source.place}:{line}: character {error.start} is half of a"
            " surrogate pair"
          ) from None
        group.update(content)
        encoder.add(content.decode("latin-1") if unit == "byte" else part)
      if is_empty or not (optional or label.strip()):
        place = f"{source.place}:{line}" if line else source.place
        raise UserError(
          f"{place}: its {'text' if is_empty else 'label'} is empty"
        )
      encoder.end(line)
      labels.append(label)
      groups.append(int.from_bytes(group.digest()[:8]))
  digests, group_D = in_order(groups.numbers())
  texts = labels.texts()
  return encoder.corpus()._replace(
    group=group_D,
    groups=digests,
    labels=None if texts.symbols == [""] else texts,
  )


def _lines(source: Source, errors: str) -> Iterator[tuple[int, str]]:
  """The lines that are not blank, with their numbers."""
  lines = reading.lines(source, errors, reading.LONGEST)
  return ((n, line) for n, line in enumerate(lines, 1) if line.strip())


def _tabs(source: Source, data: Config, known: Known) -> Iterator[Row]:
  count = None
  for number, line in _lines(source, data.errors):
    label, tab, _ = line.partition("\t")
    if known is not None and not tab:
      yield number, "", line
      continue
    columns = line.count("\t") + 1
    count = count or columns
    if columns < 2 or columns != count:
      raise UserError(
        f"{source.place}:{number}: has {columns} columns; data.format=tab has a"
        " label, a tab and a text, in lines of as many columns"
      )
    yield number, label, line.rpartition("\t")[2]


def _space(source: Source, data: Config, known: Known) -> Iterator[Row]:
  for number, line in _lines(source, data.errors):
    label, _, content = line.partition(" ")
    if known is not None and label not in known:
      label, content = "", line
    yield number, label, content


def _csv(source: Source, data: Config, known: Known) -> Iterator[Row]:
  return _fields(source, reading.rows(source, data.errors), data, known)


def _jsonl(source: Source, data: Config, known: Known) -> Iterator[Row]:
  return _fields(source, _objects(source, data.errors), data, known)


def _objects(source: Source, errors: str) -> Iterator[tuple[int, dict]]:
  """The JSON objects of a file, with their lines."""
  for number, line in _lines(source, errors):
    try:
      value = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise UserError(f"{source.place}:{number}: not JSON ({error})") from None
    if not isinstance(value, dict):
      raise UserError(f"{source.place}:{number}: must be a JSON object")
    yield number, value


def _fields(
  source: Source,
  rows: Iterable[tuple[int, dict]],
  data: Config,
  known: Known,
) -> Iterator[Row]:
  """The label and the text of each row, in the fields that `data` names."""
  label_column = data.label_column or "label"
  text_column = data.text_column or "text"
  for line, row in rows:
    label, text = row.get(label_column), row.get(text_column)
    if isinstance(label, int | float):  # In JSON; also true and false.
      label = json.dumps(label)
    if label is None and known is not None:
      label = ""
    if not (isinstance(label, str) and isinstance(text, str)):
      raise UserError(
        f"{source.place}:{line}: needs a text and a label, in the fields"
        f" data.text_column={text_column!r}, data.label_column={label_column!r}"
      )
    yield line, label, text.replace("\r\n", "\n")


def _folders(source: Source, data: Config, known: Known) -> Iterator[Row]:
  label, slash, _ = source.name.partition("/")
  if known is not None:
    label = label if slash and label in known else ""
  elif not slash:
    raise UserError(
      f"{source.place}: lies in no folder, which data.format=folders takes as"
      " its label"
    )
  yield 0, label, reading.text(source, data.errors)


def _files(source: Source, data: Config, known: Known) -> Iterator[Row]:
  label = PurePath(source.name).name.partition(".")[0]
  if known is not None and label not in known:
    label = ""
  for number, line in _lines(source, data.errors):
    yield number, label, line


_FORMS: dict[str, Callable[..., Iterator[Row]]] = {
  "tab": _tabs,
  "space": _space,
  "csv": _csv,
  "jsonl": _jsonl,
  "folders": _folders,
  "files": _files,
}
