"""The members that autodoc leaves out, and its additions to cells."""

from typing import Any

from flax import linen as nn
from sphinx.application import Sphinx

from seqrnn.models.cells import CELLS


def skip(_app, _what, _name, member: Any, *_) -> bool | None:
  """Skips fields, which the docstrings of their classes explain."""
  field = type(member).__name__ == "_tuplegetter"
  foreign = str(getattr(member, "__module__", "")).startswith("jax")
  return True if field or foreign else None


def signature(_app, _what, _name, member: Any, *_) -> tuple[str, None] | None:
  """Leaves out the signature of modules: all fields of all their parents."""
  module = isinstance(member, type) and issubclass(member, nn.Module)
  return ("", None) if module else None


def names(_app, _what, _name, member: Any, _options, lines: list[str]):
  """Adds to a cell the names that it is registered with, and its formula."""
  names = [name for name, cell in CELLS.items() if cell.func is member]
  if names:
    sizes = {name: CELLS[name](hidden_size=1).formula for name in names}
    listed = "; ".join(f"``{name}``, {size}" for name, size in sizes.items())
    heads = " with one head" if member.may_have_heads else ""
    line = f"``model.cell``, and the parameters of a layer{heads}: {listed}."
    lines[1:1] = ["", line]


def setup(app: Sphinx):
  app.connect("autodoc-skip-member", skip)
  app.connect("autodoc-process-signature", signature)
  app.connect("autodoc-process-docstring", names)
  return {"parallel_read_safe": True, "parallel_write_safe": True}
