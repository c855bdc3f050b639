"""Tagged texts: the forms of files in which each word has a tag.

A file that is not of its form is refused with the file's name and the line.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus, Names
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Column, Tokens, in_order
from seqrnn.data.read.reading import Source, lines
from seqrnn.errors import MachineError, UserError, counted

# A sentence: its words and tags, after the number of its first line.
Sentences = Iterator[tuple[int, list[tuple[str, str]]]]

_PLUS = "# global.columns ="  # Begins a file whose columns have names.
_CONLLU = [
  *("ID", "FORM", "LEMMA", "UPOS", "XPOS"),
  *("FEATS", "HEAD", "DEPREL", "DEPS", "MISC"),
]
# Ids of lines that are no word: 1-2 is two words in one, 8.1 an empty word.
_PART = re.compile(r"\d+[-.]\d+")


def read_tagged(sources: list[Source], data: Config, optional: bool) -> Corpus:
  """The corpus of sentences of words, each with its tag.

  Equal sentences stay on one side of a split.

  Args:
    sources: the files.
    data: the fields that name their form.
    optional: whether words may have no tag; their tag is then "".

  Raises:
    UserError: a file is not of that form, or `data.unit` is not word.
  """
  if data.unit != "word":
    raise UserError(
      f"data.unit={data.unit!r}: data.format={data.format} has unit word"
    )
  words, tags = Tokens(), Tokens()
  groups, bounds, numbers = Column("<u8"), Column("<i8"), Column()
  files, firsts = [], []
  beside = {source.content for source in tags_files(sources, data)}
  for source in sources:
    if source.content in beside:  # Tags, which a glob or a folder has, too.
      continue
    files.append(source.name)
    firsts.append(len(numbers))
    for number, sentence in FORMS[data.format](source, data, optional):
      bounds.append(len(words))
      numbers.append(number)
      for word, tag in sentence:
        words.append(word)
        tags.append(tag)
      text = " ".join(word for word, _ in sentence).encode()
      groups.append(int.from_bytes(hashlib.sha256(text).digest()[:8]))
  bounds.append(len(words))
  digests, group_D = in_order(groups.numbers())
  word, tag = words.texts(), tags.texts()
  corpus = Corpus(
    "word",
    word.symbols,
    word.ids,
    bounds.numbers(),
    Names(files, firsts, numbers.numbers()),
    group_D,
    digests,
  )
  if tag.symbols == [""]:
    return corpus
  return corpus._replace(
    tags=corpus._replace(unit="id", symbols=tag.symbols, ids=tag.ids)
  )


def _word_a_line(source: Source, data: Config, optional: bool) -> Sentences:
  """The sentences of a file with a word on each line, ended by blank lines."""
  content = lines(source, data.errors)
  head = next(content, "")
  is_conllu = data.format == "conllu"
  names = _CONLLU
  if not is_conllu:
    names = head.removeprefix(_PLUS).split() if head.startswith(_PLUS) else []
  word_column = data.text_column or ("FORM" if is_conllu else "1")
  tag_column = data.label_column or ("UPOS" if is_conllu else "-1")
  word_number = _number(source.name, "text_column", word_column, names)
  tag_number = _number(source.name, "label_column", tag_column, names)
  has_two = not (is_conllu or data.text_column or data.label_column)
  start, sentence = 0, []
  for number, line in enumerate(itertools.chain([head], content, [""]), 1):
    if not line.strip():
      if sentence:
        yield start, sentence
      sentence = []
      continue
    if names and line.startswith("#"):
      continue
    columns = line.split("\t" if is_conllu else None)
    is_part = is_conllu and _PART.fullmatch(columns[0])
    word, tag = _get(columns, word_number), _get(columns, tag_number)
    if len(columns) == 1 or (is_conllu and optional and tag == "_"):
      tag = ""
    if is_conllu:
      is_wrong = len(columns) != 10 or not (is_part or columns[0].isdecimal())
    else:
      is_wrong = has_two and len(columns) > 2
    if is_wrong or not (word and (tag or optional)):
      rule = "two columns, a word and its tag"
      if not has_two:
        rule = f"the word in column {word_column}, its tag in {tag_column}"
      if is_conllu:
        rule = f"ten columns, the word's number first, {rule}"
      raise UserError(
        f"{source.place}:{number}: has {len(columns)} columns;"
        f" data.format={data.format} needs {rule}"
        + "; data.format=text reads a sentence a line"
        * optional
      )
    if not is_part:
      start = start if sentence else number
      sentence.append((word, tag))


def _number(name: str, field: str, column: str, names: list[str]) -> int:
  """The number of a column, from 1 or from the last, -1.

  Raises:
    UserError: no column has this name.
  """
  if column.removeprefix("-").isdecimal():
    return int(column)
  if column in names:
    return names.index(column) + 1
  raise UserError(
    f"{name}: data.{field}={column!r}: is no name of a column, but"
    f" {', '.join(names) or f'a first line {_PLUS!r} is missing'}"
  )


def _get(columns: list[str], number: int) -> str:
  """A column; empty if there are too few."""
  if abs(number) > len(columns):
    return ""
  return columns[number - 1 if number > 0 else number]


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


def _parallel(source: Source, data: Config, optional: bool) -> Sentences:
  """A sentence on each line, and its tags on the same line of another file.

  Raises:
    UserError: there is no such file, or a line has not a tag for each word.
  """
  path = _tags_of(source, data)
  if optional and (path is None or not path.exists()):
    for number, line in enumerate(lines(source, data.errors), 1):
      if line.strip():
        yield number, [(word, "") for word in line.split()]
    return
  assert path is not None, "only a file is read to train"
  if not path.exists():
    raise MachineError(
      f"{path}: no such file; data.tags_file={data.tags_file!r} names the tags"
      f" of {source.place}"
    )
  of_words = lines(source, data.errors)
  of_tags = lines(Source(path.name, path), data.errors)
  pairs = itertools.zip_longest(of_words, of_tags, fillvalue="")
  for number, pair in enumerate(pairs, 1):
    words, tags = map(str.split, pair)
    if len(words) != len(tags):
      raise UserError(
        f"{path}:{number}: has {counted(len(tags), 'tag')}, where"
        f" {source.place}:{number} has {counted(len(words), 'word')}"
      )
    if words:
      yield number, list(zip(words, tags, strict=True))


# By `data.format`.
FORMS: dict[str, Callable[[Source, Config, bool], Sentences]] = {
  "columns": _word_a_line,
  "conllu": _word_a_line,
  "parallel": _parallel,
}


def spaces(corpus: Corpus) -> Corpus:
  """Texts without white space, each symbol tagged `space` if some follows it.

  Raises:
    UserError: `data.unit` is not char, or no symbol is left.
  """
  if corpus.unit != "char":
    raise UserError(
      f"data.unit={corpus.unit!r}: data.format=spaces has unit char"
    )
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
    group=corpus.group[some],
  )
  tags = bare._replace(
    unit="id", symbols=["none", "space"], ids=follows_N[places].astype(np.uint8)
  )
  return bare._replace(tags=tags)
