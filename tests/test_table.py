"""Tables: their types, what is missing, what they show."""

import csv
import io
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from seqrnn.errors import UserError
from seqrnn.table import Table, read_csv, without_shared


def test_a_column_has_the_type_of_its_values():
  table = Table(
    {
      "whole": [1, 2, 3],
      "gaps": [1, None, 3],
      "number": [1, 2.5, None],
      "text": ["a", None, "c"],
      "flag": [True, False, None],
      "numbers": [(1.0, 2.0), (3.0, 4.0), None],
      "none": [None] * 3,
      "huge": [2**70, 1, 2],
    }
  )
  kinds = {name: table[name].dtype.kind for name in table.names}
  assert kinds == dict(
    zip(table.names, ["i", "f", "f", "O", "O", "O", "O", "f"], strict=True)
  )
  assert math.isnan(table["gaps"][1]) and math.isnan(table["number"][2])
  assert table["numbers"][0] == (1.0, 2.0) and len(table) == 3
  assert table[-3]["whole"] == 1 and type(table[0]["whole"]) is int
  assert [row["text"] for row in table] == ["a", None, "c"]
  with pytest.raises(KeyError, match="no column wholes; there are whole, gaps"):
    table["wholes"]
  with pytest.raises(IndexError, match="row 3 of 3"):
    table[3]
  with pytest.raises(ValueError, match="equally long"):
    Table({"a": [1], "b": [1, 2]})


def test_a_table_is_read_from_text():
  rng = random.Random(0)
  rows = [
    [rng.randrange(99), rng.random(), f"a\u2028,{n}\n", f"0{n}"]
    for n in range(9)
  ]
  file = io.StringIO()
  csv.writer(file).writerows([["i", "x", "s", "name"], *rows])
  table = read_csv(Path("x.csv"), file.getvalue(), {"name"})
  assert [list(row.values()) for row in table] == rows
  assert table["i"].dtype == np.int64 and table["x"].dtype == float
  empty = read_csv(Path("x.csv"), "a,b\n")
  assert empty.names == ("a", "b") and len(empty) == 0 == len(empty["a"])
  with pytest.raises(UserError, match="x.csv: must be a table"):
    read_csv(Path("x.csv"), "a,b\n1,2\n3\n")


def test_a_table_shows_its_rows():
  table = Table({"run": ["<i>\x1b[31m", "b" * 99], "loss": [0.123456789, None]})
  first, second, third = repr(table).splitlines()
  assert first.split() == ["run", "loss"]
  assert second.split() == [r"<i>\x1b[31m", "0.12346"]
  assert third.split()[0].endswith("bbb") and len(third) < 40
  runs = [f"runs/rnn-units={n}-{'s' * 30}" for n in range(3)]
  shown = repr(Table({"run": runs}))  # Told apart.
  assert all(run.removeprefix("runs/rnn-") in shown for run in runs)
  rows = ElementTree.fromstring(table._repr_html_()).findall(".//tr")
  assert [cell.text for cell in rows[1]] == [r"<i>\x1b[31m", "0.12346"]
  long = Table({"n": range(1000), "step": [float(n) for n in range(1000)]})
  lines = repr(long).splitlines()
  assert len(lines) < 25 and lines[-1] == "1,000 rows"
  assert lines[1].split() == ["0", "0"] and lines[-3].split() == ["999", "999"]
  assert "1,000 rows" in long._repr_html_()
  wide = Table({f"column_{n}": [n, 2 * n] for n in range(40)})
  assert max(map(len, repr(wide).splitlines())) <= 100
  assert repr(wide).split().count("column_0") > 1  # It names the rows.
  assert all(f"column_{n}" in repr(wide).split() for n in range(40))
  assert repr(Table({})) == ""


def test_pandas_is_used_where_it_is_installed(monkeypatch):
  table = Table({"step": [1, 2], "loss": [0.5, None]})
  monkeypatch.setitem(sys.modules, "pandas", None)
  with pytest.raises(UserError, match="needs pandas: pip install pandas"):
    table.to_pandas()
  monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
  assert list(table.to_pandas()["step"]) == [1, 2]


def test_long_names_are_shown_without_what_they_share():
  long = [f"rnn-path=my.txt-source=files-size={n}" for n in (128, 256)]
  assert without_shared(long) == ["\u2026size=128", "\u2026size=256"]
  assert without_shared(["a-1", "a-2"]) == ["a-1", "a-2"]
  assert without_shared(["a" * 30, "b" * 30]) == ["a" * 30, "b" * 30]
  assert without_shared(long[:1]) == long[:1]
  shown = repr(Table({"run": long, "loss": [1.5, 2.5]})).splitlines()
  assert shown[1].split() == ["\u2026size=128", "1.5"]
