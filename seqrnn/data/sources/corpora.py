"""Corpora: documents of symbols, from files or from a named source."""

import functools
import io
import re
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from seqrnn import catalogue
from seqrnn.config import derived
from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus, Document, nouns
from seqrnn.data.logs import entries, log_corpus
from seqrnn.data.read import forms, frames, spelling
from seqrnn.data.read.encoding import encode
from seqrnn.data.read.forms import Known
from seqrnn.data.read.reading import Source, files
from seqrnn.data.sources import cache, embedded, formal
from seqrnn.errors import UserError
from seqrnn.runtime.files import read_csv

SPLITS = ("train", "validation", "test")

# Formats whose texts are single lines, or sentences that can be.
_LINES = ("tab", "space", "files", "columns", "parallel", "conllu")


def read_corpus(data: Config, split: str | None = None) -> Corpus:
  """The corpus of `data.source`: all of it, or of a split with a path.

  Raises:
    UserError: a file that is missing or not of `data.unit`, a corpus without
      symbols.
  """
  source = f"data.source={data.source!r}"
  known = catalogue.sets().get(data.source)
  if data.source == "files":
    field = "path" if split is None else f"{split}_path"
    if data[field] is None:
      raise UserError(
        f"data.{field}=None: data.source=files needs data.path, or"
        " data.train_path, data.validation_path and data.test_path"
      )
    return read_files(f"data.{field}", data[field], data)
  if data.source == "chords" or (known and known.is_music):
    raise UserError(f"{source}: is music, which only task='polyphony' reads")
  needed = {"format": "text", "unit": data.unit}
  needed |= known.fields if known else {}
  for field in ("format", "unit"):
    is_spaces = (needed[field], data[field]) == ("text", "spaces")
    if data[field] != needed[field] and not is_spaces:
      raise UserError(
        f"data.{field}={data[field]!r}: {source} is read with"
        f" data.{field}={needed[field]}"
      )
  if known:
    part = split or ("all" if "all" in known.files else "train")
    corpus = _of_form(set_sources(known.name, part), data, None)
  elif data.source == "formal":
    return formal.strings(data.language, split or "train")
  else:
    assert split is None, "its training split would have the test split in it"
    corpus = embedded.CORPORA[data.source](data.unit)
  return _finished(source, corpus, data)


def separate(data: Config) -> set[str]:
  """The splits that have files of their own; `data.split` makes the others."""
  known = catalogue.sets().get(data.source)
  if known:
    splits = {name for name in SPLITS if known.has(name)}
    return splits if "validation" in splits else splits - {"train"}
  has_paths = any(data[f"{name}_path"] is not None for name in SPLITS)
  return {*SPLITS} if has_paths or data.source == "formal" else set()


def anomalous(data: Config) -> str | None:
  """The file of anomalous sessions that a public set has; None: it has none.

  Raises:
    MachineError: as `catalogue.fetch`.
  """
  known = catalogue.sets().get(data.source)
  if known is None or "anomalous" not in known.files:
    return None
  return str(catalogue.fetch(known.name, "anomalous")[0])


def read_files(
  field: str, value: str, data: Config, known: Known = None
) -> Corpus:
  """The corpus of files of the form that the other fields of `data` say.

  Args:
    field: for messages, the name of the field that names the files.
    value: its value: a file, a glob or a folder.
    data: the fields, except its own paths.
    known: the labels or tags of a run that reads the files to predict; the
      files may lack them. None: the run has none, or reads to train.

  Raises:
    UserError: as `read`.
  """
  corpus = _of_form(files(field, value), data, known)
  return _finished(f"{field}={value!r}", corpus, data)


def _of_form(sources: list[Source], data: Config, known: Known) -> Corpus:
  if data.unit == "log":
    return log_corpus.read_logs(sources, log_corpus.form(data))
  if data.unit == "session" and data.format == "csv":
    return log_corpus.read_table(sources, data)

  def read() -> Corpus:
    if data.format not in ("text", "spaces"):
      return forms.read_form(sources, data, known)
    # A labelled text is a line, except the whole files of `packages`.
    of_lines = known is not None and data.source != "packages"
    if of_lines and data.format == "text":
      return forms.read_lines(sources, data.unit, data.errors)
    return encode(sources, data.unit, data.errors)

  fields = ("unit", "errors", "format", "text_column", "label_column", "source")
  settings = [
    *(data[name] for name in fields),
    None if known is None else sorted(known),
  ]
  every = [*sources, *forms.tags_files(sources, data)]
  return cache.open_corpus(every, settings, lambda: (read(), []))


def _finished(value: str, corpus: Corpus, data: Config) -> Corpus:
  """A corpus of any source in the spelling of `data`, with tags of `spaces`.

  Raises:
    UserError: it has no symbol.
  """
  corpus = _spelled(corpus, data)
  if not len(corpus.ids):
    symbol, _ = nouns(corpus.unit)
    raise UserError(f"{value}: is empty, it has no {symbol}s")
  return corpus


def _spelled(corpus: Corpus, data: Config) -> Corpus:
  corpus = spelling.spell(corpus, data)
  return spelling.spaces(corpus) if data.format == "spaces" else corpus


def settled(config: Config, describes: bool) -> Config:
  """The config of a training, with the format of its log instead of `auto`.

  It stays `auto` if files have different formats. With `describes` it is
  reported on stderr how a log is read whose format is the user's own.

  Raises:
    UserError: as `entries.settled`, or there is no file that can be read.
  """
  data, changes, sources = config.data, {}, []
  field = "path" if data.path is not None else "train_path"
  is_auto, form = data.log_format == "auto", log_corpus.form(data)
  if data.unit == "log" and (data.log_format or data.log_header):
    if data[field] is not None:
      sources = files(f"data.{field}", data[field])
    elif is_auto and data.source in catalogue.sets():
      sources = set_sources(data.source, "all")
  if sources and is_auto:
    known = entries.settled(sources, form, config.detect.redact)
    changes["data.log_format"] = known.log_format
  elif sources and describes:
    entries.describe(sources[0], form, config.detect.redact)
  return derived.merge(config, changes)


def from_text(
  text: str, unit: str, data: Config | None = None
) -> list[Document]:
  """The documents with symbols of a text typed on the command line.

  The other fields of `data` are its form, without labels, and its spelling: a
  line is a text or a sentence where it is one in the run's files. Without
  `data` the content is one text, or lines of a log without a header.

  Raises:
    UserError: the text is not UTF-8, or not a str.
  """
  if not isinstance(text, str):
    raise UserError(f"text: must be a str, not {type(text).__name__}")
  try:
    # Bytes that are not UTF-8 arrive as lone surrogates.
    errors = "surrogateescape" if unit == "byte" else "strict"
    content = text.encode("utf-8", errors)
  except UnicodeError as error:
    raise UserError(
      f"text: is not UTF-8 ({error}); a file of it can be read with"
      " data.errors=latin-1"
    ) from None
  sources = [Source("text", content)]
  if unit == "log":
    form = log_corpus.Form("strict") if data is None else log_corpus.form(data)
    corpus = log_corpus.read_logs(sources, form._replace(errors="strict"))
  elif data is not None and (
    data.format in _LINES or data.source in ("names", "formal")
  ):
    corpus = forms.read_lines(sources, unit, "strict")
  else:
    corpus = encode(sources, unit, "strict")
  if data is not None:
    corpus = _spelled(corpus, data)
  return [
    Document(name, corpus.text(*corpus.bounds[j : j + 2].tolist()))
    for j, name in enumerate(corpus.names)
  ]


def in_memory(documents: Iterable[frames.Text], data: Config) -> Corpus:
  """The corpus of texts, or of lists of words or events, a document each."""
  if data.unit == "log":
    lines = "\n".join(map(str, documents)).encode()
    return log_corpus.read_logs([Source("text", lines)], log_corpus.form(data))
  return _spelled(frames.corpus(documents, data), data)


def set_sources(name: str, split: str) -> list[Source]:
  """The files of a split of a public set, prepared as the catalogue says.

  The content is then in memory; the largest set has 35 MB.

  Raises:
    MachineError: as `catalogue.fetch`.
  """
  known = catalogue.sets()[name]
  part = split if split in known.files else "train"
  paths = catalogue.fetch(name, part)
  if not known.read:
    return [Source(path.name, path) for path in paths]
  sources = []
  for path in paths:
    lines = _lines(name, path, part)
    if known.every and part == "train":
      every, trains = known.every, split != "validation"
      numbered = enumerate(lines, 1)
      lines = [line for n, line in numbered if (n % every > 0) == trains]
    content = "".join(f"{line}\n" for line in lines)
    sources.append(Source(path.name, content.encode()))
  return sources


@functools.lru_cache(maxsize=1)  # Training and validation are often one file.
def _lines(name: str, path: Path, part: str) -> list[str]:
  """The lines of a file, before some are held out."""
  known = catalogue.sets()[name]
  if known.read in READERS:
    lines = READERS[known.read](path, part)
  else:  # An encoding. Only newlines end a line, as in `reading.lines`.
    lines = path.read_bytes().decode(known.read).removesuffix("\n").split("\n")
  for step in known.lines:
    lines = list(map(LINES[step], lines))
  return lines


def _reviews(path: Path, part: str) -> list[str]:
  """The reviews of a split of IMDB's archive: label, tab, text on one line.

  Negative reviews come first, each class in the order of its numbers.
  """
  member = re.compile(rf"aclImdb/{part}/(neg|pos)/(\d+)_\d+\.txt")
  texts = []
  with tarfile.open(path, "r|gz") as archive:
    for entry in archive:
      match = member.fullmatch(entry.name)
      file = match and archive.extractfile(entry)
      if match and file:
        text = " ".join(file.read().decode().split())
        label = int(match[1] == "pos")
        texts.append((label, int(match[2]), text.replace("<br />", " ")))
  return [f"{label}\t{text}" for label, _, text in sorted(texts)]


_TOPICS = ("World", "Sports", "Business", "Sci/Tech")


def _news(path: Path, part: str) -> list[str]:  # noqa: ARG001
  """The rows of AG News: topic, tab, title and description on one line.

  A backslash is what the set has in place of a newline.
  """
  text = path.read_bytes().decode()
  return [
    f"{_TOPICS[int(row[0]) - 1]}\t"
    + " ".join(" ".join(row[1:]).replace("\\", " ").split())
    for _, row in read_csv(io.StringIO(text, newline=""))
  ]


def _words(line: str) -> str:
  """A labelled line in lower case, with white space around punctuation."""
  label, _, text = line.partition("\t")
  return f"{label}\t" + " ".join(re.findall(r"[\w']+|[^\w\s]", text.lower()))


# By `read` in the catalogue: functions of a file and the name of a split.
READERS = {"reviews": _reviews, "news": _news}
# By the names in `lines`.
LINES: dict[str, Callable[[str], str]] = {
  "strip": str.strip,
  "lower": str.lower,
  "words": _words,
}
