"""Tables for Python: columns by name, as a CSV file has them."""

import csv
import html
import io
import math
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from seqrnn.errors import UserError, escaped

if TYPE_CHECKING:
  import pandas as pd  # pyright: ignore[reportMissingImports]

_ROWS = 20  # Rows that a table shows; the first ones and the last ones.
_WIDTH = 24  # Characters of a cell that it shows.
_LINE = 100  # Characters of a line; columns beyond it have lines of their own.
_WHOLE = 1e9  # Larger numbers are shown with an exponent.


class Table:
  """Rows of equal columns.

  `table["name"]` is a column, a NumPy array with a value per row. `table[0]`
  is a row, a dict; a loop over the table yields its rows. Columns of whole
  numbers are int64, other numbers float64 with NaN where a value is missing,
  and all other columns have Python objects, with None where one is missing.

  Example:
    >>> table = Table({"step": [100, 200], "loss": [2.5, None]})
    >>> table["loss"]
    array([2.5, nan])
    >>> table[-1]["step"]
    200

  Args:
    columns: name -> the values of its rows, None where one is missing.
  """

  def __init__(self, columns: Mapping[str, Sequence[Any] | np.ndarray]):
    self._columns = {name: _array(x) for name, x in columns.items()}
    if len({len(x) for x in self._columns.values()}) > 1:
      raise ValueError("columns must be equally long")

  @classmethod
  def of_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "Table":
    """A table of dicts; a name that a row lacks is a missing value."""
    names = dict.fromkeys(name for row in rows for name in row)
    return cls({name: [row.get(name) for row in rows] for name in names})

  @classmethod
  def of_text(
    cls,
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    text: Container[str] = (),
  ) -> "Table":
    """A table of the texts of a CSV file; an empty text is a missing value.

    Args:
      names: of the columns.
      rows: the texts of each row.
      text: names of columns that stay text, even if all values are numbers.
    """
    columns = zip(*rows, strict=True)
    found = dict(zip(names, columns, strict=False)) or dict.fromkeys(names, ())
    return cls(
      {
        name: [x or None for x in column] if name in text else _parsed(column)
        for name, column in found.items()
      }
    )

  @property
  def names(self) -> tuple[str, ...]:
    """The names of the columns."""
    return tuple(self._columns)

  def __len__(self) -> int:
    return len(next(iter(self._columns.values()), ()))

  def __contains__(self, name: object) -> bool:
    return name in self._columns

  def __iter__(self) -> Iterator[dict[str, Any]]:
    return (self[n] for n in range(len(self)))

  @overload
  def __getitem__(self, key: str) -> np.ndarray: ...
  @overload
  def __getitem__(self, key: int) -> dict[str, Any]: ...

  def __getitem__(self, key):
    if isinstance(key, str):
      if key not in self._columns:
        raise KeyError(f"no column {key}; there are {', '.join(self.names)}")
      return self._columns[key]
    if not -len(self) <= key < len(self):
      raise IndexError(f"row {key} of {len(self)}")
    return {
      name: x[key].item() if isinstance(x[key], np.generic) else x[key]
      for name, x in self._columns.items()
    }

  def to_pandas(self) -> "pd.DataFrame":
    """The table as a DataFrame.

    Raises:
      UserError: pandas is not installed.
    """
    try:
      import pandas  # pyright: ignore[reportMissingImports]
    except ImportError:
      raise UserError("to_pandas() needs pandas: pip install pandas") from None
    return pandas.DataFrame(self._columns)

  def cells(self) -> list[list[str]]:
    """The rows as texts for people: numbers have five digits."""
    columns = [list(map(_cell, x.tolist())) for x in self._columns.values()]
    return [list(row) for row in zip(*columns, strict=True)]

  def _shown(self) -> list[list[str]]:
    """The cells that are shown: of many rows the first and the last ones."""
    rows = len(self)
    if rows <= _ROWS:
      return self.cells()
    half = _ROWS // 2
    ends = np.r_[:half, rows - half : rows]
    found = Table({name: x[ends] for name, x in self._columns.items()}).cells()
    return [*found[:half], ["\u2026"] * len(self.names), *found[half:]]

  def __repr__(self) -> str:
    """The rows as text, in columns."""
    none: list[tuple[str, ...]] = [()] * len(self.names)
    shown = zip(*self._shown(), strict=True) if len(self) else none
    columns = []
    for name, column in zip(self.names, shown, strict=True):
      cells = [name, *_short(list(column))]
      columns.append([cell.rjust(max(map(len, cells))) for cell in cells])
    blocks = []
    for column in columns:
      if (
        not blocks or sum(len(x[0]) + 2 for x in [*blocks[-1], column]) > _LINE
      ):
        blocks.append(columns[:1] if blocks else [])
      blocks[-1].append(column)
    lines = ["\n".join(map("  ".join, zip(*x, strict=True))) for x in blocks]
    if len(self) > _ROWS:
      lines.append(f"{len(self):,} rows")
    return "\n\n".join(lines)

  def _repr_html_(self) -> str:
    """A table, as notebooks show it."""

    def row(cells: Iterable[str], tag: str) -> str:
      marked = (f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
      return f"<tr>{''.join(marked)}</tr>"

    body = "".join(row(cells, "td") for cells in self._shown())
    caption = f"<caption>{len(self):,} rows</caption>"
    return (
      f"<table>{caption if len(self) > _ROWS else ''}<thead>"
      f"{row(self.names, 'th')}</thead><tbody>{body}</tbody></table>"
    )


def _array(values: Sequence[Any] | np.ndarray) -> np.ndarray:
  """A column of the types that `Table` names."""
  if isinstance(values, np.ndarray):
    return values
  kinds = {type(x) for x in values if x is not None}
  missing = any(x is None for x in values)
  if kinds == {int} and not missing and max(map(abs, values)) < 2**63:
    return np.array(values, np.int64)
  if kinds and kinds <= {int, float}:
    return np.array([math.nan if x is None else x for x in values], float)
  column = np.empty(len(values), object)
  for n, value in enumerate(values):  # A tuple stays one value.
    column[n] = value
  return column


def _parsed(column: Iterable[str]) -> list[Any]:
  """The numbers of a column of texts; the texts, if one is not a number."""
  texts = [x or None for x in column]
  for kind in (int, float):
    try:
      return [None if x is None else kind(x) for x in texts]
    except ValueError:
      continue
  return texts


def _cell(value: Any) -> str:
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ""
  if isinstance(value, float):
    whole = value.is_integer() and abs(value) < _WHOLE
    return f"{value:.0f}" if whole else f"{value:.5g}"
  return escaped(str(value))


def _short(column: list[str]) -> list[str]:
  """Cells of limited length, unless that makes different ones equal."""
  column = without_shared(column)
  short = [
    x if len(x) <= _WIDTH else f"\u2026{x[1 - _WIDTH :]}" for x in column
  ]
  return short if len(set(short)) == len(set(column)) else column


def without_shared(names: list[str]) -> list[str]:
  """Names without the beginning that all share, if one of them is long.

  The beginning ends in a hyphen or a slash.
  """
  shared = os.path.commonprefix(names)
  cut = max(shared.rfind("-"), shared.rfind("/")) + 1
  if not cut or len(set(names)) < 2 or max(map(len, names)) <= _WIDTH:
    return names
  return [f"\u2026{name[cut:]}" for name in names]


def read_csv(path: Path, content: str, text: Container[str] = ()) -> Table:
  """The table of a CSV file's content.

  Raises:
    UserError: its rows are not equally long.
  """
  try:
    names, *rows = list(csv.reader(io.StringIO(content, newline=""))) or [[]]
    return Table.of_text(names, rows, text)
  except (csv.Error, ValueError) as error:
    raise UserError(f"{path}: must be a table ({error})") from None
