"""refresh: makes the next model of a detector, since its log has changed.

The next model is a run in refresh/ of the workdir. Until refresh.json names it,
which is one step, the model before decides (runtime/generations.py).
"""

import re
import shutil
from pathlib import Path

import numpy as np

from seqrnn.config import derived
from seqrnn.config.combinations import require
from seqrnn.config.read import Config, read_run
from seqrnn.data.logs import formats, log_corpus
from seqrnn.data.logs.secrets import Redaction
from seqrnn.data.logs.sessions import Sessions, read_sessions
from seqrnn.data.vocabulary import UNKNOWN
from seqrnn.errors import MachineError, UserError, counted, visible
from seqrnn.experiment import Build
from seqrnn.logs import changes
from seqrnn.logs.detect import answers, deployed
from seqrnn.logs.detect.findings import Findings
from seqrnn.logs.detect.normal import NORMAL
from seqrnn.logs.follow import feedback
from seqrnn.logs.refresh import kept, selection
from seqrnn.logs.refresh.selection import Selection
from seqrnn.modes import detect, review
from seqrnn.runtime import files, generations
from seqrnn.training import train

_MOST = 3  # Rates of new alarms in the last day.
_DAY = 86400.0
_NAMED = 10  # Sessions that are printed.
_FEW = 20  # Sessions whose median time is the begin, or the end.
_LOGS = "log", "since", "train"  # Folders of copies, removed in the end.


def run(build: Build, config: Config, workdir: Path) -> Path:
  """Makes the next model and puts it in place, or says why there is none.

  Returns:
    the folder of the model that is in place.

  Raises:
    UserError: the log cannot be read, another refresh runs, or the next model
      would flag too many sessions; the model before stays.
  """
  before, workdir = workdir, generations.workdir_of(workdir)
  with files.locked(workdir / ".refresh.lock", "refreshed"):
    known = generations.read(workdir)
    if before != generations.folder_of(workdir, known.current):
      raise UserError(f"{workdir}: was refreshed meanwhile")
    if config.detect.refresh == 0:
      number = max(
        (n for n in (0, *known.kept) if n < known.current), default=-1
      )
      rule, why = f"{workdir} has no model before", ""
      require(config, number >= 0, rule, "detect.refresh")
    else:
      generations.remove_others(workdir, known.kept)
      number = known.new
    folder = generations.folder_of(workdir, number)
    try:
      if number == known.new:
        with files.write_errors(folder):
          for name in _LOGS:
            (folder / name).mkdir(parents=True)
        why = _make(build, config, before, folder)
        for name in _LOGS:
          shutil.rmtree(folder / name)
      if not why:
        generations.use(workdir, known, number)
    except MachineError:
      raise
    except UserError as error:  # About a copy of the log, perhaps.
      copy = rf"{re.escape(str(folder))}/\w+/[^/]*?\.gz"
      log = lambda _: _log(config, before)
      raise type(error)(re.sub(copy, log, str(error))) from None
    finally:
      generations.remove_others(workdir, generations.read(workdir).kept)
  if why:
    print(visible(f"{before}: stays: {why}"))
    return before
  back = "; --config.detect.refresh=0 goes back" if number else ""
  print(f"{folder}: is in place{back}")
  return folder


def _make(build: Build, config: Config, before: Path, folder: Path) -> str:
  """Makes the next model in a folder; returns why there is none, or ""."""
  own, log = read_run(before).detect, _log(config, before)
  rate = config.detect.rate
  config = review.as_detected(config, before)
  config.detect.input = own.input  # A follower may read standard input.
  if rate != own.rate:  # A flag sets it.
    config.detect.rate = rate
  why = "--mode=refresh reads the lines of a log"
  require(config, config.data.unit == "log", why, "data.unit")
  # Messages and sessions without a name have this name and lines of the log.
  copies = (folder / name / f"{Path(log).name}.gz" for name in _LOGS)
  whole, since_log, train_log = copies
  selection.copy_log(Path(log), whole)
  model = deployed.restore(build, config, before)
  names = model.detector.names
  sessions = read_sessions(config, names, str(whole), log)
  recent = _recent(config.detect.refresh, sessions, model)
  if isinstance(recent, str):
    return recent
  some = sessions.take(np.flatnonzero(recent))
  since, end = span = _span(some)
  if np.isnan(since):
    return "the log has no session there"
  splits = kept.open_splits(config, before, model.detector.experiment)
  reviewed = answers.load_answers(before, names, splits.read, config)
  kinds = feedback.record_kinds(config, before)
  answered, _, _ = feedback.with_kinds(kinds, reviewed, names)
  answer_J = answered.of(some)
  by_person = [
    feedback.new_events(kinds, reviewed.by_kind, word)
    for word in ("normal", "anomalous")
  ]
  chosen = selection.select(model, some, answer_J, *by_person)
  shares = config.data.validation_fraction, config.detect.contamination
  count = int(chosen.trains.sum() * (1 - shares[0]) * (1 - shares[1]))
  since_text = formats.in_words(since)
  line = (
    f"since {since_text}: {counted(len(some.names), 'session')}, without the"
    f" {np.sum(~chosen.trains):,} that are flagged or called anomalous"
  )
  masks = Redaction(config.detect.redact)
  both = ("last", chosen.accepted), ("do not last", chosen.passing)
  for words, events in both:
    if shown := "; ".join(map(masks.text, [*events][:_NAMED])):
      line += f"; new events that {words}: {shown}"
  print(visible(line))
  if why := deployed.lacking(config.detect.rate, count, span):
    return f"since {since_text}, detect.rate={config.detect.rate:g} {why}"
  wanted = recent.copy()
  selection.copy_lines(whole, since_log, sessions, wanted)
  wanted[recent] = chosen.trains
  selection.copy_lines(whole, train_log, sessions, wanted)
  # A warm start from a model that has seen the sessions would judge them.
  # Without any event that it knows, there is nothing to take.
  is_start = since > model.span[1] and (some.ids != UNKNOWN).any()
  start = str(before) if is_start else None
  train.fit(build, derived.refreshed(config, str(train_log), start), folder)
  normal = [some.names[j] for j in np.flatnonzero(answer_J == NORMAL).tolist()]
  _carry_answers(config, before, folder, normal)
  own = derived.refreshed(read_run(folder), str(train_log), start)
  own.detect.update(path=str(since_log), input=log)
  findings = detect.run(build, own, folder)
  assert findings is not None
  return _compare(config, some, chosen, findings, end)


def _log(config: Config, before: Path) -> str:
  """The log that is read, as a field names it."""
  first = read_run(generations.workdir_of(before))
  if (log := config.detect.input or first.data.path) is None:
    raise UserError("config.detect.input=None: must name the log")
  return log


def _begins(sessions: Sessions) -> np.ndarray:
  """The time at which each session begins; NaN: unknown."""
  if sessions.seconds is None:
    raise UserError("--mode=refresh: the log has no times")
  return sessions.seconds[sessions.bounds[:-1]]


def _span(sessions: Sessions) -> tuple[float, float]:
  """The first and the last time, whatever single clocks have leapt."""
  begin_J = _begins(sessions)
  known = begin_J[np.isfinite(begin_J)]
  if not len(known):
    return np.nan, np.nan
  return float(np.median(known[:_FEW])), float(np.median(known[-_FEW:]))


def _recent(
  days: float | None, sessions: Sessions, model: deployed.Deployed
) -> np.ndarray | str:
  """Whether each session is of the part that is learned; or why none is."""
  begin_J = _begins(sessions)
  if days is not None:
    return begin_J > _span(sessions)[1] - days * _DAY
  # The model before was made for the version before.
  places = np.flatnonzero(~(begin_J < model.span[0]))
  found = changes.find_changes(sessions.take(places), model.detector.names, "")
  if not found:
    return (
      "the log has no lasting change; --config.detect.refresh=7 learns its last"
      " seven days"
    )
  return np.arange(len(begin_J)) >= places[found[0].session]


def _carry_answers(
  config: Config, before: Path, folder: Path, normal: list[str]
):
  """Writes the answers that the next model has, too.

  Args:
    config: of the run.
    before: the folder of the model before.
    folder: of the next model.
    normal: the names of the sessions that a person calls normal.
  """
  masks, form = Redaction(config.detect.redact), log_corpus.form(config.data)
  rows = answers.load_rows(before, config.data.errors)
  carried = [row for (kind, _), (_, row) in rows.items() if kind]
  if form.names_sessions:
    carried += [
      {"kind": "", "session": masks.name(name), "answer": "normal"}
      for name in normal
    ]
  if carried:
    answers.write_rows(folder, carried)
  if (examples := before / feedback.EXAMPLES).exists():
    shutil.copyfile(examples, folder / feedback.EXAMPLES)


def _compare(
  config: Config,
  sessions: Sessions,
  chosen: Selection,
  findings: Findings,
  end: float,
) -> str:
  """Prints the sessions that the models judge differently.

  Returns:
    why the next model is refused; "": it is not.
  """
  flags = findings.decision.flags[findings.distinct.which]
  flagged = {*np.array(findings.sessions.names, object)[flags]}
  masks = Redaction(config.detect.redact)
  names = [masks.name(name) for name in sessions.names]
  now = np.array([name in flagged for name in names], bool)
  for words, alone in (
    ("the model before alone", chosen.flagged & ~now),
    ("the new model alone", now & ~chosen.flagged),
  ):
    which = np.flatnonzero(alone)
    shown = ", ".join(names[j] for j in which[:_NAMED].tolist())
    print(visible(f"flagged by {words}: {len(which):,} {shown}".rstrip()))
  last = (_begins(sessions) > end - _DAY) & chosen.trains
  count, most = int((now & last).sum()), _MOST * config.detect.rate * last.sum()
  if count > max(most, 2):
    return (
      f"the new one would flag {count:,} of the {last.sum():,} sessions of the"
      f" last day that it has learned, more than {_MOST} times detect.rate"
    )
  return ""
