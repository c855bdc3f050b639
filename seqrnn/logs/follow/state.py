"""The durable state of a follower: a SQLite database and a file of alarms.

Whatever some lines change - the position in the input, sessions, kinds of
alarms, drift and alarms - is written in one transaction, so the state after any
end of the process is that of a prefix of the input. alarms.jsonl is an export
of the table `alarms`: a line is written when its transaction is on the disk,
and at the start the lines that the file lacks are added.
"""

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from seqrnn.errors import MachineError, UserError
from seqrnn.runtime import files

NAME, ALARMS = "state.db", "alarms.jsonl"
_FORMAT = 1
# The end of a journal of several databases, with the path of another file.
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
# A row is a part of the value of a key, as JSON; `meta` has one key for all
# that changes with each line, and `alarms` the lines of alarms.jsonl.
_TABLES = ("meta", "sessions", "kinds", "drift", "alarms")
_RETRY = 5.0  # Seconds between transactions while nothing can be written.
_END = 2**24  # Bytes of the end of alarms.jsonl that are compared.

_encode = json.JSONEncoder(separators=(",", ":")).encode

# Table, key, part, value. Without a value, all parts of the key are deleted,
# without a key all rows of the table.
Change = tuple[str, int | str | None, int, Any]


class State:
  """Writes and recovers the state in a folder, which it locks.

  If nothing can be written, as on a full disk, changes and alarms stay in
  memory: this is reported once, and the next transaction has them. If the
  process is killed before, the input has to be read again.

  Attributes:
    folder: of the state.
    fault: why nothing can be written; empty: it can.
  """

  def __init__(self, folder: Path, report: Callable[[str], None]):
    """Locks the folder, and creates it and the database if they are missing.

    Raises:
      MachineError: another process follows with this state, or the folder
        cannot be written.
      UserError: the database is damaged or of another version.
    """
    self.folder, self.fault = folder, ""
    self._report, self._again = report, 0.0
    self._unsaved: list[str] = []  # Lines of alarms.
    # Lines of alarms.jsonl that the database does not have: it was replaced by
    # an older one, and the same lines will come again.
    self._ahead: set[bytes] = set()
    self._exported = 0  # Lines of alarms that are in alarms.jsonl.
    with files.write_errors(folder):
      folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
      lock = files.locked(folder / ".lock", "followed")
      self._lock = stack.enter_context(lock)
      self._database = stack.enter_context(_opened(folder / NAME, "rwc"))
      with damage(folder / NAME):
        self._create()
      self._open = stack.pop_all()

  def __enter__(self) -> "State":
    return self

  def __exit__(self, *_):
    self.close()

  def close(self):
    """Releases the folder; writes nothing."""
    self._open.close()

  def _create(self):
    """Creates the tables of a new database."""
    execute = self._database.execute
    is_new = _is_new(self._database)
    if not is_new:
      _check_format(self._database)  # Before another program's is changed.
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute("PRAGMA wal_autocheckpoint = 250")  # Pages: about a megabyte.
    if not is_new:
      return
    with self._database:
      execute("BEGIN IMMEDIATE")
      for table in _TABLES:
        execute(
          f"CREATE TABLE {table} (key, part INTEGER, value TEXT, sum INTEGER,"
          " PRIMARY KEY (key, part)) WITHOUT ROWID"
        )
      execute("CREATE INDEX lines ON alarms (value)")
      execute(f"PRAGMA user_version = {_FORMAT}")

  def recover(self) -> tuple[dict[str, Any] | None, list[str]]:
    """The facts of the last transaction, and the lines of alarms to show.

    These are the lines that alarms.jsonl lacked, and that stdout may lack.

    Raises:
      UserError: the database is damaged or of another version.
      MachineError: alarms.jsonl cannot be changed.
    """
    with damage(self.folder / NAME):
      [fault] = self._database.execute("PRAGMA integrity_check(1)").fetchone()
      if fault != "ok":
        raise sqlite3.DatabaseError(" ".join(fault.split()))
      _check_format(self._database)
      for _ in _texts(self._database, "alarms"):
        pass  # Compares their checksums.
      meta = {key: value for key, _, value in self.rows("meta")}
      with files.write_errors(self.folder / ALARMS):
        self._exported = self._compare(meta.get("exported", 0))
        return meta.get("facts"), self._export()

  def rows(self, table: str) -> Iterator[tuple[Any, int, Any]]:
    """Key, part and value of each row, ordered.

    Raises:
      UserError: a row is damaged.
    """
    with damage(self.folder / NAME):
      for key, part, text in _texts(self._database, table):
        yield key, part, json.loads(text)

  def save(
    self,
    changes: Iterable[Change],
    facts: Any,
    lines: Sequence[str] = (),
    at_once: bool = False,
  ) -> bool:
    """Writes changes, facts and lines of alarms, in one transaction.

    Args:
      changes: since the last transaction.
      facts: all of them.
      lines: of new alarms.
      at_once: also if nothing could be written a moment ago.

    Returns:
      whether they are on the disk; if not, the caller repeats the changes, but
      not the lines.

    Raises:
      MachineError: the folder was removed or replaced.
    """
    self._unsaved += lines
    if self.fault and not at_once and time.monotonic() < self._again:
      return False
    self._lock.check()
    is_saved = False
    try:
      with self._database:
        self._database.execute("BEGIN IMMEDIATE")
        for change in changes:
          self._change(*change)
        self._put("meta", "facts", 0, json.dumps(facts))
        last = self._database.execute("SELECT max(key) FROM alarms").fetchone()
        for key, line in enumerate(self._unsaved, (last[0] or 0) + 1):
          self._put("alarms", key, 0, line)
      self._unsaved, is_saved = [], True
      self._export()
    except (sqlite3.Error, OSError) as error:
      self._fail(str(getattr(error, "strerror", None) or error))
      return is_saved
    if self.fault:
      self._report(f"{self.folder}: the state is written again")
    self.fault = ""
    return True

  def _change(self, table: str, key: Any, part: int, value: Any):
    if key is None:
      self._database.execute(f"DELETE FROM {table}")
    elif value is None:
      self._database.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
    else:
      self._put(table, key, part, _encode(value))

  def _put(self, table: str, key: Any, part: int, text: str):
    row = key, part, text, _sum(table, key, part, text)
    self._database.execute(f"REPLACE INTO {table} VALUES (?, ?, ?, ?)", row)

  def _fail(self, fault: str):
    """Reports once that nothing can be written."""
    self._again = time.monotonic() + _RETRY
    if not self.fault:
      self._report(
        f"{self.folder}: the state cannot be written: {fault}; following goes"
        f" on, and writing is tried again every {_RETRY:.0f} seconds"
      )
    self.fault = fault

  def _compare(self, exported: int) -> int:
    """The number of lines of alarms that are in alarms.jsonl.

    An incomplete last line is cut off the file. Where there is no file, it was
    renamed, and has the lines that were exported.

    Raises:
      OSError: the file cannot be changed.
    """
    path = self.folder / ALARMS
    if not path.exists():
      return exported
    with path.open("r+b") as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(size - _END, 0))
      *lines, incomplete = file.read().split(b"\n")
      if incomplete:
        file.truncate(size - len(incomplete))
    query = "SELECT key FROM alarms WHERE value = ?"
    for line in reversed(lines):
      text = line.decode(errors="replace")
      if row := self._database.execute(query, (text,)).fetchone():
        return row[0]
      self._ahead.add(line)
    return 0

  def _export(self) -> list[str]:
    """Adds lines of alarms to alarms.jsonl, and returns them.

    Raises:
      OSError: the file cannot be written.
    """
    rows = [*_texts(self._database, "alarms", self._exported)]
    if not rows:
      return []
    lines = [text for *_, text in rows if text.encode() not in self._ahead]
    _append(self.folder / ALARMS, "".join(f"{x}\n" for x in lines).encode())
    files.sync(self.folder)
    self._exported = rows[-1][0]
    self._put("meta", "exported", 0, str(self._exported))
    return lines


def read_kinds(
  folder: Path,
) -> tuple[dict[str, Any], list[tuple[Any, int, Any]]] | None:
  """The facts and the rows of `kinds` of a follower, which may be running.

  None: there are none.

  Raises:
    UserError: the database is damaged or of another version.
  """
  path = folder / NAME
  if not path.exists():
    return None
  with _opened(path, "ro") as database, damage(path):
    if _is_new(database):  # A follower is creating it.
      return None
    _check_format(database)
    with database:
      database.execute("BEGIN")  # Both are of the same transaction.
      meta, kinds = (
        [(key, part, json.loads(text)) for key, part, text in rows]
        for rows in (_texts(database, "meta"), _texts(database, "kinds"))
      )
  facts = {key: value for key, _, value in meta}.get("facts")
  return facts and (facts, kinds)


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
  journal = path.with_name(f"{path.name}-journal")
  if journal.exists() and journal.read_bytes()[-8:] == _SUPER_JOURNAL:
    raise UserError(
      f"{journal}: names a file outside of the database, which SQLite would"
      " delete; remove the journal"
    )
  uri = f"{path.absolute().as_uri()}?mode={mode}"
  with damage(path):
    database = sqlite3.connect(uri, uri=True, isolation_level=None)
  with closing(database):
    database.execute("PRAGMA trusted_schema = OFF")  # It may be of anybody.
    yield database


@contextmanager
def damage(path: Path) -> Iterator[None]:
  """Converts an exception to a line that names the file.

  Raises:
    UserError: the database is damaged.
    MachineError: it cannot be opened or written.
  """
  try:
    yield
  except UserError:
    raise
  except sqlite3.OperationalError as error:
    raise MachineError(f"{path}: cannot be used: {error}") from None
  except Exception as error:  # As texts that are no UTF-8 may raise any.
    raise UserError(
      f"{path}: damaged ({error}); move the folder away to begin without it"
    ) from None


def _is_new(database: sqlite3.Connection) -> bool:
  [tables] = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
  return not tables


def _check_format(database: sqlite3.Connection):
  [version] = database.execute("PRAGMA user_version").fetchone()
  if version != _FORMAT:
    raise sqlite3.DatabaseError(f"format {version}, not {_FORMAT}")
  query = "SELECT count(*) FROM sqlite_master WHERE type IN ('trigger', 'view')"
  if database.execute(query).fetchone()[0]:
    raise sqlite3.DatabaseError("it has a trigger or a view")


def _texts(
  database: sqlite3.Connection, table: str, after: int | None = None
) -> Iterator[tuple[Any, int, str]]:
  """Key, part and JSON of the rows of a table, perhaps after a key."""
  where = "" if after is None else f"WHERE key > {after}"
  query = f"SELECT * FROM {table} {where} ORDER BY key, part"
  for key, part, text, total in database.execute(query):
    if total != _sum(table, key, part, text):
      raise sqlite3.DatabaseError(f"wrong checksum in the table {table}")
    yield key, part, text


def _sum(table: str, key: Any, part: int, text: str) -> int:
  return zlib.crc32(f"{table} {key} {part} {text}".encode())


def _append(path: Path, data: bytes):
  """Appends all of the data to a file, or nothing.

  Raises:
    OSError: it cannot be written.
  """
  descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
  try:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    try:
      if os.write(descriptor, data) < len(data):
        raise OSError("No space left on device")
      os.fdatasync(descriptor)
    except OSError:
      os.ftruncate(descriptor, size)
      raise
  finally:
    os.close(descriptor)
