"""Tagged texts: the forms of files in which each word has a tag.

A file that is not of its form is refused with the file's name and the line.
"""

import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus, names_of
from seqrnn.data.read import reading
from seqrnn.data.read.columns import Column, Tokens, in_order
from seqrnn.data.read.reading import Source, lines
from seqrnn.errors import MachineError, UserError, counted

# A sentence: its words and tags, after the number of its first line.
Sentences = Iterator[tuple[int, list[tuple[str, str]]]]
# A function of a line and its place; None: the line has no word.
Parse = Callable[[str, str], tuple[str, str] | None]

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
    data: the fields that say their form.
    optional: whether words may have no tag; their tag is then "".

  Raises:
    UserError: a file is not of that form, or `data.unit` is not word.
  """
  if data.unit != "word":
    raise UserError(
      f"data.unit={data.unit!r}: data.format={data.format} has unit word"
    )
  words, tags = Tokens(), Tokens()
  groups, firsts, numbers = Column("<u8"), Column("<u8"), Column()
  files = []
  beside = {source.content for source in tags_files(sources, data)}
  for source in sources:
    if source.content in beside:  # Tags, which a glob or a folder has, too.
      continue
    files.append((source.name, len(numbers)))
    for number, sentence in FORMS[data.format](source, data, optional):
      firsts.append(len(words))
      numbers.append(number)
      for word, tag in sentence:
        words.append(word)
        tags.append(tag)
      text = " ".join(word for word, _ in sentence).encode()
      groups.append(int.from_bytes(hashlib.sha256(text).digest()[:8]))
  firsts.append(len(words))
  digests, group_D = in_order(groups.numbers())
  word, tag = words.texts(), tags.texts()
  corpus = Corpus(
    "word",
    word.symbols,
    word.ids,
    firsts.numbers().view(np.int64),
    names_of(files, numbers.numbers()),
    group_D,
    digests,
  )
  if tag.symbols == [""]:
    return corpus
  return corpus._replace(
    tags=corpus._replace(unit="id", symbols=tag.symbols, ids=tag.ids)
  )


def _word_a_line(
  form: Callable[[str, str, Config, bool], Parse],
  source: Source,
  data: Config,
  optional: bool,
) -> Sentences:
  """The sentences of a file with a word on each line, ended by blank lines."""
  found = lines(source, data.errors)
  head = next(found, "")
  parse = form(source.place, head, data, optional)
  start, sentence = 0, []
  for number, line in enumerate(itertools.chain([head], found, [""]), 1):
    if line.strip():
      pair = parse(f"{source.place}:{number}", line)
      if pair is not None:
        start = start if sentence else number
        sentence.append(pair)
    elif sentence:
      yield start, sentence
      sentence = []


def _columns(name: str, head: str, data: Config, optional: bool) -> Parse:
  """Reads columns between white space: two, or the two that fields choose."""
  plain = "; data.format=text reads a sentence a line" if optional else ""

  def two(place: str, line: str) -> tuple[str, str]:
    columns = line.split()
    if optional and len(columns) == 1:
      return columns[0], ""
    if len(columns) != 2:
      raise UserError(
        f"{place}: has {len(columns)} columns; data.format=columns has two, a"
        " word and its tag, unless data.text_column and data.label_column"
        f" choose two of more{plain}"
      )
    return columns[0], columns[1]

  if data.text_column is None and data.label_column is None:
    return two
  names = head.removeprefix(_PLUS).split() if head.startswith(_PLUS) else []
  word_number = _number(name, data, "text_column", names, "1")
  tag_number = _number(name, data, "label_column", names, "-1")

  def chosen(place: str, line: str) -> tuple[str, str] | None:
    if names and line.startswith("#"):  # A comment of CoNLL-U Plus.
      return None
    columns = line.split()
    word, tag = _get(columns, word_number), _get(columns, tag_number)
    if len(columns) == 1:  # A word that is its own tag.
      tag = ""
    if word == "" or (tag == "" and not optional):
      raise UserError(
        f"{place}: has {len(columns)} columns, too few for"
        f" data.text_column={data.text_column or 1},"
        f" data.label_column={data.label_column or -1}{plain}"
      )
    return word, tag

  return chosen


def _number(
  name: str, data: Config, field: str, names: list[str], default: str
) -> int:
  """The number of a column, from 1 or from the last, -1.

  Raises:
    UserError: no column has this name.
  """
  value = data[field] or default
  if value.removeprefix("-").isdecimal():
    return int(value)
  if value in names:
    return names.index(value) + 1
  known = f"columns are {', '.join(names)}"
  if not names:
    known = f"its columns have no names, as a first line {_PLUS!r} gives them"
  raise UserError(f"{name}: data.{field}={value!r}: {known}")


def _get(columns: list[str], number: int) -> str:
  """A column; empty if there are too few."""
  if abs(number) > len(columns):
    return ""
  return columns[number - 1 if number > 0 else number]


def _conllu(name: str, head: str, data: Config, optional: bool) -> Parse:  # noqa: ARG001
  """Reads CoNLL-U: the form and UPOS, or the columns that fields choose."""
  plain = "; data.format=text reads a sentence a line" if optional else ""
  word_number = _number(name, data, "text_column", _CONLLU, "FORM")
  tag_number = _number(name, data, "label_column", _CONLLU, "UPOS")

  def parse(place: str, line: str) -> tuple[str, str] | None:
    if line.startswith("#"):
      return None
    columns = line.split("\t")
    word, tag = _get(columns, word_number), _get(columns, tag_number)
    if optional and tag == "_":  # CoNLL-U's mark of a missing value.
      tag = ""
    if len(columns) != 10 or not word or not (tag or optional):
      raise UserError(
        f"{place}: has {len(columns)} columns; CoNLL-U has ten, with a word in"
        f" {data.text_column or 'FORM'} and its tag in"
        f" {data.label_column or 'UPOS'}{plain}"
      )
    if _PART.fullmatch(columns[0]):
      return None
    if not columns[0].isdecimal():
      raise UserError(
        f"{place}: begins with {columns[0]!r}; a line of CoNLL-U begins with"
        " the number of its word, as 1, 1-2 or 8.1"
      )
    return word, tag

  return parse


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
  "columns": functools.partial(_word_a_line, _columns),
  "conllu": functools.partial(_word_a_line, _conllu),
  "parallel": _parallel,
}


def refuse_columns(corpus: Corpus, tags: Container[str], is_new_V: np.ndarray):
  """Refuses sentences that are lines of words with their tags.

  Args:
    corpus: of texts whose words have no tags.
    tags: that training has seen.
    is_new_V: bool, of each of `corpus.symbols`: training has no such word.

  Raises:
    UserError: most of several lines end in a tag that is no word.
  """
  sizes = np.diff(corpus.bounds)
  if corpus.unit != "word" or len(sizes) < 2 or sizes.min() < 2:
    return
  is_tag_V = is_new_V & [symbol in tags for symbol in corpus.symbols]
  is_tag_D = is_tag_V[corpus.ids[corpus.bounds[1:] - 1]]
  if is_tag_D.mean() > 0.5:
    j = int(is_tag_D.argmax())
    line = corpus.text(*corpus.bounds[j : j + 2].tolist())
    raise UserError(
      f"{corpus.names[j]}: {' '.join(line)!r} ends in a tag, as most lines do;"
      " words and their tags are read from a file, with data.format=columns"
    )


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
  kept = np.flatnonzero(~blank_N)
  follows_N = np.append(blank_N[1:], False)
  follows_N[corpus.bounds[1:] - 1] = False  # The next document follows.
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
