"""Public data sets by name: where their files are, and how they are read.

catalogue.toml lists them. A file is fetched once, verified, and kept in the
user's cache folder; a file that the user puts there is as good.
"""

import functools
import hashlib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from seqrnn.errors import MachineError, report
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

  def is_at(self, path: Path) -> bool:
    """Whether a path has the published content."""
    algorithm, _, checksum = self.checksum.rpartition(":")
    try:
      with path.open("rb") as content:
        digest = hashlib.file_digest(content, algorithm or "sha256")
        return digest.hexdigest() == checksum
    except OSError:
      return False


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
) -> dict[str, str | None]:
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
  needed: dict[str, str | None] = {**known.fields}
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
    if file.is_at(path):
      continue
    if data_set.page:
      state = "is not the published file" if path.exists() else "is missing"
      raise MachineError(
        f"data.source={name!r}: {path} {state}; it is not fetched, get it from"
        f" {data_set.page} and put it there (terms: {data_set.terms})"
      )
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / "lock", "filled", wait=True):
      if not file.is_at(path):
        _announce(name)
        _download(data_set, file, path)
  return paths


@functools.cache
def _announce(name: str):
  data_set = sets()[name]
  report(
    f"data.source={name}: fetching from {data_set.repository}; terms:"
    f" {data_set.terms}; cite {data_set.cite}"
  )


def _download(data_set: DataSet, file: File, path: Path):
  import pooch  # Imports requests, which only this needs.

  pooch.get_logger().setLevel("WARNING")
  url = data_set.url(file)
  try:
    pooch.retrieve(url, file.checksum, path.name, path.parent)
  except (OSError, ValueError) as error:  # ValueError: another checksum.
    cause: BaseException = error
    # requests and urllib3 wrap the error of the system.
    while inner := cause.__cause__ or cause.__context__:
      cause = inner
    raise MachineError(
      f"data.source={data_set.name!r}: {url} cannot be fetched"
      f" ({' '.join(str(cause).split())}); get it on another machine and put it"
      f" at {path}"
    ) from None
