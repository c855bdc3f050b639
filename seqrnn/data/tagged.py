"""Tagged texts: the forms of files in which each word has a tag.

A file that is not of its form is refused with the file's name and the line.
"""

import hashlib
import itertools
import re
from collections.abc import Callable

import numpy as np

from seqrnn.config import Config
from seqrnn.data.columns import Column, Tokens, in_order
from seqrnn.data.documents import Corpus, names_of
from seqrnn.data.reading import Source, lines
from seqrnn.errors import UserError


def read(sources: list[Source], data: Config, optional: bool) -> Corpus:
  """The corpus of sentences: lines of a word and its tag, then a blank line.

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
  columns = FORMS[data.format]
  words, tags = Tokens(), Tokens()
  groups, firsts, numbers = Column("<u8"), Column("<u8"), Column()
  files = []
  for source in sources:
    files.append((source.name, len(numbers)))
    group = None  # The hash of the sentence so far.
    ended = itertools.chain(lines(source, data.errors), [""])
    for number, line in enumerate(ended, 1):
      if line.strip():
        found = columns(f"{source.name}:{number}", line, optional)
        if found is None:
          continue
        if group is None:
          group = hashlib.sha256()
          firsts.append(len(words))
          numbers.append(number)
        else:
          group.update(b" ")
        group.update(found[0].encode())
        words.append(found[0])
        tags.append(found[1])
      elif group is not None:
        groups.append(int.from_bytes(group.digest()[:8]))
        group = None
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


# Ids of lines that are no word: 1-2 is two words in one, 8.1 an empty word.
_PART = re.compile(r"\d+[-.]\d+")


def _conllu(name: str, line: str, optional: bool) -> tuple[str, str] | None:
  """Word and UPOS; None where the line is a comment or part of a word."""
  if line.startswith("#"):
    return None
  columns = line.split("\t")
  tag = columns[3] if len(columns) > 3 else ""
  if optional and tag == "_":  # CoNLL-U's mark of a missing value.
    tag = ""
  if len(columns) != 10 or not columns[1] or not (tag or optional):
    plain = "; data.format=text reads a sentence a line" if optional else ""
    raise UserError(
      f"{name}: has {len(columns)} columns; CoNLL-U has ten, with a word in the"
      f" second and its tag in the fourth{plain}"
    )
  if _PART.fullmatch(columns[0]):
    return None
  if not columns[0].isdecimal():
    raise UserError(
      f"{name}: begins with {columns[0]!r}; a line of CoNLL-U begins with the"
      " number of its word, as 1, 1-2 or 8.1"
    )
  return columns[1], tag


FORMS: dict[str, Callable[[str, str, bool], tuple[str, str] | None]] = {
  "columns": _two_columns,
  "conllu": _conllu,
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
