"""The config and the workdir that a command line means."""

import copy
import hashlib
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from seqrnn import config as config_lib
from seqrnn.config import CHANGEABLE, FIELDS, IDENTITY, SHAPE, Config
from seqrnn.errors import UserError, visible
from seqrnn.fields import Condition
from seqrnn.runtime import files, launch

# Fields that become part of the default workdir's name where a flag sets them.
NAMING = (
  *IDENTITY,
  *(n for n in CHANGEABLE if n not in ("train.epochs", "train.max_steps")),
  "search.method",
)
# The project's own tasks. Another one may use any field.
_TASKS = {
  task
  for field in FIELDS.values()
  for condition in field.used
  for task in condition.get("task", ())
}

_INDENT: Any = {"initial_indent": "    ", "subsequent_indent": "    "}

Overrides = list[tuple[str, str | bool]]  # Fields and the texts of their flags.


def split_overrides(argv: list[str]) -> tuple[Overrides, list[str]]:
  """The overrides --config.x=v of a command line, as (x, v), and the rest.

  --config.x v is the same; --config.x alone gives True, --noconfig.x False.
  """
  overrides, rest = [], []
  left = list(reversed(argv))
  while left:
    argument = left.pop()
    match = re.fullmatch(r"--?(no)?config\.([^=]+)(=.*)?", argument, re.DOTALL)
    if not match or (match[1] and match[3]):
      rest.append(argument)
    elif match[3]:
      overrides.append((match[2], match[3][1:]))
    elif match[1]:
      overrides.append((match[2], False))
    elif left and not left[-1].startswith("--"):
      overrides.append((match[2], left.pop()))
    else:
      overrides.append((match[2], True))
  return overrides, rest


def resolve(
  parsed: flags.FlagValues, overrides: Overrides
) -> tuple[Config, Path]:
  """The config and the workdir that the flags mean.

  Fields that the flags set and that have no effect are reported on stderr.

  Raises:
    UserError: the flags name no config, or the workdir holds another run.
  """
  path, folder, beside = parsed.config, parsed.workdir, ""
  if folder and parsed.mode == "report" and not os.path.exists(folder):
    folder, _, beside = folder.partition(",")  # The first of several runs.
  if folder:
    files.check_links(folder)
  defaults = config_lib.defaults()
  record = _record(parsed.mode, folder)
  if path:
    plain = config_lib.read(path, defaults)
  elif folder:
    plain = config_lib.read_run(folder, defaults, record)
  else:
    raise UserError("--config: name one, as in --config=configs/brnn.py")
  config = copy.deepcopy(plain)
  if beside:
    config.report.beside = beside
  _apply(overrides, config)
  config_lib.check(config)
  if folder:
    workdir = Path(folder)
  else:
    workdir = Path("runs", run_name(Path(path).stem, plain, config))
    files.check_links(workdir)
  starts = parsed.mode in ("train", "describe", "search")
  new = starts and not (workdir / record).exists()
  begun = plain
  if path and not new:
    begun = config_lib.read_run(workdir, defaults, record)
  if parsed.mode not in ("train", "search") and not new:
    # Without --config all but the model may differ, as other data.
    config = config_lib.sized(config, begun)
    _refuse_other(begun, config, workdir, IDENTITY if path else SHAPE)
  if config.train.cpu_devices is None:
    config.train.cpu_devices = begun.train.cpu_devices
  given = {name for name, _ in overrides}
  if path and path.endswith(".py"):  # A config in JSON has every field.
    given |= config_lib.changes(defaults, plain).keys()
  if not parsed.process_id:
    for line in unused(config, given, defaults):
      print("warning:", visible(line), file=sys.stderr)
  return config, workdir


def _record(mode: str, folder: str | None) -> str:
  """The file of a workdir that has the config which a mode reads.

  A search and a run of the same config may share a workdir; a report shows
  both.
  """
  if mode == "search":
    return "search.json"
  only_search = (
    mode == "report"
    and folder
    and not Path(folder, "config.json").exists()
    and Path(folder, "search.json").exists()
  )
  return "search.json" if only_search else "config.json"


def _apply(overrides: Overrides, config: Config):
  """Sets fields from flags; hidden_size and parameters replace each other."""
  for name, value in overrides:
    config_lib.override(config, name, value)
  given = dict(overrides)
  model = config.model
  if "model.hidden_size" not in given:
    return
  if "model.parameters" not in given:
    model.parameters = None
  elif model.parameters is not None:
    raise UserError(
      f"--config.model.hidden_size={model.hidden_size},"
      f" --config.model.parameters={model.parameters}: give one of the two"
    )


def _refuse_other(
  trained: Config, config: Config, workdir: Path, fixed: Iterable[str]
):
  """Refuses a config whose fields with these prefixes are not the run's."""
  found = config_lib.differences(trained, config, fixed)
  if found:
    raise UserError(
      f"{workdir}: was trained otherwise, {'; '.join(found)}; --workdir alone"
      " takes it as it is"
    )


def run_name(name: str, old: Config, new: Config) -> str:
  """The default name of a run: the config's, with the fields flags changed."""
  parts = [name]
  for field, (_, value) in config_lib.changes(old, new, NAMING).items():
    parts.append(f"{field}={config_lib.text(value)}")
  # A path separator, and what Orbax reads as a pattern.
  name = re.sub(r"[/\\\[\]*?]", "_", "-".join(parts))
  if len(name.encode()) > 200:  # Most file systems end at 255 bytes.
    digest = hashlib.sha256(name.encode()).hexdigest()
    name = f"{name[:100]}-{digest[:12]}"
  return name


def cpu_devices(config: Config, mode: str = "train") -> int:
  """The number of devices that JAX makes of the CPU; the run's, or by a rule.

  A step of small layers is too short to be distributed from core to core
  within an operation, so two devices take half of the rows each. With large
  layers or few rows two devices are slower than one. Results are rounded
  differently with another number, so config.json keeps it. A search of small
  layers has a worker on each core. Both fields are set in the config.
  """
  model, train, search = config.model, config.train, config.search
  small = model.hidden_size <= 256
  if model.parameters:  # The hidden size is found later, with JAX.
    small = model.parameters <= model.layers * 4 * 256**2
  cores = launch.cores()
  if mode == "search":
    if search.workers is None:  # Trials of coarse depend on earlier ones.
      search.workers = cores if small and search.method != "coarse" else 1
    cores //= search.workers
  if train.cpu_devices is None:
    few = train.batch_size < 16
    train.cpu_devices = 2 if small and not few and cores > 1 else 1
  return train.cpu_devices


def unused(
  config: Config, given: Iterable[str], defaults: Config
) -> Iterator[str]:
  """A line for each field that was set and has no effect in this config.

  Args:
    config: of the run.
    given: the fields that a user set.
    defaults: fields that have their default are not reported.
  """
  fields, plain = config_lib.flat(config), config_lib.flat(defaults)
  for name in sorted(set(given)):
    conditions = FIELDS[name].used
    if (
      not conditions
      or fields[name] == plain[name]
      or any(_holds(condition, fields) for condition in conditions)
    ):
      continue
    others = dict.fromkeys(other for way in conditions for other in way)
    have = ", ".join(f"{other}={fields[other]!r}" for other in others)
    yield (
      f"config.{name}={fields[name]!r}: has no effect with {have}; it needs"
      f" {_needs(conditions)}"
    )


def _needs(conditions: Iterable[Condition]) -> str:
  """What a field needs to have an effect, in words."""
  return "; or ".join(
    " and ".join(
      f"{name} {' or '.join(map(config_lib.text, values))}"
      for name, values in way.items()
    )
    for way in conditions
  )


def help_of(wanted: str) -> str:
  """The defaults, rules and meanings of fields.

  Args:
    wanted: a field, as `data.window`; a group of fields, as `data`; or `all`.

  Raises:
    UserError: there is no such field or group.
  """
  names = [
    name
    for name in FIELDS
    if wanted in ("all", name) or name.startswith(f"{wanted}.")
  ]
  if not names:
    groups = dict.fromkeys(name.partition(".")[0] for name in FIELDS)
    raise UserError(
      f"--help={wanted}: must be all, a field as data.window, or one of"
      f" {', '.join(groups)}"
    )
  parts = []
  for name in names:
    field = FIELDS[name]
    rule = f"{field.rule.words}{', or none' if field.optional else ''}."
    if field.used:
      rule += f" It has an effect with {_needs(field.used)}."
    parts.append(f"--config.{name}={config_lib.text(field.default)}")
    for line in (field.help, rule[0].upper() + rule[1:]):
      parts.append(textwrap.fill(line, 76, **_INDENT))
  return "\n".join(parts)


def _holds(condition: Condition, fields: dict[str, Any]) -> bool:
  """Whether the fields have these values, or a search may choose them."""
  return all(
    fields[name] in values
    or (name == "task" and fields[name] not in _TASKS)
    or fields.get(f"search.space.{name}") is not None
    for name, values in condition.items()
  )
