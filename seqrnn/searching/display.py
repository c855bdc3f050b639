"""The trials of a search: on the terminal, in trials.csv and best.json."""

import csv
import sys
import time
from typing import Any

from optuna.trial import TrialState
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from seqrnn.runtime import files, manifest
from seqrnn.runtime.console import console
from seqrnn.searching.study import Search, rank

_ROWS = 12  # Of the table.
_STATES = {
  TrialState.COMPLETE: "finished",
  TrialState.PRUNED: "pruned",
  TrialState.FAIL: "failed",
  TrialState.RUNNING: "running",
  TrialState.WAITING: "waiting",
}


class Display:
  """A live table on a terminal; elsewhere lines when trials begin and end."""

  def __init__(self, search: Search):
    self._search = search
    self._console = console(file=sys.stdout, soft_wrap=True)
    self._live = Live(
      console=self._console,
      auto_refresh=False,
      transient=True,
      redirect_stdout=False,
      redirect_stderr=False,
    )
    self._printed = {
      (t.number, t.state) for t in search.trials() if t.state.is_finished()
    }

  def __enter__(self) -> "Display":
    if self._console.is_terminal:
      self._live.start()
    return self

  def __exit__(self, *_):
    self._live.stop()

  def show(self):
    """Updates the table, or prints the trials that have begun or finished."""
    if self._console.is_terminal:
      self._live.update(self.table(), refresh=True)
      return
    for trial in self._search.trials():
      # Another process may still choose the values of a trial.
      begun = len(trial.params) == len(self._search.space)
      key = trial.number, trial.state
      if (begun or trial.state.is_finished()) and key not in self._printed:
        self._printed.add(key)
        values = "  ".join(
          f"{name}={_short(value)}" for name, value in trial.params.items()
        )
        loss = "" if trial.value is None else f"  loss {trial.value:.4f}"
        state = _STATES[trial.state]
        self._console.print(
          f"trial {trial.number}  {state}{loss}  {values}", markup=False
        )

  def end(self):
    """Prints the table below the live one."""
    self._console.print(self.table())

  def table(self) -> Group:
    """The running trials and the best ones, below a line on all of them."""
    search, trials = self._search, self._search.trials()
    done = [trial for trial in trials if trial.state.is_finished()]
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    title = f"{search.workdir}: {len(done)} trials of at most {search.most()}"
    best = search.best()
    if best is not None:
      title += f", best loss {best.value:.4f} in trial {best.number}"
    seconds = [trial.user_attrs.get("seconds", 0) for trial in done]
    left = search.most() - len(done)
    if running and done:
      wait = left * sum(seconds) / len(done) / len(running)
      wait = min(wait, search.deadline - time.time())
      title += f", about {max(wait, 0) / 60:.0f} min left"
    # Four searched fields fit into 80 columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0))
    for name in ("trial", "state", "loss", "evaluations", *search.space):
      table.add_column(
        name.replace(".", ".\n"),
        justify="right",
        overflow="fold",
        min_width=9 if "." in name else None,
      )
    ranked = sorted(done, key=rank)[: max(_ROWS - len(running), 3)]
    for trial in running + ranked:
      reported = trial.intermediate_values
      loss = trial.value
      if loss is None and reported:
        loss = min(reported.values())
      table.add_row(
        str(trial.number),
        _STATES[trial.state],
        "" if loss is None else f"{loss:.4f}",
        str(len(reported)),
        *(_short(trial.params.get(name)) for name in search.space),
        style="bold" if best and trial.number == best.number else None,
      )
    # Rich would wrap a title to the width of the table.
    return Group(Text(title, "italic"), table)


def _short(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_results(search: Search):
  """Writes trials.csv and best.json."""
  with files.atomic_write(search.workdir / "trials.csv") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
      ["trial", "state", "loss", "evaluations", "symbols", "seconds"]
      + [*search.space, "error"]
    )
    for trial in search.trials():
      found = trial.user_attrs
      writer.writerow(
        [trial.number, _STATES[trial.state], trial.value]
        + [len(trial.intermediate_values), found.get("symbols")]
        + [found.get("seconds")]
        + [trial.params.get(name) for name in search.space]
        + [found.get("error")]
      )
  best = search.best()
  if best is not None:
    path = search.folder(best.number) / "config.json"
    manifest.verify(path)
    config = path.read_bytes()
    with files.atomic_write(search.workdir / "best.json", "wb") as file:
      file.write(config)
