"""Conditions of fields: the values of others with which they have an effect."""

from seqrnn import catalogue
from seqrnn.config.field import Condition
from seqrnn.config.rules import Registered


def cells() -> list[str]:
  """Returns the names of all registered cells."""
  from seqrnn.models.cells import CELLS  # This imports JAX, so it is deferred.

  return sorted(CELLS)


def sources() -> list[str]:
  """Returns the names of all sources of data."""
  built_in = ("stdlib", "opcodes", "packages", "topics", "names", "chords")
  return [*built_in, "formal", "files", *catalogue.sets()]


def cells_with(attribute: str) -> list[str]:
  """Returns the names of the cells that have it: it is neither None nor False.

  Args:
    attribute: of a Cell.
  """
  from seqrnn.models.cells import CELLS

  values = {name: getattr(CELLS[name](1), attribute) for name in cells()}
  absent = (None, False)
  return [n for n, x in values.items() if not any(x is no for no in absent)]


def task(*names: str) -> Condition:
  return {"task": names}


def optimizer(*names: str) -> Condition:
  return {"optimizer.name": names}


# The project's tasks. Others may use any field.
TASKS = (
  *("classification", "gap_model", "language_model", "polyphony"),
  *("regression", "tagging"),
)
SYMBOLS = task(*(name for name in TASKS if name != "polyphony"))
SPLITS = SYMBOLS | {
  f"data.{split}_path": (None,) for split in ("train", "validation", "test")
}
TABLE: Condition = {"data.format": ("tab", "csv", "jsonl")}
COLUMNS: Condition = {"data.format": ("columns", "conllu")}
JSON: Condition = {"data.log_format": ("auto", "json")}
ONE_TARGET = task("classification", "regression")
LABELLED = task("classification", "regression", "tagging")
LAST_SYMBOL = task("language_model") | {"data.mapping": ("many_to_one",)}
FACTOR: Condition = {"schedule.name": ("exponential", "step", "plateau")}
FORGET_GATE: Condition = {
  "model.cell": Registered(lambda: cells_with("forget_place"))
}
HEADS: Condition = {
  "model.cell": Registered(lambda: cells_with("may_have_heads"))
}
BOTH_HEADS = task("gap_model") | {"model.heads": ("all",)}
SAMPLED = (task("language_model", "polyphony"), BOTH_HEADS)
SAMPLED_TEXT = (task("language_model"), BOTH_HEADS)
DETECTION = task("gap_model", "language_model")
NEXT_SYMBOL = task("language_model") | {"data.mapping": ("many_to_many",)}
STATES: Condition = {"embed.of": ("texts", "symbols")}
