"""The tables that a run writes as it trains."""

import os

import pytest

from seqrnn.errors import UserError
from seqrnn.training.history import add_row, cut_tables, draw_history, read_rows

ROWS = [{"step": n, "loss": 1 / n, "name": 2.0} for n in (10, 20, 30)]
WRONG = "metrics.csv: must have the columns step, with numbers; move it away"
LINES = [b"step,loss,name\n", b"10,0.1,2\n", b"20,0.05,2\n"]
LINES.append(b"30,0.03333333,2\n")


@pytest.fixture
def table(tmp_path):
  path = tmp_path / "metrics.csv"
  for row in ROWS:
    add_row(path, row)
  assert path.read_bytes() == b"".join(LINES)
  return path


def test_rows_after_a_step_are_dropped(table):
  for step, lines in ((99, 4), (30, 4), (29, 3), (10, 2), (9, 0)):
    cut_tables(table.parent, step)
    assert table.read_bytes() == b"".join(LINES[:lines])


def test_a_table_that_ends_anywhere_continues(table):
  content = table.read_bytes()
  ends = [len(b"".join(LINES[: n + 1])) for n in range(4)]
  for size in range(len(content)):
    table.write_bytes(content)
    os.truncate(table, size)
    done = sum(end <= size for end in ends)  # Lines that are there.
    assert len(read_rows(table)) == max(done - 1, 0)
    cut_tables(table.parent, 99)
    for row in ROWS[max(done - 1, 0) :]:
      add_row(table, row)
    assert table.read_bytes() == content


def test_another_file_is_refused_and_unchanged(tmp_path):
  path = tmp_path / "metrics.csv"
  for content in (b"no table\n1\n", b"step,loss\nx,1\n", b"\xff\xfe\0\n\0"):
    path.write_bytes(content)
    for use in (lambda: read_rows(path), lambda: cut_tables(tmp_path, 9)):
      with pytest.raises(UserError, match=WRONG):
        use()
    assert path.read_bytes() == content
  path.write_bytes(b"".join(LINES))
  line = "its columns are step,loss,name, must be step,new; move it away"
  with pytest.raises(UserError, match=line):
    add_row(path, {"step": 40, "new": 1.0})
  line = "metrics.csv: must have the columns step, train_loss, validation_loss,"
  with pytest.raises(UserError, match=line):
    draw_history(tmp_path, "nats a symbol")
  assert path.read_bytes() == b"".join(LINES)
