"""The tables that a run writes as it trains."""

import os

import pytest

from seqrnn.errors import UserError
from seqrnn.history import add_row, cut_rows, draw, read_rows

ROWS = [{"step": n, "loss": 1 / n, "name": 2.0} for n in (10, 20, 30)]
WRONG = "metrics.csv: (row 2 must be|its first column must)"
LINES = [
  b"step,loss,name\n",
  b"10,0.1,2\n",
  b"20,0.05,2\n",
  b"30,0.03333333,2\n",
]


@pytest.fixture
def table(tmp_path):
  path = tmp_path / "metrics.csv"
  for row in ROWS:
    add_row(path, row)
  assert path.read_bytes() == b"".join(LINES)
  return path


@pytest.mark.parametrize(
  ("step", "lines"), [(5, 0), (9, 0), (10, 2), (29, 3), (30, 4), (99, 4)]
)
def test_rows_after_a_step_are_dropped(table, step, lines):
  cut_rows(table, step)
  assert table.read_bytes() == b"".join(LINES[:lines])


def test_a_table_that_ends_anywhere_goes_on(table):
  whole = table.read_bytes()
  ends = [len(b"".join(LINES[: n + 1])) for n in range(4)]
  for size in range(len(whole)):
    table.write_bytes(whole)
    os.truncate(table, size)
    done = sum(end <= size for end in ends)  # Lines that are there.
    assert len(read_rows(table)) == max(done - 1, 0)
    cut_rows(table, 99)
    for row in ROWS[max(done - 1, 0) :]:
      add_row(table, row)
    assert table.read_bytes() == whole


def test_there_may_be_no_table(tmp_path):
  cut_rows(tmp_path / "metrics.csv", 9)
  draw(tmp_path, "nats a symbol")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "content",
  [
    "what is this\n1\n",
    "step,loss\n10\n",
    "step,loss\nx,1\n",
    "step,loss\n1.5,1\n",
    "step,loss\n10,1,2\n",
    "loss,step\n1,2\n",
    "step,loss\n\n10,1\n",
    "step,loss\n" + 5000 * "1" + ",1\n",
    b"\xff\xfe\0\n\0",
    b"step,loss\n\xff,1\n",
  ],
)
def test_what_is_no_table_is_refused(tmp_path, content):
  path = tmp_path / "metrics.csv"
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  before = path.read_bytes()
  for use in (read_rows, lambda path: cut_rows(path, 9)):
    with pytest.raises(UserError, match=WRONG):
      use(path)
  with pytest.raises(UserError, match=WRONG):
    draw(tmp_path, "nats a symbol")
  assert path.read_bytes() == before


def test_rows_of_other_names_are_not_mixed(table):
  line = "its columns are step,loss,name, must be step,new; move it away"
  with pytest.raises(UserError, match=line):
    add_row(table, {"step": 40, "new": 1.0})
  assert table.read_bytes() == b"".join(LINES)
