"""What a user probably meant by a name that does not exist."""

import difflib
from collections.abc import Collection, Iterable

# Names that other programs and papers use -> the field of this project.
ALIASES = {
  "batch": "train.batch_size",
  "bptt": "data.window",
  "clip": "optimizer.clip_norm",
  "corpus": "data.path",
  "embedding_dim": "model.embedding_size",
  "hidden_dim": "model.hidden_size",
  "lr": "optimizer.learning_rate",
  "max_iters": "train.max_steps",
  "num_epochs": "train.epochs",
  "num_layers": "model.layers",
  "optim": "optimizer.name",
  "prompt": "sample.prime",
  "rnn_size": "model.hidden_size",
  "rnn_type": "model.cell",
  "seq_len": "data.window",
  "sequence_length": "data.window",
  "steps": "train.max_steps",
  "units": "model.hidden_size",
  "val_split": "data.validation_fraction",
}
_OF_DATA = ("data.", "model.", "optimizer.", "schedule.", "train.")
# Groups that a mode of a trained run reads.
_OF_MODES = ("evaluate", "predict", "sample", "embed", "detect", "report")


def near(wrong: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
  """Returns the name that is most like a wrong one; None: none is like it."""
  folded = {name.lower(): name for name in names}
  found = difflib.get_close_matches(wrong.lower(), folded, 1, cutoff)
  return folded[found[0]] if found else None


def hint(wrong: str, names: Iterable[str]) -> str:
  """Returns the end of a message that suggests a name; empty: none is near."""
  found = near(wrong, names)
  return f"; did you mean {found}?" if found else ""


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
    if group in _OF_MODES:  # Training's own fields are less likely.
      same.sort(key=lambda field: field.startswith(_OF_DATA))
    return [f"{group}.{meant}"] if f"{group}.{meant}" in same else same
  return [ALIASES[meant]] if meant in aliases else []
