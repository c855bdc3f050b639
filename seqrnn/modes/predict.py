"""predict: the most likely symbols or labels, numbers, gaps filled."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from seqrnn.config.combinations import require
from seqrnn.config.read import Config
from seqrnn.data.read import reading
from seqrnn.data.sources.corpora import from_text
from seqrnn.data.splits import Pieces, continued, from_documents
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import shortened
from seqrnn.experiment import Build, Experiment, Params
from seqrnn.modes import load_model, read_user_files
from seqrnn.runtime import files
from seqrnn.sampling import infill
from seqrnn.sampling.texts import report_unknown
from seqrnn.scoring.predictions import (
  SHOWN,
  Prediction,
  console_text,
  likely,
  number_text,
  predictions,
  quoted,
)

_LENGTH = 60  # Characters of a text in a table, at most.


def _show(console: Console, names: Vocabulary, one: Prediction, limit: int):
  """Prints a sequence as a table of its first targets."""
  console.print(f"[bold]{console_text(one.text(names.unit))}[/bold]")
  table = Table("position", "truth", "probability", "bits", "most likely")
  for n in range(min(limit, len(one.targets))):
    truth, chance = "?", ("", "")
    if one.truth[n]:
      truth, surprisal = quoted(one.truth[n]), one.surprisal[n]
      chance = f"{math.exp(-surprisal):.4f}", f"{surprisal / math.log(2):.2f}"
    table.add_row(str(one.positions[n]), truth, *chance, likely(one, n))
  console.print(table)
  if len(one.targets) > limit:
    console.print(f"... {len(one.targets) - limit} more in predictions.csv")


def _answer_table(unit: str, rows: list[Prediction], settings: Config) -> Table:
  """A table of labels or numbers, each beside its input and the truth."""
  labels = any(p.likely for p in rows)
  title = "labels by probability" if labels else "prediction"
  table = Table("input", "truth", title)
  for p in rows[: settings.sequences]:
    for n in range(min(SHOWN, len(p.targets))):
      answer = likely(p, n) if labels else number_text(p.numbers[n])
      truth = quoted(p.truth[n]) if p.truth[n] else "?"
      source = console_text(shortened(p.source(unit, n), _LENGTH))
      table.add_row(source, truth, answer)
    table.add_section()
  left = sum(len(p.targets) for p in rows) - table.row_count
  if left:
    table.caption = f"... {left:,} more in predictions.csv"
  return table


def _table(
  experiment: Experiment, rows: list[Prediction], of_texts: list[dict[str, str]]
) -> Iterator[Sequence[int | str]]:
  """Yields predictions.csv: a row a target, of a text or of a row of a batch.

  Where targets are labels or numbers, a row has the input of the target, too.
  Truth and surprisal are empty where no truth is known. A label that training
  has not seen has a surprisal of inf. Of several numbers a target, each has
  columns of its own. The columns of the user's table, a row a text, follow.
  """
  unit, names = experiment.vocabularies["symbols"].unit, experiment.names
  several = max((p.ids.shape[1] + p.numbers.shape[1] for p in rows), default=0)
  answers = [f"_{k}" for k in range(1, 1 + several)]
  if names is None:
    answers = answers if several > 1 else [""]
    head = [f"{part}{k}" for k in answers for part in ("truth", "prediction")]
  else:
    parts = ("symbol" if experiment.in_bits else "label", "probability")
    head = ["truth", "surprisal_nats"]
    head += [f"{part}{k}" for k in answers for part in parts]
  source = [] if experiment.in_bits else ["input"]
  head = ["sequence", "position", *source, *head]
  columns = dict.fromkeys(itertools.chain.from_iterable(of_texts))
  yield head + [f"input_{name}" if name in head else name for name in columns]
  for number, p in enumerate(rows):
    sequence = number if experiment.labels is None else p.document
    row = of_texts[p.document] if of_texts else {}
    others = [row.get(name) or "" for name in columns]
    for n, place in enumerate(p.positions):
      if source:
        source = [p.source(unit, n)]
      cells = [*source, *_cells(p, n), *others]
      # Readers of csv may end a text at a NUL.
      yield [sequence, place, *(x.replace("\0", r"\x00") for x in cells)]


def _cells(p: Prediction, n: int) -> list[str]:
  """The truth of a target, and the numbers or the most likely names."""
  if not p.likely:
    pairs = zip(np.ravel(p.targets[n]), p.numbers[n], strict=True)
    return [x for a, b in pairs for x in (number_text(a), f"{b:.6g}")]
  cells = [p.truth[n], f"{p.surprisal[n]:.6g}" if p.truth[n] else ""]
  for name, chance in zip(p.likely[n], p.probabilities[n], strict=True):
    cells += [name, f"{chance:.6g}"]
  return cells


def _asked(experiment: Experiment, config: Config) -> Pieces | None:
  """The texts of the user, with an open question at the end; None: a split.

  Raises:
    UserError: they cannot be read, or are empty.
  """
  settings, data = config.predict, config.data
  if settings.text is not None:
    unit = experiment.vocabularies["symbols"].unit
    documents = from_text(settings.text, unit, data)
    require(config, documents, "has no symbol", "predict.text")
    pieces = from_documents(documents, data.unit)
  elif settings.path is not None:
    field = "config.predict.path"
    pieces = read_user_files(field, settings.path, experiment, config)
  else:
    return None
  is_open = experiment.in_bits and not experiment.fills_gaps
  return continued(pieces) if is_open else pieces


def _table_rows(experiment: Experiment, config: Config) -> list[dict[str, str]]:
  """The rows of the csv that the user names, one a text; else none."""
  settings, data = config.predict, config.data
  if settings.path is None or settings.text is not None:
    return []
  if not experiment.by_text or data.format != "csv":
    return []
  sources = reading.files("config.predict.path", settings.path)
  return [row for s in sources for _, row in reading.rows(s, data.errors)]


def _fill(
  experiment: Experiment, params: Params, config: Config, workdir: Path
) -> list[infill.Filling]:
  """Fills the gaps of `predict.text`; prints and writes the best fillings."""
  question, unknown = infill.parse_gaps(experiment, config)
  report_unknown(unknown, "text")
  fillings = infill.fill_gaps(experiment, params, question, config)
  numbers = range(1, 1 + len(question.gaps))
  log_p = "pseudo log p" if experiment.fills_gaps else "log p"
  table = Table(log_p, "probability", *(f"gap {k}" for k in numbers))
  head = "filling", "score_nats", "probability", *(f"gap_{k}" for k in numbers)
  rows: list[list[int | str]] = [[*head, "text"]]
  for number, (text, gaps, score, chance) in enumerate(fillings):
    shown = "" if chance is None else f"{chance:.3f}"
    texts = [quoted(gap.replace("\n", "\\n")) for gap in gaps]
    table.add_row(f"{score:.2f}", shown, *texts)
    cells = f"{score:.6g}", "" if chance is None else f"{chance:.6g}"
    texts = [one.replace("\0", r"\x00") for one in (*gaps, text)]
    rows.append([number, *cells, *texts])
  console = Console(highlight=False)
  console.print(f"filled: [bold]{console_text(fillings[0].text)}[/bold]")
  console.print(table)
  files.write_csv(workdir / "predictions.csv", rows)
  return fillings


def run(
  build: Build, config: Config, workdir: Path
) -> list[Prediction] | list[infill.Filling]:
  """Predicts, or fills gaps; prints tables and writes predictions.csv.

  Raises:
    UserError: the task cannot predict, or fill the gaps; or the text is empty.
  """
  settings = config.predict
  experiment, params, _ = load_model(build, config, workdir, "predict")
  symbols = experiment.vocabularies["symbols"]
  console = Console(highlight=False)
  with files.write_errors(workdir):  # An error leaves no older answers.
    (workdir / "predictions.csv").unlink(missing_ok=True)
  if infill.is_asked(experiment, config):
    return _fill(experiment, params, config, workdir)
  asked = _asked(experiment, config)
  every = predictions(
    experiment, params, asked or settings.split, settings.top_k
  )
  rows = list(itertools.islice(every, None if asked else settings.sequences))
  if asked is not None:
    # Of data.format=spaces, the corpus has the white space, but no text does.
    names = [asked.corpus.symbols[i] for i in np.flatnonzero(asked.counts())]
    unknown = [name for name in symbols.unknown(names) if name]
    report_unknown(unknown, settings.path or "text")
  if experiment.present is not None:
    console.print(experiment.present(rows))
  elif experiment.in_bits:
    for prediction in rows[: settings.sequences]:
      _show(console, symbols, prediction, SHOWN)
    if left := len(rows[settings.sequences :]):
      console.print(f"... {left:,} more sequences in predictions.csv")
  else:
    console.print(_answer_table(symbols.unit, rows, settings))
  table = _table(experiment, rows, _table_rows(experiment, config))
  files.write_csv(workdir / "predictions.csv", table)
  return rows
