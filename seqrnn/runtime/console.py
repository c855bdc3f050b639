"""The console of progress and tables."""

from rich.console import Console
from rich.table import Table


def console(**settings) -> Console:
  """Returns a console for stdout; in a notebook it prints plain lines.

  There, Rich would draw each line as a box of its own, or a progress bar with
  the codes of a terminal.
  """
  result = Console(highlight=False, **settings)
  if not result.is_jupyter:
    return result
  return Console(
    highlight=False, force_jupyter=False, force_terminal=False, **settings
  )


def print_titled(console: Console, title: str, table: Table):
  """Prints a table below its title, which Rich would wrap to its width."""
  console.print(
    title, style="italic", markup=False, highlight=False, soft_wrap=True
  )
  console.print(table)
