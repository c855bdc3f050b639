"""Forms: files of texts with a label each, or of words with a tag each.

A file that is not of its form is refused with the file's name and the line.
"""

import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePath

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus, digest
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Column, Tokens
from seqrnn.data.read.encoding import Encoder
from seqrnn.data.read.reading import Source
from seqrnn.errors import MachineError, UserError, counted

Known = Collection[str] | None  # As `read_form` has it.
# The line, 0 for a whole file; the label, empty for none; and the text.
Row = tuple[int, str, str]
# A sentence: the number of its first line, and its words with their tags.
Sentence = tuple[int, list[tuple[str, str]]]

_CONLLU = [
  *("ID", "FORM", "LEMMA", "UPOS", "XPOS"),
  *("FEATS", "HEAD", "DEPREL", "DEPS", "MISC"),
]
# Of a word, or of no word: 1-2 is two words in one, 8.1 an empty word.
_NUMBER = re.compile(r"\d+([-.]\d+)?")


def read_form(
  sources: list[Source], data: Config, known: Known = None
) -> Corpus:
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
  optional = known is not None
  if data.format not in TAGGED:
    form = _LABELLED[data.format]
    files = ((source, form(source, data, known)) for source in sources)
    return with_labels(files, data.unit, optional)
  # Tags, which a glob or a folder has, too.
  beside = {source.content for source in tags_files(sources, data)}
  sources = [source for source in sources if source.content not in beside]
  read = TAGGED[data.format]
  return _with_tags((s, read(s, data, optional)) for s in sources)


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
  files: Iterable[tuple[Source, Iterable[Row]]],
  unit: str,
  optional: bool = False,
) -> Corpus:
  """The corpus of labelled texts; equal texts stay on one side of a split.

  Raises:
    UserError: a text is empty, or a label that is not optional.
  """
  encoder, labels, groups = Encoder(unit), Tokens(), Column("<u8")
  for source, rows in files:
    encoder.begin_file(source.name)
    for line, label, text in rows:
      place = f"{source.place}:{line}" if line else source.place
      try:
        content = text.encode()
      except UnicodeEncodeError as error:  # JSON can hold it.
        raise UserError(
          f"{place}: character {error.start} is half of a surrogate pair"
        ) from None
      if not text.strip():
        raise UserError(f"{place}: its text is empty")
      if not (optional or label.strip()):
        raise UserError(f"{place}: its label is empty")
      encoder.add(content.decode("latin-1") if unit == "byte" else text)
      encoder.end(line)
      labels.append(label)
      groups.append(digest(content))
  texts = labels.texts()
  return encoder.corpus()._replace(
    groups=groups.numbers(), labels=None if texts.symbols == [""] else texts
  )


def _lines(source: Source, errors: str) -> Iterator[tuple[int, str]]:
  """The lines that are not blank, with their numbers."""
  lines = reading.lines(source, errors, reading.LONGEST)
  return ((n, line) for n, line in enumerate(lines, 1) if line.strip())


def _tabs(source: Source, data: Config, known: Known) -> Iterator[Row]:
  count = None
  for number, line in _lines(source, data.errors):
    label, *columns = line.split("\t")
    if known is not None and not columns:
      yield number, "", line
      continue
    count = count or len(columns)
    if not columns or len(columns) != count:
      raise UserError(
        f"{source.place}:{number}: has {1 + len(columns)} columns;"
        " data.format=tab has a label, a tab and a text, in lines of as many"
        " columns"
      )
    yield number, label, columns[-1]


def _space(source: Source, data: Config, known: Known) -> Iterator[Row]:
  for number, line in _lines(source, data.errors):
    label, _, text = line.partition(" ")
    if known is not None and label not in known:
      label, text = "", line
    yield number, label, text


def _table(source: Source, data: Config, known: Known) -> Iterator[Row]:
  """The label and the text of each row, in the columns that `data` names."""
  label_column = data.label_column or "label"
  text_column = data.text_column or "text"
  rows = reading.rows if data.format == "csv" else _objects
  for line, row in rows(source, data.errors):
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


def _folders(source: Source, data: Config, known: Known) -> Iterator[Row]:
  label, slash, _ = source.name.partition("/")
  if known is not None:
    label = label if slash and label in known else ""
  elif not slash:
    raise UserError(
      f"{source.place}: lies in no folder, which data.format=folders takes as"
      " its label"
    )
  yield 0, label, "".join(reading.text(source, data.errors))


def _files(source: Source, data: Config, known: Known) -> Iterator[Row]:
  label = PurePath(source.name).name.partition(".")[0]
  if known is not None and label not in known:
    label = ""
  for number, line in _lines(source, data.errors):
    yield number, label, line


_LABELLED: dict[str, Callable[..., Iterator[Row]]] = {
  "tab": _tabs,
  "space": _space,
  "csv": _table,
  "jsonl": _table,
  "folders": _folders,
  "files": _files,
}


def _with_tags(files: Iterable[tuple[Source, Iterable[Sentence]]]) -> Corpus:
  """The corpus of sentences; equal ones stay on one side of a split."""
  encoder, tags, groups = Encoder("word"), Tokens(), Column("<u8")
  for source, sentences in files:
    encoder.begin_file(source.name)
    for line, pairs in sentences:
      words = [word for word, _ in pairs]
      encoder.add_tokens(words)
      encoder.end(line)
      groups.append(digest(" ".join(words).encode()))
      for _, tag in pairs:
        tags.append(tag)
  corpus = encoder.corpus()._replace(groups=groups.numbers())
  tag = tags.texts()
  if tag.symbols == [""]:
    return corpus
  return corpus._replace(
    tags=corpus._replace(unit="id", symbols=tag.symbols, ids=tag.ids)
  )


def _word_a_line(
  source: Source, data: Config, optional: bool
) -> Iterator[Sentence]:
  """The sentences of a file with a word on each line, ended by blank lines."""
  content = reading.lines(source, data.errors)
  is_conllu = data.format == "conllu"
  word_column = data.text_column or ("FORM" if is_conllu else "1")
  tag_column = data.label_column or ("UPOS" if is_conllu else "-1")
  word_index = _index(source.name, "text_column", word_column, is_conllu)
  tag_index = _index(source.name, "label_column", tag_column, is_conllu)
  hint = "; data.format=text reads a sentence a line" if optional else ""
  # The number of columns; 0: any that has both.
  size = 10 if is_conllu else 2 * (not (data.text_column or data.label_column))
  start, sentence = 0, []
  for number, line in enumerate(itertools.chain(content, [""]), 1):
    if not line.strip():
      if sentence:
        yield start, sentence
      sentence = []
      continue
    if is_conllu and line.startswith("#"):
      continue
    columns = line.split("\t" if is_conllu else None)
    word, tag = _get(columns, word_index), _get(columns, tag_index)
    if len(columns) == 1 or (is_conllu and optional and tag == "_"):
      tag = ""
    match = _NUMBER.fullmatch(columns[0])
    has_size = not size or len(columns) in (1, size)
    fits = has_size and (not is_conllu or match)
    if not (fits and word and (tag or optional)):
      raise UserError(
        f"{source.place}:{number}: has {len(columns)} columns;"
        f" data.format={data.format} needs the word in column {word_column},"
        f" its tag in {tag_column}{f' of {size}' if size else ''}{hint}"
      )
    if not (is_conllu and match and match[1]):
      start = start if sentence else number
      sentence.append((word, tag))


def _index(name: str, field: str, column: str, is_conllu: bool) -> int:
  """The index of a column, from 0 or from the last, -1.

  Raises:
    UserError: no column has this name.
  """
  if column.removeprefix("-").isdecimal():
    return int(column) - (int(column) > 0)
  if is_conllu and column in _CONLLU:
    return _CONLLU.index(column)
  raise UserError(
    f"{name}: data.{field}={column!r}: must be a number, or in CoNLL-U one of"
    f" {', '.join(_CONLLU)}"
  )


def _get(columns: list[str], index: int) -> str:
  """A column; empty if there are too few."""
  return columns[index] if -len(columns) <= index < len(columns) else ""


def tags_files(sources: list[Source], data: Config) -> list[Source]:
  """The files of tags beside files of sentences, present or not."""
  paths = (_tags_of(source, data) for source in sources)
  return [Source(path.name, path) for path in paths if path is not None]


def _tags_of(source: Source, data: Config) -> Path | None:
  """The file with the tags of a file of sentences; None: it has none."""
  path = source.content
  if data.format != "parallel" or not isinstance(path, Path):
    return None
  name = path.stem if path.suffix in reading.PACKED else path.name
  stem = name.rpartition(".")[0] or name
  return path.parent / data.tags_file.replace("*", stem)


def _parallel(
  source: Source, data: Config, optional: bool
) -> Iterator[Sentence]:
  """A sentence on each line, and its tags on the same line of another file.

  Raises:
    UserError: there is no such file, or a line has not a tag for each word.
  """
  path = _tags_of(source, data)
  has_tags = path is not None and path.exists()
  if path is not None and not (has_tags or optional):
    raise MachineError(
      f"{path}: no such file; data.tags_file={data.tags_file!r} names the tags"
      f" of {source.place}"
    )
  texts = [source, Source(path.name, path)] if path and has_tags else [source]
  files = (reading.lines(text, data.errors) for text in texts)
  for number, lines in enumerate(
    itertools.zip_longest(*files, fillvalue=""), 1
  ):
    words, *more = map(str.split, lines)
    [tags] = more or [[""] * len(words)]
    if len(words) != len(tags):
      raise UserError(
        f"{path}:{number}: has {counted(len(tags), 'tag')}, where"
        f" {source.place}:{number} has {counted(len(words), 'word')}"
      )
    if words:
      yield number, list(zip(words, tags, strict=True))


TAGGED: dict[str, Callable[..., Iterator[Sentence]]] = {
  "columns": _word_a_line,
  "conllu": _word_a_line,
  "parallel": _parallel,
}


def spaces(corpus: Corpus) -> Corpus:
  """Texts without white space; a symbol before some has the tag `space`."""
  blank_V = np.array([symbol.isspace() for symbol in corpus.symbols], bool)
  blank_N = blank_V[corpus.ids]
  places = np.flatnonzero(~blank_N)
  follows_N = np.append(blank_N[1:], False)
  follows_N[corpus.bounds[1:] - 1] = False  # The next document follows.
  bounds = np.searchsorted(places, corpus.bounds)
  some = np.flatnonzero(np.diff(bounds))
  bare = corpus._replace(
    ids=corpus.ids[places],
    bounds=np.append(bounds[some], len(places)),
    names=[corpus.names[j] for j in some.tolist()],
  )
  tags = bare._replace(
    unit="id", symbols=["none", "space"], ids=follows_N[places].astype(np.uint8)
  )
  return bare._replace(tags=tags)
