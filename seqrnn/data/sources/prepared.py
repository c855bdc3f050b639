"""Prepared data sets: what the catalogue does to a set before it is read.

catalogue.toml names the functions of READERS and LINES. The content is in
memory; the largest set has 35 MB.
"""

import csv
import functools
import io
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from seqrnn import catalogue
from seqrnn.data.read.reading import Source
from seqrnn.errors import MachineError


def sources(name: str, split: str) -> list[Source]:
  """The files of a split of a set.

  Raises:
    MachineError: as `catalogue.fetch`, or a file cannot be read.
  """
  found = catalogue.sets()[name]
  part = split if split in found.files else "train"
  paths = catalogue.fetch(name, part)
  if not found.read:
    return [Source(path.name, path) for path in paths]
  made = []
  for path in paths:
    try:
      lines = _lines(name, path, part)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
      raise MachineError(f"{path}: cannot be read: {error}") from None
    if found.every and part == "train":
      kept = split != "validation"
      lines = [
        line for n, line in enumerate(lines, 1) if (n % found.every > 0) == kept
      ]
    content = "".join(f"{line}\n" for line in lines)
    made.append(Source(path.name, content.encode()))
  return made


@functools.lru_cache(maxsize=1)  # Training and validation are often one file.
def _lines(name: str, path: Path, part: str) -> list[str]:
  """The lines of a file, before some are held out."""
  found = catalogue.sets()[name]
  lines = READERS[found.read](path, part)
  for step in found.lines:
    lines = list(map(LINES[step], lines))
  return lines


def _text(encoding: str, path: Path, part: str) -> list[str]:  # noqa: ARG001
  """The lines of a text; only newlines end a line, as in `reading.lines`."""
  text = path.read_bytes().decode(encoding)
  return text.removesuffix("\n").split("\n")


def _reviews(path: Path, part: str) -> list[str]:
  """The reviews of a split of IMDB's archive: label, tab, text on one line.

  Negative reviews come first, each class in the order of its numbers.
  """
  member = re.compile(rf"aclImdb/{part}/(neg|pos)/(\d+)_\d+\.txt")
  found = []
  with tarfile.open(path, "r|gz") as archive:
    for entry in archive:
      match = member.fullmatch(entry.name)
      file = match and archive.extractfile(entry)
      if match and file:
        text = " ".join(file.read().decode().split())
        label = int(match[1] == "pos")
        found.append((label, int(match[2]), text.replace("<br />", " ")))
  return [f"{label}\t{text}" for label, _, text in sorted(found)]


_TOPICS = ("World", "Sports", "Business", "Sci/Tech")


def _news(path: Path, part: str) -> list[str]:  # noqa: ARG001
  """The rows of AG News: topic, tab, title and description on one line.

  A backslash is what the set has in place of a newline.
  """
  text = path.read_bytes().decode()
  return [
    f"{_TOPICS[int(row[0]) - 1]}\t"
    + " ".join(" ".join(row[1:]).replace("\\", " ").split())
    for row in csv.reader(io.StringIO(text, newline=""))
  ]


def _words(line: str) -> str:
  """A labelled line in lower case, with white space around punctuation."""
  label, _, text = line.partition("\t")
  return f"{label}\t" + " ".join(re.findall(r"[\w']+|[^\w\s]", text.lower()))


# By `read` in the catalogue: functions of a file and the name of a split.
READERS: dict[str, Callable[[Path, str], list[str]]] = {
  "utf-8": functools.partial(_text, "utf-8"),
  "latin-1": functools.partial(_text, "latin-1"),
  "reviews": _reviews,
  "news": _news,
}
# By the names in `lines`.
LINES: dict[str, Callable[[str], str]] = {
  "strip": str.strip,
  "lower": str.lower,
  "words": _words,
}
