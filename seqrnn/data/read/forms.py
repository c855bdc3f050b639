"""Forms: files of texts with a label each, or of words with a tag each.

A file that is not of its form is refused with the file's name and the line.
"""

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePath

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus, digest
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Column, Tokens
from seqrnn.data.read.encoding import Encoder
from seqrnn.data.read.frames import UNSEEN
from seqrnn.data.read.reading import Source
from seqrnn.errors import UserError, counted, listed

Known = Collection[str] | None  # As `read_form` has it.
# Of a text, the line, 0 for a whole file; the label, empty for none; the text.
LabelledTexts = Iterable[tuple[int, str, str]]
LabelledFile = tuple[Source, LabelledTexts]
# Of a sentence, the number of its first line, its words and their tags.
Sentences = Iterable[tuple[int, list[str], list[str]]]

_CONLLU = [
  *("ID", "FORM", "LEMMA", "UPOS", "XPOS"),
  *("FEATS", "HEAD", "DEPREL", "DEPS", "MISC"),
]


def read_form(sources: list[Source], data: Config, known: Known) -> Corpus:
  """The corpus of files of the form `data.format`, with labels or tags.

  Args:
    sources: the files.
    data: the fields that name their form.
    known: the labels or tags of a run, whose files need not have any: a text
      without a label, or a word without a tag, has "", and a word that may be a
      label, as the name of a file, is one if it is known. None: all have one.

  Raises:
    UserError: a file is not of that form.
  """
  if data.format in _LABELLED:
    form = _LABELLED[data.format]
    files = ((source, form(source, data, known)) for source in sources)
    return with_labels(files, data.unit, optional=known is not None)
  # Tags, which a glob or a folder has, too.
  beside = {source.content for source in tags_files(sources, data)}
  sources = [source for source in sources if source.content not in beside]
  read = _parallel if data.format == "parallel" else _word_a_line
  return _with_tags((source, read(source, data, known)) for source in sources)


def read_lines(sources: list[Source], unit: str, errors: str) -> Corpus:
  """The corpus of texts without labels, one on each line that is not blank.

  Raises:
    UserError: as `read_form`.
  """
  files = (
    (source, ((n, "", line) for n, line in _lines(source, errors)))
    for source in sources
  )
  return with_labels(files, unit, optional=True)


def with_labels(
  files: Iterable[LabelledFile], unit: str, optional: bool = False
) -> Corpus:
  """The corpus of labelled texts; equal texts stay on one side of a split.

  Raises:
    UserError: a text is empty, or a label that is not optional.
  """
  encoder, labels, groups = Encoder(unit), Tokens(), Column("<u8")
  for source, rows in files:
    encoder.begin_file(source.name)
    for line, label, text in rows:
      if optional and not text.strip():
        text = UNSEEN
      try:
        content = text.encode()
      except UnicodeEncodeError:  # JSON can hold half of a surrogate pair.
        content = b""
      has_text = bool(content and text.strip())
      if not (has_text and (optional or label.strip())):
        place = f"{source.place}:{line}" if line else source.place
        part = "label" if has_text else "text of characters"
        raise UserError(f"{place}: has no {part}")
      encoder.add(content.decode("latin-1") if unit == "byte" else text)
      encoder.end(line)
      labels.collect([label])
      groups.collect([digest(content)])
  texts = labels.texts()
  return encoder.corpus()._replace(
    groups=groups.numbers(), labels=None if texts.symbols == [""] else texts
  )


def _lines(source: Source, errors: str) -> Iterator[tuple[int, str]]:
  """The lines that are not blank, with their numbers."""
  lines = reading.lines(source, errors)
  return ((n, line) for n, line in enumerate(lines, 1) if line.strip())


def _space(source: Source, data: Config, known: Known) -> LabelledTexts:
  for number, line in _lines(source, data.errors):
    label, _, text = line.partition(" ")
    if known is not None and label not in known:
      label, text = "", line
    yield number, label, text


def _table(source: Source, data: Config, known: Known) -> LabelledTexts:
  """The label and the text of each row, in the columns that `data` names.

  Several columns of labels have a label of several cells, with commas.
  """
  rows, usual_label, usual_text, called = _TABLES[data.format]
  label_column = data.label_column or usual_label
  text_column = data.text_column or usual_text
  for line, row in rows(source, data.errors):
    one = label_column in row
    names = [label_column] if one else label_column.split(",")
    try:
      text = _cell(row, text_column, blank=known is not None)
      labels = [_cell(row, name, known is not None) for name in names]
    except KeyError as error:
      raise UserError(
        f"{source.place}:{line}: has no column {error.args[0]!r}, only"
        f" {listed([*row])}; data.text_column and data.label_column choose"
        f" columns, which in data.format={data.format} {called}"
      ) from None
    except ValueError as error:
      raise UserError(f"{source.place}:{line}: {error}") from None
    label = ",".join(labels) if any(labels) else ""
    yield line, label, text.replace("\r\n", "\n")


def _cell(row: dict, column: str, optional=False, blank=False) -> str:
  """A cell as text; in JSON it may be a number, true or false.

  Raises:
    KeyError: there is no such column, and it is not optional.
    ValueError: the cell is missing, and not optional; it is empty, and neither
      optional nor may be `blank`; or it is not one value.
  """
  cell = row.get(column, "") if optional else row[column]
  if isinstance(cell, dict | list):
    raise ValueError(f"{column} = {json.dumps(cell)}: must be a text or number")
  text = json.dumps(cell) if isinstance(cell, int | float) else cell or ""
  if text.strip():
    return text
  if not (optional or (blank and cell is not None)):
    raise ValueError(f"the column {column!r} is empty")
  return ""


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


def _numbered(source: Source, errors: str) -> Iterator[tuple[int, dict]]:
  """The columns of each line, by their numbers from 1 and from the last, -1.

  A line of one column has no first one: it is a text without a label.
  """
  for number, line in _lines(source, errors):
    columns = line.split("\t")
    row = {str(n): columns[n] for n in range(-len(columns), 0)}
    if len(columns) > 1:
      row |= {str(n): column for n, column in enumerate(columns, 1)}
    yield number, row


# By `data.format`: a function of a source and `data.errors`, which gives the
# line and the cells of each row; the columns of labels and of texts; and, for
# messages, how columns are called.
_TABLES = {
  "tab": (_numbered, "1", "-1", "stand between tabs and have numbers"),
  "csv": (reading.rows, "label", "text", "have the names in line 1"),
  "jsonl": (_objects, "label", "text", "are the keys of an object"),
}


def _named(source: Source, data: Config, known: Known) -> LabelledTexts:
  """The texts of a file whose folder, or whose name, is their label."""
  if data.format == "folders":
    label, slash, _ = source.name.partition("/")
    label = label if slash else ""
    texts = iter([(0, "".join(reading.text(source, data.errors)))])
  else:
    label = PurePath(source.name).name.partition(".")[0]
    texts = _lines(source, data.errors)
  if known is not None and label not in known:
    label = ""
  return ((number, label, text) for number, text in texts)


_LABELLED: dict[str, Callable[..., LabelledTexts]] = {
  **dict.fromkeys(_TABLES, _table),
  "space": _space,
  **dict.fromkeys(("folders", "files"), _named),
}


def _with_tags(files: Iterable[tuple[Source, Sentences]]) -> Corpus:
  """The corpus of sentences; equal ones stay on one side of a split."""
  encoder, tags, groups = Encoder("word"), Tokens(), Column("<u8")
  for source, sentences in files:
    encoder.begin_file(source.name)
    for line, words, tags_of_words in sentences:
      encoder.add_tokens(words)
      encoder.end(line)
      groups.collect([digest(" ".join(words).encode())])
      tags.collect(tags_of_words)
  corpus = encoder.corpus()._replace(groups=groups.numbers())
  tag = tags.texts()
  if tag.symbols == [""]:
    return corpus
  return corpus._replace(
    tags=corpus._replace(unit="id", symbols=tag.symbols, ids=tag.ids)
  )


def _word_a_line(source: Source, data: Config, known: Known) -> Sentences:
  """The sentences of a file with a word on each line, ended by blank lines."""
  is_conllu = data.format == "conllu"
  word_column = data.text_column or ("FORM" if is_conllu else "1")
  tag_column = data.label_column or ("UPOS" if is_conllu else "-1")
  word_index, tag_index = (
    _index(column, is_conllu) for column in (word_column, tag_column)
  )
  # The number of columns; 0: any that has both.
  size = 10 if is_conllu else 2 * (not (data.text_column or data.label_column))
  start, words, tags = 0, [], []
  lines = itertools.chain(reading.lines(source, data.errors), [""])
  for number, line in enumerate(lines, 1):
    if is_conllu and line.startswith("#"):
      continue
    if not line.strip():
      if words:
        yield start, words, tags
      start, words, tags = 0, [], []
      continue
    columns = line.split("\t" if is_conllu else None)
    word, tag = _get(columns, word_index), _get(columns, tag_index)
    if known is not None and (len(columns) == 1 or (is_conllu and tag == "_")):
      tag = ""
    elif not tag or len(columns) != (size or len(columns)):
      word = ""
    if not word:
      raise UserError(
        f"{source.place}:{number}: has {len(columns)} columns;"
        f" data.format={data.format} needs the word in column {word_column},"
        f" its tag in {tag_column}{f' of {size}' if size else ''}"
      )
    # In CoNLL-U, 1-2 is two words in one, 8.1 an empty word.
    if not is_conllu or columns[0].isdecimal():
      start = start or number
      words.append(word)
      tags.append(tag)


def _index(column: str, is_conllu: bool) -> int:
  """The index of a column, from 0 or from the last, -1.

  Raises:
    UserError: no column has this name.
  """
  if column.removeprefix("-").isdecimal():
    return int(column) - (int(column) > 0)
  if is_conllu and column in _CONLLU:
    return _CONLLU.index(column)
  raise UserError(
    f"data.text_column, data.label_column: {column!r} must be a number, or in"
    f" CoNLL-U one of {', '.join(_CONLLU)}"
  )


def _get(columns: list[str], index: int) -> str:
  """A column; empty if there are too few."""
  return columns[index] if -len(columns) <= index < len(columns) else ""


def tags_files(sources: list[Source], data: Config) -> list[Source]:
  """The files of tags beside files of sentences, present or not."""
  if data.format != "parallel":
    return []
  return [_tags_of(source, data) for source in sources]


def _tags_of(source: Source, data: Config) -> Source:
  """The file with the tags of a file of sentences."""
  path = Path(source.place)
  name = path.stem if path.suffix in reading.PACKED else path.name
  tags = path.parent / data.tags_file.replace("*", Path(name).stem)
  return Source(tags.name, tags)


def _parallel(source: Source, data: Config, known: Known) -> Sentences:
  """A sentence on each line, and its tags on the same line of another file.

  Raises:
    UserError: there is no such file, or a line has not a tag for each word.
  """
  files = [source, _tags_of(source, data)]
  if known is not None and not Path(files[1].place).exists():
    files = files[:1]
  texts = (reading.lines(file, data.errors) for file in files)
  for number, lines in enumerate(
    itertools.zip_longest(*texts, fillvalue=""), 1
  ):
    words, *more = map(str.split, lines)
    [tags] = more or [[""] * len(words)]
    if len(words) != len(tags):
      raise UserError(
        f"{files[1].place}:{number}: has {counted(len(tags), 'tag')}, where"
        f" {source.place}:{number} has {counted(len(words), 'word')}"
      )
    if words:
      yield number, words, tags
