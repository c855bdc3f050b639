"""Tables for Python: DataFrames of pandas, which the console does not need."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrnn.errors import UserError, needs_package

if TYPE_CHECKING:
  import pandas as pd  # pyright: ignore[reportMissingImports]


def data_frame(
  rows: Sequence[Any], names: Sequence[str] | None = None
) -> "pd.DataFrame":
  """A table; a name that a row lacks is a missing value.

  Args:
    rows: of the table, dicts or sequences.
    names: of its columns; None: those of the rows.
  """
  return _pandas().DataFrame(rows, columns=names)


def read_csv_frame(
  path: Path, is_text: Callable[[str], bool] = lambda _: False
) -> "pd.DataFrame":
  """The table of a CSV file; an empty cell is a missing value.

  Args:
    path: of the file.
    is_text: whether the column of a name is text, whatever it looks like.

  Raises:
    UserError: pandas is not installed, or the file is damaged.
  """
  pandas = _pandas()
  options = {
    "keep_default_na": False,
    "na_values": [""],
    "encoding_errors": "surrogateescape",
  }
  try:
    names = pandas.read_csv(path, nrows=0).columns
    text = {name: object for name in names if is_text(name)}
    return pandas.read_csv(path, dtype=text, **options)
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: must be a table ({error})") from None


def _pandas() -> Any:
  with needs_package("a table in Python", "pandas", "tables"):
    import pandas  # pyright: ignore[reportMissingImports]
  return pandas
