"""The config files of the project and of the user: finds and runs them."""

import importlib.util
import json
import os
import re
import runpy
import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from seqrnn.config import suggestions
from seqrnn.config.field import Field
from seqrnn.errors import UserError
from seqrnn.runtime import files

_LIMIT = 2**20  # Bytes of a config; a run writes about 2,000 bytes.
FOLDER = Path(__file__).parents[2] / "configs"

try:
  from configs import base

  FIELDS: dict[str, Field] = base.FIELDS
  defaults = base.get_config
except (ImportError, AttributeError):  # sys.path has another `configs` first.
  _base = runpy.run_path(str(FOLDER / "base.py"))
  FIELDS, defaults = _base["FIELDS"], _base["get_config"]


def names() -> list[str]:
  """Returns the names of the configs in ./configs and in the project.

  `base` has only the defaults of all others.
  """
  folders = Path("configs"), FOLDER
  stems = {p.stem for folder in folders for p in folder.glob("[!_]*.py")}
  return sorted(stems - {"base"})


def find(given: str) -> Path:
  """Returns the file of the config that --config names.

  Args:
    given: a name, such as brnn, or a path. `configs/brnn.py` is found in the
      project if it is not in the current folder.

  Raises:
    UserError: there is no such config.
  """
  path = Path(os.path.expanduser(given))
  named = path.name == given and not path.suffix
  own = path.with_suffix(".py") if named else path
  if named:
    places = Path("configs") / own, FOLDER / own, path
  else:
    places = path, FOLDER / path.name if path.parent.name == "configs" else path
  for place in places:
    if place.exists() and not place.is_dir():  # A pipe is refused later.
      return place
  if path.is_dir():
    is_run = (path / "config.json").exists()
    hint = f"; --workdir={given} uses this run" if is_run else ""
    raise UserError(f"--config={given}: is a folder, must be a file{hint}")
  known = names()
  raise UserError(
    f"--config={given}: no such {'config' if named else 'file'}; the configs"
    f" are {', '.join(known)}{suggestions.hint(path.stem, known)}"
  )


def load(path: Path) -> ConfigDict:
  """Returns the config that get_config() of a .py file makes.

  Raises:
    UserError: the file raises an exception, or makes no config.
  """
  if not path.is_file():
    raise UserError(f"--config={path}: no such file")
  spec = importlib.util.spec_from_file_location(path.stem, path)
  assert spec is not None and spec.loader is not None, "the name ends in .py"
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
      raise UserError(f"{path}: must define get_config()")
    config = module.get_config()
  except UserError:
    raise
  except (Exception, SystemExit) as error:  # It may raise anything.
    raise UserError(_located(path, error)) from None
  if not isinstance(config, ConfigDict):
    raise UserError(f"{path}: get_config() must return a ConfigDict")
  return config


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the fields of a JSON config, as nested dicts.

  Raises:
    UserError: the file is missing or is not a config.
  """
  try:
    text = files.read_bytes(path, _LIMIT).decode("utf-8")
    fields = json.loads(text, object_pairs_hook=partial(_object, path))
  except OSError as error:
    raise UserError(f"{path}: {error.strerror or error}") from None
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: not JSON ({error})") from None
  if not isinstance(fields, dict):
    raise UserError(f"{path}: not a config; must be a JSON object of fields")
  for name, value in fields.items():
    if _too_deep(value, groups=1):
      raise UserError(
        f"{path}: config.{name}: nested too deeply; a config has fields and"
        " groups of fields"
      )
  return fields


def _object(path: Any, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns an object of a JSON file, which must have each key once."""
  fields = dict(pairs)
  if len(fields) < len(pairs):
    twice = next(k for k, n in Counter(k for k, _ in pairs).items() if n > 1)
    raise UserError(f"{path}: {twice!r} is given twice in one object")
  return fields


def _too_deep(value: Any, groups: int) -> bool:
  """Returns whether a value nests more than `groups` groups of fields."""
  if isinstance(value, dict):
    inner = value.values()
    return not groups or any(_too_deep(part, groups - 1) for part in inner)
  parts = value if isinstance(value, list) else []
  return any(isinstance(part, list | dict) for part in parts)


def _located(path: Path, error: BaseException) -> str:
  """Returns the message of an error, with the line of the config it is from."""
  name = os.path.abspath(path)
  frames = traceback.extract_tb(error.__traceback__)
  lines = [x.lineno for x in frames if os.path.abspath(x.filename) == name]
  if (
    isinstance(error, SyntaxError)
    and error.filename
    and os.path.abspath(error.filename) == name
  ):
    lines.append(error.lineno)
  where = f"{path}:{lines[-1]}" if lines and lines[-1] else str(path)
  if match := re.search(r'Key "(\w+)" does not exist', str(error)):
    near = suggestions.fields(match[1], FIELDS)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{where}: {match[1]}: no such field{hint}"
  kind = type(error).__name__
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]  # ml_collections wraps errors.
  reason = str(error.args[0] if error.args else error)
  return f"{where}: {kind}: {' '.join(reason.split())}"


def groups_of_fields() -> list[str]:
  """Returns the groups of fields."""
  return list(dict.fromkeys(n.partition(".")[0] for n in FIELDS if "." in n))


def no_such_field(name: str) -> str:
  """Returns the message for the name of a group or of nothing."""
  if inside := [field for field in FIELDS if field.startswith(f"{name}.")]:
    return (
      f"config.{name}: is a group; name a field, one of {', '.join(inside)}"
    )
  near = " or ".join(suggestions.fields(name, FIELDS))
  first, groups = name.partition(".")[0], groups_of_fields()
  if not near and first not in groups:
    near = suggestions.near(first, groups)
  hint = f"; did you mean {near}?" if near else ""
  return f"config.{name}: no such field{hint}"


def wrong_type(name: str, value: Any) -> str:
  """Returns the message for a value that is not of its field's type."""
  return f"config.{name}={value!r}: {FIELDS[name].type_rule}"
