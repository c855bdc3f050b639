"""Suggestions for a name that does not exist."""

import difflib
from collections.abc import Collection, Iterable

# A field of this project, and its names in other programs and papers.
_ELSEWHERE = {
  "checkpoint.every": "save_every",
  "data.path": "corpus",
  "data.validation_fraction": "val_split",
  "data.window": "bptt seq_len sequence_length",
  "model.cell": "model rnn_type",
  "model.embedding_size": "embedding_dim",
  "model.hidden_size": "hidden_dim rnn_size units",
  "model.layers": "num_layers",
  "optimizer.clip_norm": "clip",
  "optimizer.learning_rate": "lr",
  "optimizer.name": "optim",
  "sample.prime": "prompt",
  "train.batch_size": "batch",
  "train.epochs": "num_epochs",
  "train.max_steps": "max_iters steps",
}
ALIASES = {
  x: field for field, names in _ELSEWHERE.items() for x in names.split()
}


def near(wrong: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
  """Returns the name that is most like a wrong one; None: none is like it."""
  folded = {name.lower(): name for name in names}
  matches = difflib.get_close_matches(wrong.lower(), folded, 1, cutoff)
  return folded[matches[0]] if matches else None


def question(names: Collection[str]) -> str:
  """Returns the end of a message that suggests these names, if any."""
  return f"; did you mean {' or '.join(names)}?" if names else ""


def hint(wrong: str, names: Iterable[str]) -> str:
  """Returns the end of a message that suggests a name; empty: none is near."""
  name = near(wrong, names)
  return question([name] if name else [])


def with_last_part(name: str, fields: Iterable[str]) -> list[str]:
  """Returns the fields whose last part is this name."""
  return [field for field in fields if field.rpartition(".")[2] == name]


def fields(wrong: str, known: Collection[str]) -> list[str]:
  """Returns the fields that a name of no field may mean.

  The last part counts: users know the name of a setting, not its group.
  """
  wrong = wrong.lower().replace("-", "_")
  if wrong in known:  # It differs by case only.
    return [wrong]
  group, _, last = wrong.rpartition(".")
  parts = {name.rpartition(".")[2] for name in known}
  aliases = {name for name, field in ALIASES.items() if field in known}
  meant = last if last in parts | aliases else near(last, parts | aliases, 0.75)
  if meant in parts:
    same = with_last_part(meant, known)
    return [f"{group}.{meant}"] if f"{group}.{meant}" in same else same
  return [ALIASES[meant]] if meant in aliases else []
