"""Trains recurrent networks on sequences of symbols, and uses them.

  python run.py --config=configs/brnn.py
  python run.py --config=configs/rnn.py --config.model.hidden_size=256
  python run.py --workdir=runs/rnn --mode=sample --config.sample.temperature=0.5

Every field of configs/base.py is a flag, --config.GROUP.FIELD=VALUE, in any
order on the line.
"""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
  from ml_collections import ConfigDict

# mode -> the module of seqrnn that does it, imported when it is asked for
MODES = {
  "train": "seqrnn.train",
  "evaluate": "seqrnn.evaluate",
  "predict": "seqrnn.predict",
  "sample": "seqrnn.sample",
}

_CONFIG = flags.DEFINE_string(
  "config", None, "A config: a .py file with get_config(), or JSON."
)
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Where the run's files are. Default: runs/ and the name of the config, with"
  " the fields that flags changed. Alone, it stands for the run's own config.",
)


def main(argv: list[str]) -> int:
  """Does one mode; the exit status."""
  overrides, argv = split(argv)
  if {"--help", "--helpshort", "-h", "-help"} & set(argv):
    print(__doc__)
    print(flags.FLAGS.main_module_help())
    return 0
  from seqrnn.errors import Interrupted, UserError

  try:
    unparsed = flags.FLAGS(argv)[1:]
    if unparsed:
      raise UserError(f"{unparsed[0]!r}: not a flag; flags begin with --")
    config, workdir = resolve(overrides)
    experiments = importlib.import_module("experiments")
    mode = importlib.import_module(MODES[_MODE.value])
    mode.run(experiments.build, config, workdir)
  except (UserError, flags.Error) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except Interrupted as stop:
    print(stop, file=sys.stderr)
    return stop.status
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    return 130
  return 0


def split(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
  """The overrides --config.x=v on the line, as (x, v), and what is left."""
  overrides, rest = [], []
  for argument in argv:
    name, equals, value = argument.partition("=")
    if name.startswith("--config."):
      overrides.append((name.removeprefix("--config."), value or "true"))
    elif name.startswith("--noconfig.") and not equals:
      overrides.append((name.removeprefix("--noconfig."), "false"))
    else:
      rest.append(argument)
  return overrides, rest


def resolve(overrides: list[tuple[str, str]]) -> tuple[ConfigDict, Path]:
  """The config and the workdir that the flags mean."""
  from configs import base
  from seqrnn import config as configs
  from seqrnn.errors import UserError

  defaults = base.get_config()
  if _CONFIG.value is None and _WORKDIR.value is None:
    raise UserError("--config: name one, as in --config=configs/brnn.py")
  config = workdir = None
  if _CONFIG.value is not None:
    config = configs.read(_CONFIG.value, defaults)
    name = Path(_CONFIG.value).stem
    workdir = Path("runs") / configs.run_name(name, config, overrides)
  if _WORKDIR.value is not None:
    workdir = Path(_WORKDIR.value)
  own = workdir / "config.json"
  trained = None
  if config is None or _MODE.value != "train":
    # What was trained is used as it was trained.
    if not own.exists():
      raise UserError(f"{workdir}: no run there; train it first")
    trained = configs.read(own, defaults)
    config = copy.deepcopy(trained)
  for field, text in overrides:
    configs.override(config, defaults, field, text)
  configs.check(config)
  if trained is not None and _MODE.value != "train":
    configs.refuse_other_model(trained, config, workdir)
  return config, workdir


if __name__ == "__main__":
  sys.exit(main(sys.argv))
