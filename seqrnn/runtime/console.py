"""The console of progress and tables."""

from typing import Any

from rich.console import Console


def console(**settings: Any) -> Console:
  """Returns a console for stdout; in a notebook it prints plain lines.

  There, Rich would draw each line as a box of its own, or a progress bar with
  the codes of a terminal.
  """
  found = Console(highlight=False, **settings)
  if not found.is_jupyter:
    return found
  return Console(
    highlight=False, force_jupyter=False, force_terminal=False, **settings
  )
