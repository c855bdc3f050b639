"""Data in memory: columns of texts, checked, and tables as the bytes of a csv.

A column is whatever can be iterated: a list, an array, a Series of pandas or
polars, a generator, a column of Hugging Face's datasets.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus
from seqrnn.data.read.encoding import Encoder
from seqrnn.errors import DataError, shortened
from seqrnn.runtime import files

# A document in memory: its text, or its words or events.
Text = str | Sequence[str]
# Read in place of a text without symbols, whose label is asked for: a symbol
# that no training has.
UNSEEN = "\ufffd"
_QUOTED = 40  # Characters of a value in a message.


def column(name: str, values: Any, unit: str = "value") -> list[Any]:
  """The values of a column; a value is called `unit` in messages.

  Raises:
    DataError: it is a single text, a table or empty, or cannot be iterated.
  """
  is_array = hasattr(values, "__array__")
  if is_array and np.shape(values)[1:] == (1,):  # The only one of a table.
    values = np.asarray(values)[:, 0]
  rule = "must be a column of values, such as a list or frame['text']"
  if isinstance(values, str | bytes) or is_table(values):
    raise DataError(f"{name}={_short(values)}: {rule}")
  if getattr(values, "ndim", 1) != 1:
    raise DataError(f"{name}: has the shape {values.shape}; {rule}")
  try:
    every = list(values)
  except TypeError:
    raise DataError(f"{name}={_short(values)}: {rule}") from None
  if not every:
    raise DataError(f"{name}: has no {unit}")
  return every


def is_table(values: Any) -> bool:
  """Returns whether it is a frame, of any library, or a dict of columns."""
  is_frame = hasattr(values, "columns") or hasattr(values, "column_names")
  return is_frame or isinstance(values, Mapping)


def texts(name: str, values: Any, unit="text", blank=False) -> list[str]:
  """The texts of a column.

  Args:
    name: of the column, for messages.
    values: the column.
    unit: what a value is, for messages.
    blank: whether a text may be empty.

  Raises:
    DataError: a value is missing, empty or no text; names its position.
  """
  every = column(name, values, unit)
  for n, value in enumerate(every):
    if rule := _fault(value, blank):
      raise DataError(f"{name}[{n}]={_short(value)}: every {unit} must {rule}")
  return every


def _fault(value: Any, blank: bool) -> str:
  """Returns the rule that a text breaks; empty: none."""
  if not isinstance(value, str):
    return "be a str"
  if not (blank or value.strip()):
    return "have more than white space"
  try:
    value.encode()
  except UnicodeEncodeError:
    return "be in UTF-8"
  return ""


def sequences(name: str, values: Any, unit: str) -> list[list[str]]:
  """The texts of a column of columns, such as the words of sentences.

  Raises:
    DataError: as `texts`.
  """
  every = enumerate(column(name, values, "sentence"))
  return [texts(f"{name}[{n}]", one, unit) for n, one in every]


def documents(name: str, values: Any, blank: bool) -> list[Text]:
  """The texts of a column, some of which may be lists of words.

  With `blank`, an empty text is UNSEEN.

  Raises:
    DataError: as `texts`.
  """
  every = column(name, values, "text")
  if isinstance(every[0], list | tuple | np.ndarray):
    return [*sequences(name, every, "word")]
  every = texts(name, every, blank=blank)
  return [text if text.strip() else UNSEEN for text in every]


def _short(value: Any) -> str:
  return shortened(" ".join(repr(value).split()), _QUOTED)


def is_missing(value: Any) -> bool:
  """Returns whether a value is None, NaN, NaT or NA."""
  is_other = not isinstance(value, str)
  return value is None or (is_other and str(value) in ("nan", "NaT", "<NA>"))


def columns_of(name: str, frame: Any) -> dict[str, list[Any]]:
  """The columns of a frame, or of a dict of columns, by their names.

  Raises:
    DataError: it is neither, or the columns have different lengths.
  """
  of_frame = getattr(frame, "column_names", getattr(frame, "columns", None))
  names = [*frame] if isinstance(frame, Mapping) else of_frame
  if names is None:
    raise DataError(f"{name}={_short(frame)}: must be a frame")
  found = {str(one): column(f"{name}[{one!r}]", frame[one]) for one in names}
  lengths = {one: len(values) for one, values in found.items()}
  if len({*lengths.values()}) > 1:
    raise DataError(f"{name}: its columns have different lengths, {lengths}")
  return found


def encoded(columns: Mapping[str, Sequence[Any]]) -> bytes:
  """Columns as a csv; a missing value is an empty cell.

  Every cell is quoted, as readers take an unquoted carriage return for the end
  of a row.
  """
  content = io.StringIO(newline="")
  writer = csv.writer(content, quoting=csv.QUOTE_ALL, lineterminator="\n")
  writer.writerow(columns)
  for row in zip(*columns.values(), strict=True):
    writer.writerow(["" if is_missing(value) else value for value in row])
  # What UTF-8 cannot hold is refused when it is read.
  return content.getvalue().encode("utf-8", "surrogatepass")


def written(folder: Path, contents: Mapping[str, bytes]) -> dict[str, str]:
  """Writes data of a run into its workdir.

  Args:
    folder: in the workdir.
    contents: the files by their names, train.csv and others.

  Returns:
    the fields of their paths; a single file has all splits.

  Raises:
    DataError: the run there has other data.
  """
  fields = {"data.source": "files"}
  for name, content in contents.items():
    path = folder / name
    if path.exists() and path.read_bytes() != content:
      raise DataError(f"{path}: has other data, of a run; name another workdir")
    folder.mkdir(parents=True, exist_ok=True)
    files.write(path, content)
    split = "" if len(contents) == 1 else f"{path.stem}_"
    fields[f"data.{split}path"] = str(path)
  return fields


def corpus(documents: Iterable[Text], data: Config) -> Corpus:
  """The corpus of documents, before the spelling of `data`.

  They are encoded as `reading` has them in a file, all at once, because an
  encoder of a single text takes a millisecond to start.
  """
  encoder, unit = Encoder(data.unit), data.unit
  encoder.begin_file("text")
  for number, document in enumerate(documents, 1):
    if not isinstance(document, str):
      encoder.add_tokens(document)
    elif unit in ("id", "session"):
      encoder.add_tokens(document.split())
    else:
      text = document.replace("\r\n", "\n")
      encoder.add(text.encode().decode("latin-1") if unit == "byte" else text)
    encoder.end(number)
  return encoder.corpus()
