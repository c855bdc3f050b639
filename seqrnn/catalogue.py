"""Public data sets by name: where their files are, and how they are read.

catalogue.toml lists them. A file is fetched once, verified, and kept in the
user's cache folder; a file that the user puts there is as good.
"""

import functools
import hashlib
import sys
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from seqrnn.errors import MachineError, visible
from seqrnn.runtime import files

_LIST = Path(__file__).with_suffix(".toml")
HOST = "https://raw.githubusercontent.com"

# Fields of the user's own files: their paths and formats.
_READING = (
  *("path", "train_path", "validation_path", "test_path", "format"),
  *("log_format", "log_header", "log_session", "log_keys"),
)


class File(NamedTuple):
  """A file of a set.

  Attributes:
    path: in the repository, or its name.
    size: in bytes.
    checksum: SHA-256, or another algorithm, a colon and its checksum.
    alias: its name in the cache, if it is not the last part of the path.
  """

  path: str
  size: int
  checksum: str
  alias: str = ""

  @property
  def name(self) -> str:
    """Its name in the cache."""
    return self.alias or self.path.rpartition("/")[2]


class DataSet(NamedTuple):
  """A public data set; catalogue.toml explains the attributes."""

  name: str
  folder: str
  what: str
  terms: str
  cite: str
  files: dict[str, list[File]]
  repository: str = ""
  commit: str = ""
  page: str = ""
  fields: dict[str, str] = {}
  read: str = ""
  lines: tuple[str, ...] = ()
  every: int = 0

  def has(self, split: str) -> bool:
    """Whether a split is that of the publication, or made of `train`."""
    held_out = split == "validation" and self.every > 0
    return split in self.files or held_out

  @property
  def is_music(self) -> bool:
    """Whether its files have frames of notes, not symbols."""
    files = (file for some in self.files.values() for file in some)
    return all(file.name.endswith(".mat") for file in files)

  def url(self, file: File) -> str:
    """The address of a file of a set with a repository."""
    return f"{HOST}/{self.repository}/{self.commit}/{file.path}"


@functools.cache
def sets() -> dict[str, DataSet]:
  """All sets by their names."""
  entries = tomllib.loads(_LIST.read_text("utf-8"))
  data_sets = {}
  for name, entry in entries.items():
    base = entry.pop("of", name)
    entry = {**entries[base], **entry}
    folder = name if "files" in entries[name] else base
    entry["files"] = {
      split: [File(*row) for row in rows]
      for split, rows in entry["files"].items()
    }
    data_sets[name] = DataSet(name, folder, **entry)
  return data_sets


def needed_fields(
  source: str, by_user: Collection[str], flags: Collection[str]
) -> dict[str, Any]:
  """The fields of `data` that a set needs, with their values.

  A set named by a flag replaces the files of the config, and their format.
  A set named by the config leaves the fields that the config sets.

  Args:
    source: `data.source`.
    by_user: the fields that a flag or the config sets, by their dotted names.
    flags: those of them that a flag sets.
  """
  known = sets().get(source)
  if known is None:
    return {}
  needed: dict[str, Any] = dict(known.fields)
  if "data.source" in flags:
    by_user = flags
    needed = dict.fromkeys(_READING) | {"format": "text"} | needed
  return {k: v for k, v in needed.items() if f"data.{k}" not in by_user}


def fetch(name: str, split: str) -> list[Path]:
  """The files of a split of a set, each fetched once and verified.

  Processes that need a file at once wait for the one that fetches it. A file
  that is there is only read, so that the cache may be read-only.

  Raises:
    MachineError: a file cannot be fetched, or the user must put it there.
  """
  import platformdirs  # Finds the cache without importing what fetches.

  data_set = sets()[name]
  folder = platformdirs.user_cache_path("seqrnn") / "sets" / data_set.folder
  paths = [folder / file.name for file in data_set.files[split]]
  for file, path in zip(data_set.files[split], paths, strict=True):
    if _is_valid(path, file):
      continue
    if data_set.page:
      state = "is not the published file" if path.exists() else "is missing"
      raise MachineError(
        f"data.source={name!r}: {path} {state}; it is not fetched, get it from"
        f" {data_set.page} and put it there (terms: {data_set.terms})"
      )
    with _locked(folder):
      if not _is_valid(path, file):
        _announce(name)
        _download(data_set, file, path)
  return paths


def _by_hand(data_set: DataSet, folder: Path) -> str:
  """Returns what a user without a network can do, for an error."""
  every = [file for files in data_set.files.values() for file in files]
  needed = [file for file in every if not _is_valid(folder / file.name, file)]
  wrong = [file.name for file in needed if (folder / file.name).exists()]
  urls = [
    data_set.url(file) + f" (as {file.alias})" * bool(file.alias)
    for file in needed
  ]
  others = f"; not the published file there: {', '.join(wrong)}" * bool(wrong)
  return (
    f"get {' and '.join(dict.fromkeys(urls))} on another machine and put it in"
    f" {folder}{others}"
  )


def _is_valid(path: Path, file: File) -> bool:
  """Whether a file of the cache is that of the set."""
  algorithm, _, checksum = f"sha256:{file.checksum}".rpartition(":")
  try:
    with path.open("rb") as content:
      digest = hashlib.file_digest(content, algorithm.rpartition(":")[2])
  except OSError:
    return False
  return digest.hexdigest() == checksum


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
  """Holds the lock of a folder, and removes what a killed process left."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = files.lock(folder / "lock", wait=True)
    assert lock is not None, "`wait` returns with the lock"
    with lock:
      # Named by Python's tempfile, for pooch.
      for unfinished in folder.glob("tmp" + 8 * "[a-z0-9_]"):
        unfinished.unlink()
      yield
  except OSError as error:
    raise MachineError(
      f"{folder}: cannot be written: {error.strerror or error}; the environment"
      " variable XDG_CACHE_HOME names another place"
    ) from None


@functools.cache
def _announce(name: str):
  data_set = sets()[name]
  line = (
    f"data.source={name}: fetching from {data_set.repository}; terms:"
    f" {data_set.terms}; cite {data_set.cite}"
  )
  print(visible(line), file=sys.stderr)


def _download(data_set: DataSet, file: File, path: Path):
  import pooch  # Imports requests, which only this needs.

  url = data_set.url(file)
  known = file.checksum if ":" in file.checksum else f"sha256:{file.checksum}"
  pooch.get_logger().setLevel("WARNING")
  try:
    pooch.retrieve(url, known, path.name, path.parent)
  except (OSError, ValueError) as error:  # ValueError: another checksum.
    raise MachineError(
      f"data.source={data_set.name!r}: {url} cannot be fetched"
      f" ({_reason(error)}); {_by_hand(data_set, path.parent)}"
    ) from None


def _reason(error: BaseException) -> str:
  """Returns why a file cannot be fetched, in a few words.

  The error of the system is the last cause that requests and urllib3 wrap.
  """
  if isinstance(error, ValueError):
    return "the content has another checksum"
  response = getattr(error, "response", None)
  if response is not None:
    return f"{response.status_code} {response.reason}"
  while error.__cause__ or error.__context__:
    error = error.__cause__ or error.__context__ or error
  reason = getattr(error, "strerror", None) or error
  return " ".join(str(reason).split())[:80]
