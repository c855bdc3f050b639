"""Data in memory: columns of texts, checked, and tables as the bytes of a csv.

A column is whatever can be iterated: a list, an array, a Series of pandas or
polars, a generator, a column of Hugging Face's datasets.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from seqrnn.config.read import Config
from seqrnn.data.documents import Corpus
from seqrnn.data.read.encoding import Encoder
from seqrnn.errors import DataError

# A document in memory: its text, or its words or events.
Text = str | Sequence[str]
_QUOTED = 40  # Characters of a value in a message.


def column(name: str, values: Any) -> list[Any]:
  """The values of a column.

  Raises:
    DataError: it is a single text, a table, or cannot be iterated.
  """
  rule = "must be a column of values, such as a list or frame['text']"
  if isinstance(values, str | bytes | Mapping) or hasattr(values, "columns"):
    raise DataError(f"{name}={_short(values)}: {rule}")
  if getattr(values, "ndim", 1) != 1:
    raise DataError(f"{name}: has the shape {values.shape}; {rule}")
  try:
    return list(values)
  except TypeError:
    raise DataError(f"{name}={_short(values)}: {rule}") from None


def texts(name: str, values: Any, unit: str = "text") -> list[str]:
  """The texts of a column.

  Args:
    name: of the column, for messages.
    values: the column.
    unit: what a value is, for messages.

  Raises:
    DataError: a value is missing, empty or no text; names its position.
  """
  every = column(name, values)
  for n, value in enumerate(every):
    if rule := _fault(value):
      raise DataError(f"{name}[{n}]={_short(value)}: must be a {unit} {rule}")
  return every


def _fault(value: Any) -> str:
  """Returns the rule that a text breaks; empty: none."""
  if not isinstance(value, str):
    return "in a str"
  if not value.strip():
    return "that has more than white space"
  try:
    value.encode()
  except UnicodeEncodeError:
    return "that UTF-8 can hold"
  return ""


def sequences(name: str, values: Any, unit: str) -> list[list[str]]:
  """The texts of a column of columns, such as the words of sentences.

  Raises:
    DataError: as `texts`, or a sequence is empty.
  """
  every = column(name, values)
  found = [texts(f"{name}[{n}]", x, unit) for n, x in enumerate(every)]
  if [] in found:
    raise DataError(f"{name}[{found.index([])}]: has no {unit}")
  return found


def documents(name: str, values: Any) -> list[Text]:
  """The texts of a column, some of which may be lists of words.

  Raises:
    DataError: as `texts`.
  """
  every = column(name, values)
  if every and isinstance(every[0], list | tuple | np.ndarray):
    return [*sequences(name, every, "word")]
  return [*texts(name, every)]


def same_length(one: str, first: Sequence, other: str, second: Sequence):
  """Refuses columns of different lengths."""
  if len(first) != len(second):
    raise DataError(
      f"{one}, {other}: have {len(first):,} and {len(second):,} values; there"
      " must be one for each"
    )


def _short(value: Any) -> str:
  text = " ".join(repr(value).split())
  return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def is_missing(value: Any) -> bool:
  """Returns whether a value is None, NaN, NaT or NA."""
  is_other = not isinstance(value, str)
  return value is None or (is_other and str(value) in ("nan", "NaT", "<NA>"))


def columns_of(name: str, frame: Any) -> dict[str, list[Any]]:
  """The columns of a frame, or of a dict of columns, by their names.

  Raises:
    DataError: it is neither, or the columns have different lengths.
  """
  names = getattr(frame, "column_names", getattr(frame, "columns", None))
  if isinstance(frame, Mapping):
    names = [*frame]
  if names is None or not all(isinstance(one, str) for one in names):
    raise DataError(
      f"{name}={_short(frame)}: must be a frame, or a dict, whose columns have"
      " names"
    )
  found = {one: column(f"{name}[{one!r}]", frame[one]) for one in names}
  for one in names:
    same_length(names[0], found[names[0]], one, found[one])
  return found


def encoded(columns: Mapping[str, Sequence[Any]]) -> bytes:
  """Columns as a csv; a missing value is an empty cell.

  Every cell is quoted, as readers take an unquoted carriage return for the end
  of a row.

  Raises:
    DataError: a text cannot be written in UTF-8.
  """
  content = io.StringIO(newline="")
  rows = zip(*columns.values(), strict=True)
  writer = csv.writer(content, quoting=csv.QUOTE_ALL, lineterminator="\n")
  writer.writerow(columns)
  writer.writerows(
    ["" if is_missing(value) else value for value in row] for row in rows
  )
  try:
    return content.getvalue().encode()
  except UnicodeEncodeError as error:
    raise DataError(f"data: cannot be written in UTF-8 ({error})") from None


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
