"""Corpora: documents of symbols, from files or from a named source."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from seqrnn import catalogue
from seqrnn.config.read import RULES, Config
from seqrnn.data.documents import Corpus, Document
from seqrnn.data.logs import entries, logs
from seqrnn.data.read import labelled, spelling, tagged
from seqrnn.data.read.encoding import encode_in_memory
from seqrnn.data.read.labelled import Known
from seqrnn.data.read.reading import Source, files
from seqrnn.data.sources import cache, embedded, formal, prepared
from seqrnn.errors import UserError

SPLITS = ("train", "validation", "test")

# Formats whose texts are single lines, or sentences that can be.
_LINES = ("tab", "space", "files", "columns", "parallel", "conllu")


def read(data: Config, split: str | None = None) -> Corpus:
  """The corpus of `data.source`: all of it, or of a split with a path.

  Raises:
    UserError: fields that exclude each other, a file that is missing or not
      what `data.unit` says, a corpus without symbols.
  """
  paths = ("path", *(f"{name}_path" for name in SPLITS))
  given = [field for field in paths if data[field] is not None]
  known = catalogue.sets().get(data.source)
  plain = known or data.format in ("text", "spaces")
  of_files = given if plain else [*given, "format"]
  if data.source != "files" and of_files:
    raise UserError(
      f"data.{of_files[0]}={data[of_files[0]]!r}: is read with"
      f" data.source=files only, not with data.source={data.source!r}"
    )
  if known:
    return _read_set(known, data, split)
  if data.source == "formal":
    return formal.read(data, split or "train")
  if "path" in given and len(given) > 1:
    raise UserError(
      f"data.path={data.path!r}, data.{given[1]}={data[given[1]]!r}: give one"
      " path that is split here, or one for each split, not both"
    )
  if data.source == "files" and not given:
    raise UserError(
      "data.path=None: data.source=files needs data.path, or data.train_path,"
      " data.validation_path and data.test_path"
    )
  field = "path" if split is None else f"{split}_path"
  if (split or data.source == "files") and field not in given:
    raise UserError(f"data.{field}=None: no path is given for what is asked")
  if data.source == "files":
    return read_files(f"data.{field}", data[field], data)
  with enough_memory(f"data.source={data.source!r}"):
    if data.source in embedded.CORPORA:
      corpus = embedded.CORPORA[data.source](data.unit, data.errors)
    elif data.source == "chords":
      raise _music(data.source)
    else:
      words = RULES["data.source"].words
      raise UserError(f"data.source={data.source!r}: {words}")
    return _finished(f"data.source={data.source!r}", corpus, data)


def _music(source: str) -> UserError:
  return UserError(
    f"data.source={source!r}: is music, which only task='polyphony' reads"
  )


def _read_set(
  known: catalogue.DataSet, data: Config, split: str | None
) -> Corpus:
  """A split of a public set; None: the files that `data.split` splits."""
  if known.is_music:
    raise _music(known.name)
  form = known.fields.get("format", "text")
  forms = ("text", "spaces") if form == "text" else (form,)
  units = (known.fields.get("unit", data.unit),)
  for field, needed in (("format", forms), ("unit", units)):
    if data[field] not in needed:
      raise UserError(
        f"data.{field}={data[field]!r}: data.source={known.name!r} is read with"
        f" data.{field}={needed[0]}"
      )
  part = split or ("all" if "all" in known.files else "train")
  what = f"data.source={known.name!r}"
  with enough_memory(what):
    sources = prepared.sources(known.name, part)
    return _finished(what, _of_form(sources, data, None), data)


def separate(data: Config) -> set[str]:
  """The splits that have files of their own; `data.split` makes the others."""
  if data.source == "formal":
    return set(SPLITS)
  known = catalogue.sets().get(data.source)
  if known is None:
    given = any(data[f"{name}_path"] is not None for name in SPLITS)
    return set(SPLITS) if given else set()
  found = {name for name in SPLITS if known.has(name)}
  return found if "validation" in found else found - {"train"}


def anomalous(data: Config) -> str | None:
  """The file of anomalous sessions that a public set has; None: it has none.

  Raises:
    MachineError: as `catalogue.fetch`.
  """
  known = catalogue.sets().get(data.source)
  if known is None or "anomalous" not in known.files:
    return None
  return str(catalogue.fetch(known.name, "anomalous")[0])


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
  """Names the data where memory ends, which no setting of a model can mend.

  Raises:
    UserError: there is not enough memory.
  """
  try:
    yield
  except MemoryError:
    raise UserError(
      f"{what}: there is not enough memory to read it; read less of it"
    ) from None


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
  with enough_memory(f"{field}={value!r}"):
    corpus = _of_form(files(field, value), data, known)
    return _finished(f"{field}={value!r}", corpus, data)


def _of_form(sources: list[Source], data: Config, known: Known) -> Corpus:
  if data.unit == "log":
    return logs.read(sources, logs.form(data))
  if data.unit == "session" and data.format == "csv":
    return logs.read_table(sources, data)
  if data.format in tagged.FORMS:
    return tagged.read(sources, data, known is not None)
  if data.format not in ("text", "spaces"):
    return labelled.read(sources, data, known)
  # A labelled text is a line, except the whole files of `packages`.
  if known is not None and data.format == "text" and data.source != "packages":
    return labelled.texts(sources, data.unit, data.errors)
  return encode(sources, data.unit, data.errors)


def with_cuts(
  corpus: Corpus, idle: float | None, trained: Corpus | None = None
) -> Corpus:
  """The corpus with the sessions that its log cuts, reported on stderr.

  Args:
    corpus: of a log; any other is returned as it is.
    idle: the idle time; None: the learned one.
    trained: the corpus whose idle times are used where it is of a log with the
      same clock; None: those of `corpus`.
  """
  cuts, known = corpus.cuts, trained and trained.cuts
  if cuts is None:
    return corpus
  if trained and known and known.clock == cuts.clock:
    index = {symbol: n for n, symbol in enumerate(trained.symbols)}
    # A symbol that is not in training has the last entry.
    same_V = np.array([index.get(s, len(index)) for s in corpus.symbols])
    first_D, last_D = corpus.bounds[:-1], corpus.bounds[1:] - 1
    cuts = cuts._replace(
      idle=known.idle,
      first_D=np.append(known.first_V, 0)[same_V[corpus.ids[first_D]]],
      last_D=np.append(known.last_V, known.idle)[same_V[corpus.ids[last_D]]],
    )
  if idle is not None:
    cuts = cuts.with_idle(idle)
  cuts.report()
  return corpus._replace(cuts=cuts)


def _finished(value: str, corpus: Corpus, data: Config) -> Corpus:
  """A corpus of any source in the spelling of `data`, with tags of `spaces`.

  Raises:
    UserError: it has no symbol.
  """
  corpus = spelling.spell(corpus, data)
  if data.format == "spaces":
    corpus = tagged.spaces(corpus)
  if not len(corpus.ids):
    empty = "the corpus is empty, it has no symbols"
    if corpus.unit == "log":
      empty = "the log is empty, it has no lines"
    raise UserError(f"{value}: {empty}")
  return corpus


def encode(sources: list[Source], unit: str, errors: str) -> Corpus:
  """The corpus of sources; a large one is memory-mapped.

  Raises:
    UserError: as `cache.open_corpus`.
  """
  return cache.open_corpus(
    sources,
    ["encoded", unit, errors],
    lambda some, folder: (encode_in_memory(some, unit, errors, folder), []),
  )


def log_format(config: Config) -> str | None:
  """The format of the training's log, instead of `auto`; None: of no log.

  It is `auto` if files have different formats.

  Raises:
    UserError: as `entries.settled`, or there is no file.
  """
  data = config.data
  field = "path" if data.path is not None else "train_path"
  if data.unit != "log" or data.log_format != "auto":
    return None
  if data.source in catalogue.sets():
    sources = prepared.sources(data.source, "all")
  elif data[field] is None:
    return None
  else:
    sources = files(f"data.{field}", data[field])
  form = entries.settled(sources, logs.form(data), config.detect.redact)
  return form.log_format


def describe_format(config: Config):
  """Reports on stderr how a log is read, if its format is the user's own.

  Raises:
    UserError: there is no file, or it cannot be read.
  """
  data = config.data
  field = "path" if data.path is not None else "train_path"
  given = data.log_header is not None or data.log_format is not None
  if data.unit == "log" and given and data.log_format != "auto" and data[field]:
    source, *_ = files(f"data.{field}", data[field])
    entries.describe(source, logs.form(data), config.detect.redact)


def parse(
  content: bytes | Path,
  unit: str,
  name: str,
  errors: str,
  data: Config | None = None,
) -> list[Document]:
  """The documents with symbols in bytes, or in a small file.

  The other fields of `data` say their form, without labels, and their spelling:
  a line is a text or a sentence where it is one in the run's files. Without
  `data` the content is one text, or lines of a log without a header.

  Raises:
    UserError: as `encoding.encode`; or the file cannot be read.
  """
  sources = [Source(name, content)]
  if unit == "log":
    form = logs.Form(errors) if data is None else logs.form(data)
    corpus = logs.read(sources, form._replace(errors=errors))
  elif data is not None and (
    data.format in _LINES or data.source in ("names", "formal")
  ):
    corpus = labelled.texts(sources, unit, errors)
  else:
    corpus = encode_in_memory(sources, unit, errors)
  if data is not None:
    corpus = spelling.spell(corpus, data)
    if data.format == "spaces":
      corpus = tagged.spaces(corpus)
  return [
    Document(name, corpus.text(*corpus.bounds[j : j + 2].tolist()), name)
    for j, name in enumerate(corpus.names)
  ]


def from_text(
  text: str, unit: str, data: Config | None = None
) -> list[Document]:
  """The documents of a text typed on the command line, as `parse` does.

  Raises:
    UserError: the text is not UTF-8, or not a str.
  """
  if not isinstance(text, str):
    raise UserError(f"text: must be a str, not {type(text).__name__}")
  try:
    # Bytes that are not UTF-8 arrive as lone surrogates.
    content = text.encode("utf-8", "surrogateescape")
    if unit != "byte":
      content.decode()
  except UnicodeDecodeError as error:
    raise UserError(
      f"text: byte {error.start} is not UTF-8, as what is typed must be;"
      " a file of it can be read with data.errors=latin-1"
    ) from None
  except UnicodeEncodeError as error:
    raise UserError(
      f"text: character {error.start} is half of a surrogate pair"
    ) from None
  return parse(content, unit, "text", "strict", data)
