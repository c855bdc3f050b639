"""The durable state of a follower: a SQLite database and a file of alarms.

All that some lines change - the position in the input, sessions, kinds of
alarms, drift and alarms - is written in one transaction, so the state after any
end of the process is that of a prefix of the input. After a loss of power, it
may be that of a shorter one, which has all alarms that were written.
alarms.jsonl is an export of the table `alarms`: a line is written when its
transaction is on the disk, and at the start the lines that the file lacks are
added.
"""

import json
import os
import sqlite3
import time
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeVar, cast

from seqrnn.errors import UserError
from seqrnn.runtime import files

NAME, ALARMS = "state.db", "alarms.jsonl"
_FORMAT = 4
# The end of a journal of several databases, with the path of another file.
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
# A row is a part of the value of a key, as JSON; `meta` has `facts`, all that
# changes with each line, and `alarms` the lines of alarms.jsonl.
_TABLES = ("meta", "sessions", "kinds", "alarms")
_SCHEMA = f"PRAGMA user_version = {_FORMAT};" + "".join(
  f"CREATE TABLE {table} (key, part INTEGER, value TEXT, sum INTEGER,"
  " PRIMARY KEY (key, part)) WITHOUT ROWID;"
  for table in _TABLES
)
_SCHEMA += "CREATE INDEX lines ON alarms (value);"
_RETRY = 5.0  # Seconds between transactions while nothing can be written.
_END = 2**24  # Bytes of the end of alarms.jsonl that are compared.

_encode = json.JSONEncoder(separators=(",", ":")).encode

_T = TypeVar("_T")


class StateRow(NamedTuple):
  """A row of a table, or a change of it: a new row.

  Attributes:
    table: its name.
    key: a number; in the table `meta`, a name.
    part: orders the rows of a key.
    value: a JSON document; None, in a change: all rows of the key are deleted.
  """

  table: str
  key: int | str
  part: int
  value: Any


def as_type(kind: type[_T], value: Any) -> _T:
  """A JSON document as a value of a type, which may be a class of fields.

  Raises:
    ValueError: it, or a field of it, is of another type.
  """
  make, types = typing.get_origin(kind), typing.get_args(kind)
  if type(value) is kind or (kind, type(value)) == (float, int):
    return cast(_T, value)
  with suppress(TypeError, KeyError):  # A field is unknown, or missing.
    match value:
      case _ if make is UnionType:
        for one in types:
          with suppress(ValueError):
            return cast(_T, as_type(one, value))
      case [*_] if make in (list, Sequence):
        if not {*map(type, value)} <= {types[0]}:  # Slow.
          value = [as_type(types[0], item) for item in value]
        return cast(_T, value)
      case [*_] if hasattr(kind, "_fields"):
        return kind(*map(as_type, typing.get_type_hints(kind).values(), value))
      case dict() if make is dict:
        items = {k: as_type(types[1], item) for k, item in value.items()}
        return cast(_T, items)
      case dict() if is_dataclass(kind) or typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind)
        fields = {k: as_type(hints[k], item) for k, item in value.items()}
        if getattr(kind, "__required_keys__", set()) <= fields.keys():
          return kind(**fields)
  name = getattr(kind, "__name__", kind)
  raise ValueError(f"a value of type {type(value).__name__} is no {name}")


@contextmanager
def open_state(
  folder: Path, report: Callable[[str], None]
) -> Iterator["StoredState"]:
  """Locks a folder, and creates it and the database if they are missing.

  Args:
    folder: of the state.
    report: called with messages for a person.

  Raises:
    MachineError: another process follows with this state, or the folder cannot
      be written.
    UserError: the database is damaged or of another version.
  """
  path = folder / NAME
  with files.write_errors(folder):
    folder.mkdir(parents=True, exist_ok=True)
  with ExitStack() as stack:
    lock = stack.enter_context(files.locked(folder / ".lock", "followed"))
    with damage(path):
      database = stack.enter_context(_opened(path, "rwc"))
      if not _size(database):
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT")
      database.execute("PRAGMA journal_mode = WAL")
      state = StoredState(folder, report, lock, database)
    yield state


class StoredState:
  """Writes and recovers the state in a folder; `open_state` opens it.

  If nothing can be written, as on a full disk, changes and alarms stay in
  memory: this is reported once, and the next transaction has them. If the
  process is killed before, the input has to be read again.

  Attributes:
    folder: of the state.
    fault: why nothing can be written; empty: it can.
  """

  def __init__(
    self,
    folder: Path,
    report: Callable[[str], None],
    lock: files.Lock,
    database: sqlite3.Connection,
  ):
    self.folder, self.fault = folder, ""
    self._report, self._lock, self._database = report, lock, database
    self._again = 0.0
    # Changes that are not written: table and key -> part -> change.
    self._unsaved: dict[tuple[str, int | str], dict[int, StateRow]] = {}
    query = "SELECT max(key) FROM alarms"
    self._alarms = database.execute(query).fetchone()[0] or 0
    self._exported: int | None = None  # The last alarm in alarms.jsonl.

  def recover(self) -> list[str]:
    """The lines of alarms that alarms.jsonl lacked, and that stdout may lack.

    Raises:
      UserError: the database is damaged or of another version.
      MachineError: alarms.jsonl cannot be changed.
    """
    with damage(self.folder / NAME):
      for table in ("alarms", "meta"):  # Compares their checksums.
        list(_rows(self._database, table))
    with files.write_errors(self.folder / ALARMS):
      return self._export()

  def value(self, name: str, kind: type[_T]) -> _T | None:
    """The value of a row of the table `meta`; None: there is none.

    Raises:
      UserError: a row is damaged, or the value is of another type.
    """
    with damage(self.folder / NAME):
      values = {row.key: row.value for row in _rows(self._database, "meta")}
      return as_type(kind, values[name]) if name in values else None

  def rows(self, table: str) -> list[StateRow]:
    """The rows of a table, ordered.

    Raises:
      UserError: a row is damaged.
    """
    with damage(self.folder / NAME):
      return list(_rows(self._database, table))

  def save(self, changes: Iterable[StateRow], lines: Sequence[str] = ()):
    """Writes changes and lines of alarms, in one transaction.

    Args:
      changes: since the last call.
      lines: of new alarms.

    Raises:
      MachineError: the folder was removed or replaced.
    """
    for change in changes:
      parts = self._unsaved.setdefault((change.table, change.key), {})
      if change.value is None:
        parts.clear()
      parts[change.part] = change
    for line in lines:
      self._alarms += 1
      change = StateRow("alarms", self._alarms, 0, line)
      self._unsaved["alarms", self._alarms] = {0: change}
    if self.fault and time.monotonic() < self._again:
      return
    self._lock.check()
    fault = ""
    # Only an alarm has to wait for the disk (2: FULL, 1: NORMAL): a log is read
    # again from any transaction on, and a kill loses none.
    has_alarms = any(table == "alarms" for table, _ in self._unsaved)
    try:
      self._database.execute(f"PRAGMA synchronous = {1 + has_alarms}")
      with self._database:
        self._database.execute("BEGIN IMMEDIATE")
        for parts in self._unsaved.values():
          for change in parts.values():
            self._put(change)
      self._unsaved = {}
      if has_alarms or self._exported is None:
        self._export()
    except (sqlite3.Error, OSError) as error:
      fault = str(getattr(error, "strerror", None) or error)
      self._again = time.monotonic() + _RETRY
    if fault and not self.fault:
      self._report(
        f"{self.folder}: the state cannot be written: {fault}; it is tried"
        f" again every {_RETRY:.0f} seconds"
      )
    elif self.fault and not fault:
      self._report(f"{self.folder}: the state is written again")
    self.fault = fault

  def _put(self, change: StateRow):
    table, key, part, value = change
    if value is None:
      self._database.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
      return
    text = _encode(value)
    row = key, part, text, _sum(table, key, part, text)
    self._database.execute(f"REPLACE INTO {table} VALUES (?, ?, ?, ?)", row)

  def _export(self) -> list[str]:
    """Adds lines of alarms to alarms.jsonl, and returns them.

    Raises:
      OSError: the file cannot be written.
    """
    if self._exported is None:
      self._exported = self._compare()
    rows = [*_rows(self._database, "alarms", self._exported)]
    lines = [row.value for row in rows]
    if rows:
      content = "".join(f"{line}\n" for line in lines).encode()
      self._exported = None  # Compared again if an error stops the next line.
      _append(self.folder / ALARMS, content)
      files.sync(self.folder)
      self._exported = int(rows[-1].key)
      self._put(StateRow("meta", "exported", 0, self._exported))
    return lines

  def _compare(self) -> int:
    """The last alarm that is in alarms.jsonl, by its number; 0: none is.

    An incomplete last line is cut off the file. If there is no file, it was
    renamed, and has the lines that were exported.

    Raises:
      OSError: the file cannot be changed.
      UserError: the database lacks the last line. A line is exported after its
        transaction, but SQLite silently drops what follows a damaged byte of
        state.db-wal: the follower would judge those lines of the log again.
    """
    path = self.folder / ALARMS
    if not path.exists():
      return self.value("exported", int) or 0
    with path.open("r+b") as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(size - _END, 0))
      *lines, incomplete = file.read().split(b"\n")
      line = _encode(lines[-1].decode(errors="replace") if lines else "")
      query = "SELECT key FROM alarms WHERE value = ?"
      row = self._database.execute(query, (line,)).fetchone()
      if lines and row is None:
        raise UserError(
          f"{path}: its last line is not in {NAME}, which is damaged or older;"
          " restore it, or move the folder away to begin without it"
        )
      file.truncate(size - len(incomplete))
    return row[0] if row else 0


def read_kinds(folder: Path) -> tuple[Any, list[StateRow]] | None:
  """The facts and the rows of `kinds` of a follower, which may be running.

  None: there are none.

  Raises:
    UserError: the database is damaged or of another version.
  """
  path = folder / NAME
  if not path.exists():
    return None
  with damage(path), _opened(path, "ro") as database:
    if not _size(database):  # A follower is creating it.
      return None
    database.execute("BEGIN")  # Both are of the same transaction.
    meta, kinds = (list(_rows(database, name)) for name in ("meta", "kinds"))
  facts = {row.key: row.value for row in meta}.get("facts")
  return facts and (facts, kinds)


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
  """A database that is empty or a follower's, and deletes no other file."""
  journal = path.with_name(f"{path.name}-journal")
  if journal.exists() and journal.read_bytes()[-8:] == _SUPER_JOURNAL:
    raise UserError(
      f"{journal}: names a file outside of the database, which SQLite would"
      " delete; remove the journal"
    )
  # SQLite deletes a log of transactions whose database is empty.
  both = path, path.with_name(f"{path.name}-wal")
  size, logged = (one.exists() and one.stat().st_size for one in both)
  if logged and not size:
    raise sqlite3.DatabaseError(f"is empty or missing, and {NAME}-wal is not")
  uri = f"{path.absolute().as_uri()}?mode={mode}"
  with closing(
    sqlite3.connect(uri, uri=True, isolation_level=None)
  ) as database:
    database.execute("PRAGMA trusted_schema = OFF")
    # A foreign view or trigger may run for ever, or drop what is written.
    with closing(sqlite3.connect(":memory:")) as ours:
      ours.executescript(_SCHEMA)
      if _size(database) and _schema(database) != _schema(ours):
        raise sqlite3.DatabaseError(f"its tables are not of format {_FORMAT}")
    # Nor do pages that are each other's children have an end.
    [fault] = database.execute("PRAGMA integrity_check(1)").fetchone()
    if fault != "ok":
      raise sqlite3.DatabaseError(" ".join(fault.split()))
    yield database


@contextmanager
def damage(path: Path) -> Iterator[None]:
  """Converts an error of a database's content to a line that names the file.

  Other exceptions, as a TypeError, are bugs of ours, after which the state is
  still of use.

  Raises:
    UserError: the database cannot be used.
  """
  try:
    yield
  except (sqlite3.Error, ValueError, LookupError, RecursionError) as error:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # Without its details.
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
      raise UserError(f"{path}: cannot be read or written: {error}") from None
    raise UserError(
      f"{path}: cannot be used: {error}; move the folder away to begin without"
      " it"
    ) from None


def _schema(database: sqlite3.Connection) -> list[tuple[str | int | None, ...]]:
  """The tables, indices, views and triggers of a database, and its format."""
  query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid"
  return [*database.execute(query), *database.execute("PRAGMA user_version")]


def _size(database: sqlite3.Connection) -> int:
  """Pages of a database; 0: it is new."""
  return database.execute("PRAGMA page_count").fetchone()[0]


def _rows(
  database: sqlite3.Connection, table: str, after: int = -1
) -> Iterator[StateRow]:
  """Key, part and value of the rows of a table after a number, or of all."""
  query = f"SELECT * FROM {table} WHERE key > {after} ORDER BY key, part"
  types = (str if table == "meta" else int, int)
  for key, part, text, total in database.execute(query):
    # The number 1 and the text '1' have the same checksum.
    are_ours = (type(key), type(part)) == types
    if not are_ours or total != _sum(table, key, part, text):
      raise sqlite3.DatabaseError(f"wrong checksum in the table {table}")
    yield StateRow(table, key, part, json.loads(text))


def _sum(table: str, key: int | str, part: int, text: str) -> int:
  return zlib.crc32(f"{table} {key} {part} {text}".encode())


def _append(path: Path, content: bytes):
  """Appends to a file; if an error stops it, perhaps a part only."""
  with path.open("ab") as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
