"""Makes pages of the reference from the code: python -m docs.fields.

docs/reference/fields.md is made from seqrnn/config/fields/, and
docs/reference/command.md from the flags and the modes. A test compares them.
"""

import argparse
import re
import textwrap
from itertools import groupby
from pathlib import Path

from seqrnn import cli, usage
from seqrnn.config import command
from seqrnn.config import read as config_lib
from seqrnn.config.field import Field
from seqrnn.configs import base

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
_ABSL = ("?", "help", "helpshort", "helpfull", "helpxml")
HEAD = """\
---
tocdepth: 2
---

# Fields

All settings are fields of a config. This page is made from
[seqrnn/config/fields/](../../seqrnn/config/fields), the only place where a
field is declared; `python run.py --help=data` prints the part on a group,
`--help=all` everything. A flag sets a field: `--config.data.window=100`. A
field whose default is `none` may be empty, and the value `none` empties it
again.

B is the number of rows of a batch, T the length of a window in symbols, V the
size of the vocabulary.
"""
ABOUT = {
  "data": "The input, and how it is cut.",
  "model": "The network.",
  "optimizer": "How parameters change.",
  "schedule": "The learning rate by step.",
  "train": "Batches, limits and evaluations of a training.",
  "checkpoint": "The checkpoints that are stored, and the one that is read.",
  "evaluate": "`--mode=evaluate`.",
  "predict": "`--mode=predict`.",
  "sample": "`--mode=sample`.",
  "embed": "`--mode=embed`.",
  "detect": "`--mode=detect`, `--follow`, `--mode=review`, `--mode=refresh`.",
  "export": "`--mode=export`.",
  "search": "`--mode=search`.",
}


def group(name: str) -> str:
  """The group of a field; "" if it has none."""
  return name.rpartition(".")[0]


def plain(text: str) -> str:
  """Escapes what Markdown would not show as it is; marks names of fields."""
  text = re.sub(r"([<*\[$|\\])", r"\\\1", text)
  text = re.sub(r"\bdocs/(\S+\.md)", r"[docs/\1](../\1)", text)
  return re.sub(
    r"\b[a-z]+\.\w+\b",
    lambda match: f"`{match[0]}`" if match[0] in base.FIELDS else match[0],
    text,
  )


def meaning(help: str) -> str:
  """A help text; its values, as in "text. a: this. b: that.", are a list."""
  listed = r"[a-z0-9_-]+(?:, [a-z0-9_-]+)*"
  first, *values = re.split(rf"(?:^|(?<=\. ))({listed}): ", help)
  lines = [wrapped(plain(first))] if first else []
  items = []
  for names, about in zip(values[::2], values[1::2], strict=True):
    marked = ", ".join(f"`{name}`" for name in names.split(", "))
    items.append(wrapped(f"- {marked}: {plain(about.strip())}", "  "))
  return "\n\n".join([*lines, *(["\n".join(items)] if items else [])])


def wrapped(text: str, indent: str = "") -> str:
  return textwrap.fill(
    text,
    80,
    subsequent_indent=indent,
    break_on_hyphens=False,
    break_long_words=False,
  )


def section(name: str, field: Field) -> str:
  """A field: its meaning, default, rule and conditions."""
  default = config_lib.text(field.default)
  rule = field.rule_text
  facts = f"Default: `{default}`. {plain(rule[0].upper() + rule[1:])}."
  if field.used:
    facts += f" Has an effect with {plain(command.needs(field.used))}."
  parts = (f"### {name}", meaning(field.help), wrapped(facts))
  return "\n\n".join(parts)


def fields_page() -> str:
  """The content of fields.md."""
  parts = [HEAD.strip()]
  for name, names in groupby(base.FIELDS, group):
    parts += [f"## {name}", ABOUT[name]] if name else ["## The run"]
    parts += [section(one, base.FIELDS[one]) for one in names]
  return "\n\n".join(parts) + "\n"


COMMAND = """\
# Command line

```text
seqrnn --config=CONFIG --mode=MODE --config.GROUP.FIELD=VALUE
```

In a clone, `python run.py` is the same as `seqrnn`. Flags may be in any order;
of two flags for one field the last one counts.
`--config` names a config: `brnn` is a file of [configs/](../../configs), in the
current folder or in the project; a path is one of your own, with or without
`.py`, or a `config.json` of a run. `--config=mine.py:ARGUMENT` calls
`get_config(ARGUMENT)` of the file, as in ml_collections. Any
[field](fields.md) is a flag, as `--config.model.hidden_size=256`;
`--noconfig.data.stateful` is `--config.data.stateful=false`. A flag that may be
repeated, as `--config.search.space`, replaces all values of the config. With
`--workdir` and no `--config`, the config is
that of the run in this folder. Without `--workdir`, the folder is `runs/` and
the name of the config, with the fields of the training that flags changed, as
`runs/rnn-hidden_size=256`. A field is named with its group if another field of
a training has the same name, as `runs/rnn-optimizer.name=sgd`; fields of other
modes do not count, so `data.path` is `path`.

A relative path is one from the current folder. If a run names it and it is not
there, it is looked for in the folder where the training was started.

`--help` lists modes, configs and flags, `--help=model` the fields of a group.
With `--config` or `--workdir`, the values are those of the config that is
named. `--mode=config` prints the resolved config, which `--config` reads, and
on stderr the fields that differ from the defaults. `--version` prints what a
bug report needs. Choices may be written in any case.

A mistake of yours ends with one line on stderr and status 2: the flag or file,
its value and the rule. A run that Ctrl-C or SIGTERM stops saves a checkpoint
and ends with status 130 or 143.
"""


def command_page() -> str:
  """The content of command.md."""
  rows = ["| mode | purpose |", "| --- | --- |"]
  for mode, line in usage.mode_lines().items():
    writes = mode not in ("check", "config", "review", "refresh")
    link = f"[{mode}](files.md#{mode})" if writes else mode
    rows.append(f"| {link} | {line} |")
  flags = ["| flag | meaning |", "| --- | --- |"]
  defined = cli.define_flags()
  for name in defined:
    flag = defined[name]
    if not (name in _ABSL or name.startswith("config.")):
      about = re.sub(r"^<.*?>: ", "", " ".join(flag.help.split()))
      flags.append(f"| `--{name}` | {plain(about)} |")
  parts = [COMMAND.strip(), "## Modes", "\n".join(rows), "## Flags"]
  return "\n\n".join([*parts, "\n".join(flags)]) + "\n"


def main():
  """Writes both pages."""
  argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
  pages = {"fields.md": fields_page(), "command.md": command_page()}
  for name, content in pages.items():
    (REFERENCE / name).write_text(content, "utf-8")
    print(REFERENCE / name)


if __name__ == "__main__":
  main()
