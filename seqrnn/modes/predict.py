"""predict: the most likely symbols or labels, numbers, gaps filled."""

import csv
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from seqrnn.config.read import Config
from seqrnn.data import splits, vocabulary
from seqrnn.data.documents import Document
from seqrnn.data.sources.corpora import from_text, read_files
from seqrnn.data.splits import Pieces
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment, Params, require, shapes
from seqrnn.runtime import files, fileset
from seqrnn.runtime.checkpoint import restore_params
from seqrnn.runtime.console import print_titled
from seqrnn.sampling import infill
from seqrnn.sampling.primes import report_unknown
from seqrnn.scoring.predictions import (
  OPEN_GAP,
  Prediction,
  console_text,
  fill,
  likely,
  number_text,
  predictions,
  quoted,
  shortened,
)

_CONTEXT = 24  # Symbols shown on each side of a surprising one.
_SURPRISING = 10  # How many of them.


def _ask(documents: list[Document], gap: str | None) -> list[Document]:
  """Documents with the questions in them.

  Args:
    documents: of the user.
    gap: the symbol in place of which each question stands; None: the question
      is what comes at the end.
  """

  def ask(tokens: str | list[str]) -> list[str]:
    if gap is None:
      return [*tokens, OPEN_GAP]
    if isinstance(tokens, list):
      return [OPEN_GAP if token == gap else token for token in tokens]
    parts = tokens.split(gap)
    return [symbol for part in parts for symbol in (OPEN_GAP, *part)][1:]

  return [
    document._replace(symbols=ask(document.symbols), ends=gap is not None)
    for document in documents
  ]


def _warn_unknown(symbols: Vocabulary, asked: Pieces, where: str):
  """Warns on stderr of symbols that the vocabulary lacks, each once."""
  # Of data.format=spaces, the corpus has the white space, but no text does.
  read = [asked.corpus.symbols[i] for i in np.flatnonzero(asked.counts())]
  found = symbols.unknown(read)
  report_unknown([one for one in found if one != OPEN_GAP], where)


def _show(console: Console, names: Vocabulary, found: Prediction, limit: int):
  """Prints a sequence as a table of its first targets."""
  console.print(f"[bold]{console_text(found.text(names.unit))}[/bold]")
  table = Table("position", "truth", "probability", "bits", "most likely")
  for n in range(min(limit, len(found.targets))):
    truth, chance = "?", ("", "")
    if found.truth[n]:
      truth, surprisal = quoted(found.truth[n]), found.surprisal[n]
      chance = f"{math.exp(-surprisal):.4f}", f"{surprisal / math.log(2):.2f}"
    place = str(found.positions[n])
    table.add_row(place, truth, *chance, likely(found, n))
  console.print(table)
  if len(found.targets) > limit:
    console.print(f"... {len(found.targets) - limit} more in predictions.csv")


def _show_surprising(
  console: Console, names: Vocabulary, found: list[Prediction], fills_gaps: bool
):
  """Prints the most surprising symbols of a text, in context."""
  known = [
    (float(p.surprisal[n]), p, n)
    for p in found
    for n in range(len(p.targets))
    if p.truth[n]
  ]
  known.sort(key=lambda item: -item[0])
  table = Table("bits", "symbol", "in context", "rather")
  for surprisal, p, n in known[:_SURPRISING]:
    # The inputs before the target; behind it, those after it.
    place = int(p.positions[n]) + (0 if fills_gaps else 1)
    if len(p.targets) == 1 and not fills_gaps:
      place = len(p.inputs)
    left = console_text(p.text(names.unit, max(place - _CONTEXT, 0), place))
    right = p.text(names.unit, place + 1, place + 1 + _CONTEXT)
    symbol = p.truth[n]
    marked = f"[reverse]{console_text(symbol)}[/reverse]"
    context = f"{left}{marked}{console_text(right)}"
    table.add_row(
      f"{surprisal / math.log(2):.2f}",
      quoted(symbol),
      context.replace("\n", "\\n"),
      quoted(p.best[n]),
    )
  if known:
    print_titled(console, "surprises", table)


def _numbers_table(
  unit: str, found: list[Prediction], settings: Config
) -> Table:
  """A table of the first numbers, each beside what was read and the truth."""
  table = Table("input", "truth", "prediction")
  for p in found[: settings.sequences]:
    for n in range(min(settings.symbols, len(p.targets))):
      source = shortened(p.source(unit, n))
      table.add_row(source, p.truth[n] or "?", number_text(p.numbers[n]))
  return table


def _write(path: Path, experiment: Experiment, found: list[Prediction]):
  """Writes predictions.csv: a row a target, of a text or of a row of a batch.

  Where targets are labels or numbers, a row has what was read of it, too. Truth
  and surprisal are empty where no truth is known. A label that training has
  not seen is one, with a surprisal of inf. Of several numbers a target, each
  has columns of its own.
  """
  unit, names = experiment.vocabularies["symbols"].unit, experiment.names
  several = max((p.ids.shape[1] + p.numbers.shape[1] for p in found), default=0)
  answers = [f"_{k}" for k in range(1, 1 + several)]
  if names is None:
    answers = answers if several > 1 else [""]
    head = [f"{part}{k}" for k in answers for part in ("truth", "prediction")]
  else:
    parts = ("symbol" if experiment.in_bits else "label", "probability")
    head = ["truth", "surprisal_nats"]
    head += [f"{part}{k}" for k in answers for part in parts]
  with files.atomic_write(path) as file:
    writer = csv.writer(file, lineterminator="\n")
    source = [] if experiment.in_bits else ["input"]
    writer.writerow(["sequence", "position", *source, *head])
    for number, p in enumerate(found):
      sequence = number if experiment.labels is None else p.document
      for n, place in enumerate(p.positions):
        source = []
        if not experiment.in_bits:  # Readers of csv may end a text at a NUL.
          source = [p.source(unit, n).replace("\0", r"\x00")]
        cells = _numbers(p, n) if names is None else _likely(p, n)
        writer.writerow([sequence, place, *source, *cells])


def _write_columns(path: Path, found: list[Prediction]):
  """Writes predictions.conll: a line a word, a blank line after each text.

  A line has the word, its true tag if the texts have tags, and the predicted
  one, as the program conlleval reads them.
  """
  known = any(any(p.truth) for p in found)
  with files.atomic_write(path) as file:
    for p in found:
      for place, truth, best in zip(p.positions, p.truth, p.best, strict=True):
        word = "_".join(p.read[place].split())  # CoNLL-U has words of two.
        tags = [truth or "_", best] if known else [best]
        file.write(" ".join([word, *tags]) + "\n")
      file.write("\n")


def _numbers(p: Prediction, n: int) -> Iterator[str]:
  """The cells of predictions.csv for a target: each truth and prediction."""
  for truth, number in zip(np.ravel(p.targets[n]), p.numbers[n], strict=True):
    yield from (number_text(truth), f"{number:.6g}")


def _likely(p: Prediction, n: int) -> Iterator[str]:
  """The cells of predictions.csv for a target: truth and most likely names."""
  truth = p.truth[n]
  yield from (truth, f"{p.surprisal[n]:.6g}" if truth else "")
  for name, chance in zip(p.likely[n], p.probabilities[n], strict=True):
    yield from (name, f"{chance:.6g}")


def _asked(experiment: Experiment, config: Config) -> Pieces | None:
  """What the user asks about; None: a split.

  Raises:
    UserError: it cannot be read, or is empty.
  """
  settings, data = config.predict, config.data
  if settings.text is not None:
    unit = experiment.vocabularies["symbols"].unit
    documents = from_text(settings.text, unit, data)
    if not documents:
      raise UserError(f"config.predict.text={settings.text!r}: no symbol there")
  elif settings.path is not None:
    labels = experiment.labels
    known = None if labels is None else set(labels.symbols)
    found = read_files("config.predict.path", settings.path, data, known)
    if not experiment.in_bits:
      return splits.whole(found)
    documents = list(splits.whole(found).documents())
  else:
    return None
  if experiment.in_bits:
    gap = infill.spelled_mark(config) if experiment.fills_gaps else None
    documents = _ask(documents, gap)
  return splits.given(documents, data.unit)


def _show_fillings(
  console: Console, fillings: infill.Fillings, log_p: str
) -> None:
  """Prints the best filling, and a table of all of them."""
  best, *_ = fillings.best
  console.print(f"filled: [bold]{console_text(best.text)}[/bold]")
  gaps = [f"gap {k}" for k in range(1, 1 + len(best.gaps))]
  table = Table(log_p, "probability", *gaps)
  for one in fillings.best:
    chance = "" if one.probability is None else f"{one.probability:.3f}"
    texts = [quoted(gap.replace("\n", "\\n")) for gap in one.gaps]
    table.add_row(f"{one.score:.2f}", chance, *texts)
  console.print(table)
  console.print(fillings.how)


def _write_fillings(path: Path, fillings: list[infill.Filling]):
  """Writes predictions.csv: a row a filling, the best first."""
  with files.atomic_write(path) as file:
    writer = csv.writer(file, lineterminator="\n")
    gaps = [f"gap_{k}" for k in range(1, 1 + len(fillings[0].gaps))]
    writer.writerow(["filling", "score_nats", "probability", *gaps, "text"])
    for number, (text, gaps, score, chance) in enumerate(fillings):
      cells = f"{score:.6g}", "" if chance is None else f"{chance:.6g}"
      texts = [one.replace("\0", r"\x00") for one in (*gaps, text)]
      writer.writerow([number, *cells, *texts])


def _fill(
  experiment: Experiment, params: Params, config: Config, workdir: Path
) -> list[infill.Filling]:
  """Fills the gaps with lengths of `predict.text`."""
  question, unknown = infill.parse(experiment, config)
  report_unknown(unknown, "text")
  fillings = infill.fill(experiment, params, question, config)
  log_p = "pseudo log p" if experiment.fills_gaps else "log p"
  _show_fillings(Console(highlight=False), fillings, log_p)
  with fileset.results(workdir, "predict", "written to") as folder:
    _write_fillings(folder / "predictions.csv", fillings.best)
  return fillings.best


def run(
  build: Callable[..., Experiment], config: Config, workdir: Path
) -> list[Prediction] | list[infill.Filling]:
  """Predicts, or fills gaps; prints tables and writes predictions.csv.

  Tags of words are also written in columns, predictions.conll.

  Raises:
    UserError: the task cannot predict, or text and path are both given, or
      empty; or it cannot fill the gaps.
  """
  settings = config.predict
  experiment = build(config, vocabulary.load(workdir / "vocabulary.json"))
  require(experiment, "predict", config.task)
  symbols = experiment.vocabularies["symbols"]
  params, _ = restore_params(
    workdir, config.checkpoint.step, shapes(experiment)
  )
  console = Console(highlight=False)
  if settings.text is not None and settings.path is not None:
    raise UserError(
      f"config.predict.text={settings.text!r},"
      f" config.predict.path={settings.path!r}: give one of the two"
    )
  if infill.is_asked(config):
    return _fill(experiment, params, config, workdir)
  asked = _asked(experiment, config)
  if asked is None:
    every = predictions(experiment, params, settings.split, settings.top_k)
    found = list(itertools.islice(every, settings.sequences))
  else:
    found = list(predictions(experiment, params, asked, settings.top_k))
    _warn_unknown(symbols, asked, settings.path or "text")
    if experiment.fills_gaps:
      text, put = fill(experiment, params, asked)
      if put:
        console.print(f"filled: [bold]{console_text(text)}[/bold]")
        for number, (symbol, chance) in enumerate(put, 1):
          name = quoted(symbols.names([symbol])[0])
          console.print(f"  gap {number}: {name}  {chance:.3f}")
  if experiment.present is not None:
    console.print(experiment.present(found))
  elif experiment.in_bits:
    for prediction in found[: settings.sequences]:
      _show(console, symbols, prediction, settings.symbols)
    _show_surprising(console, symbols, found, experiment.fills_gaps)
  else:
    console.print(_numbers_table(symbols.unit, found, settings))
  with fileset.results(workdir, "predict", "written to") as folder:
    _write(folder / "predictions.csv", experiment, found)
    if experiment.tags_words:
      _write_columns(folder / "predictions.conll", found)
  return found
