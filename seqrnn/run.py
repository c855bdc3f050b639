"""A trained run, whose methods are the modes."""

import itertools
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from seqrnn import experiments
from seqrnn.config import command, derived
from seqrnn.config.field import Fields, FieldValue
from seqrnn.config.read import Config, check, override, read_run
from seqrnn.data import splits
from seqrnn.data.read import frames
from seqrnn.data.sources import corpora
from seqrnn.data.splits import Pieces
from seqrnn.errors import UserError, report
from seqrnn.experiment import Experiment, Params
from seqrnn.modes import load_model, require_mode
from seqrnn.runtime import files, launch, sharding
from seqrnn.sampling import infill, texts
from seqrnn.sampling.infill import Filling
from seqrnn.sampling.music import sample_music
from seqrnn.scoring import confusion, states
from seqrnn.scoring.evaluation import Examined, examine_split
from seqrnn.scoring.predictions import (
  Prediction,
  mistakes,
  number_text,
  predictions,
)
from seqrnn.scoring.scorer import in_few_lengths, scorer
from seqrnn.table import data_frame, read_csv_frame
from seqrnn.training import checkpoint

if TYPE_CHECKING:
  import pandas as pd  # pyright: ignore[reportMissingImports]

  from seqrnn.logs.follow.follower import Follower

OneOrSeveral = str | Iterable[frames.Text]  # A text, or some.


class Run(NamedTuple):
  """A trained run, as `seqrnn.load` and `seqrnn.train` return it.

  Its methods compile for the first text; later calls reuse the programs,
  whatever the length of their text and the settings of their sample, except
  `streams`. A pickled run has its config, vocabularies and parameters; where it
  is loaded, they are in a temporary folder that is removed with its config.

  Attributes:
    workdir: its folder.
    config: the fields of the config, as it was trained.
    experiment: its task.
    params: the parameters of the checkpoint, a tree of arrays.
    step: the number of updates before the checkpoint.
  """

  workdir: Path
  config: Config
  experiment: Experiment
  params: Params
  step: int

  def __repr__(self) -> str:
    """The task, the step and the number of parameters."""
    count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
    facts = f"{self.config.task}, step {self.step:,}, parameters {count:,}"
    return f"Run({self.workdir}: {facts})"

  def __reduce__(self) -> tuple[Callable[..., "Run"], tuple]:
    """Pickles the files of the run, without its data and optimizer."""
    folder, step, contents = self.workdir, self.step, {}
    inside = "*.json", "metrics.csv", "sha256", "detect/deployed.npz"
    inside = *inside, f"checkpoints/{step}/**/*", "folds/**/*"
    if self.config.checkpoint.step is None:
      inside = *inside, f"{checkpoint.REFIT}/checkpoints/{step}/**/*"
    for path in itertools.chain(*map(folder.glob, inside)):
      name = path.relative_to(folder)
      if path.is_file() and "state" not in name.parts:
        contents[str(name)] = path.read_bytes()
    return _unpickled, (str(folder.absolute()), step, contents)

  @property
  def labels(self) -> list[str]:
    """The labels or tags that it predicts, the most frequent one first.

    Raises:
      UserError: it predicts none.
    """
    launch.refuse_fork()
    if self.experiment.labels is None:
      task = self.config.task
      raise UserError(f"{self.workdir}: task={task!r} predicts no labels")
    return list(self.experiment.labels.symbols)

  @property
  def metrics(self) -> "pd.DataFrame":
    """The rows of metrics.csv, one for each evaluation of the training.

    Columns are `step`, `epoch`, `learning_rate`, `gradient_norm`, and the
    figures of both splits, such as `train_loss` and `validation_loss` in nats,
    or in the unit of the task's loss.

    Example:
      >>> run.metrics["validation_loss"].min()
      1.2431
      >>> run.metrics.plot("step", "validation_loss")

    Raises:
      UserError: the file is damaged.
    """
    return read_csv_frame(self.workdir / "metrics.csv")

  def sample(self, prime: str = "", **settings: FieldValue) -> texts.Drawn:
    r"""Draws texts, or pieces of music, from the model.

    Example:
      >>> run.sample("import ", temperature=0.5, length=20, streams=2)
      ['import os\nimport sys\nimp', 'import re\n\nfrom . imp']

    Args:
      prime: the beginning of each text.
      **settings: fields of `config.sample`, such as temperature, length (in
        symbols), streams (the number of texts), top_p, stop (a text or a list
        of texts) and seed.

    Returns:
      the texts, which begin with `prime`; of music the notes of each piece, 0
      or 1 [frames, 88].

    Raises:
      UserError: no such setting, a value out of its range, or a task that
        cannot sample.
    """
    self._require("sample", "cannot sample")
    config = self._changed("sample", {"prime": prime, **settings})
    draw = texts.sample if self.experiment.writes_text else sample_music
    return draw(self.experiment, self.params, config)

  def follower(self, **settings: FieldValue) -> "Follower":
    """Judges sessions whose events arrive one by one, as the last detection.

    Args:
      **settings: fields of `config.detect`.

    Raises:
      UserError: no such setting, there is no detection, or the model does not
        predict the next event.
    """
    from seqrnn.logs.detect import deployed
    from seqrnn.logs.follow.follower import Follower

    config = self._changed("detect", settings)
    return Follower(deployed.restore(experiments.build, config, self.workdir))

  def _require(self, mode: str, why: str = ""):
    launch.refuse_fork()
    where = str(self.workdir)
    require_mode(self.experiment, mode, self.config.task, where, why)

  def _changed(self, group: str, settings: Fields) -> Config:
    fields = {f"{group}.{name}": value for name, value in settings.items()}
    return derived.checked(self.config, fields)

  def score(self, text: OneOrSeveral) -> np.ndarray | list[np.ndarray]:
    """The surprisal of each symbol of a text.

    Example:
      >>> run.score("import os").round(1)
      array([4.1, 0.9, 0. , 0.1, 0. , 0. , 0.1, 2.3, 0.6, 1.2], dtype=float32)

    Args:
      text: in the format of the run's data; or several texts, as of `predict`.

    Returns:
      -log p of each symbol that the model predicts, in nats [symbols]; the end
      of a document is a symbol, too. Of several texts, a list of such arrays.

    Raises:
      UserError: the task cannot score.
    """
    launch.refuse_fork()
    if self.experiment.score is None:
      raise UserError(f"{self.workdir}: task={self.config.task!r} cannot score")
    experiment = self.experiment
    if self.config.data.buckets is not None:  # Texts have lengths of their own.
      experiment = in_few_lengths(experiment)
    mesh = sharding.mesh()
    params = jax.device_put(self.params, sharding.replicated(mesh))
    scores = scorer(experiment, mesh)(params, self._pieces(text))
    each = [scores.document(j) for j in range(len(scores.distinct))]
    return np.concatenate(each) if isinstance(text, str) else each

  def predict(self, text: OneOrSeveral, top_k: int = 5) -> list[Prediction]:
    """The most likely symbols or labels of a text, or its numbers.

    Example:
      >>> [found] = run.predict("import os", top_k=2)
      >>> found.likely[5], found.probabilities[5]
      (['t', 's'], array([0.93, 0.02], dtype=float32))

    Args:
      text: in the format of the run's data; or several texts, as a list, an
        array or a column of a frame. One of these may be a list of words.
      top_k: the number of symbols or labels for each target.

    Returns:
      a Prediction for each text, where the task predicts labels or numbers;
      else for each window or part of a stream. Each target has names,
      probabilities and its surprisal.

    Raises:
      UserError: the task cannot predict; a text is missing; or a single one has
        several lines, and the cells of a table may be one line or several.
    """
    self._require("predict")
    top_k = self._changed("predict", {"top_k": top_k}).predict.top_k
    pieces = self._pieces(text)
    return list(predictions(self.experiment, self.params, pieces, top_k))

  def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
    """The probability of each label for each text.

    Example:
      >>> frame[run.labels] = run.predict_proba(frame["text"])

    Args:
      texts: as of `predict`.

    Returns:
      float32 [texts, labels], in the order of `labels`.

    Raises:
      UserError: as `predict`, or the task predicts no label for each text.
    """
    count = len(self.labels)
    if not self.experiment.by_text:
      raise UserError(
        f"{self.workdir}: task={self.config.task!r} predicts a label for each"
        " symbol, and none for each text"
      )
    found = self.predict(texts, top_k=count)
    ids_NV = np.array([one.ids[0] for one in found])
    p_NV = np.array([one.probabilities[0] for one in found])
    return np.take_along_axis(p_NV, ids_NV.argsort(), axis=1)

  def fill(self, text: str, **settings: FieldValue) -> list[Filling]:
    """The best fillings of a text's gaps.

    Example:
      >>> best, *others = run.fill("if x is not _{4}:")
      >>> best.text, best.gaps, round(best.score, 2)
      ('if x is not None:', ['None'], -20.14)

    Args:
      text: `_{5}` in it is a gap of 5 symbols; for a gap model, `_` is a gap of
        one symbol.
      **settings: fields of `config.predict`, such as top_k, and gap, the mark
        of a gap in place of `_`.

    Raises:
      UserError: the task cannot fill gaps, or not these.
    """
    self._require("predict")
    if not isinstance(text, str):
      raise UserError(f"text={text!r}: must be a text")
    config = self._changed("predict", settings)
    config.predict.text = text
    question, _ = infill.parse_gaps(self.experiment, config)
    return infill.fill_gaps(self.experiment, self.params, question, config)

  def states(
    self, text: str | list[str], of: str = "symbols", **settings: FieldValue
  ) -> np.ndarray:
    """The states of a layer as it reads a text, both directions concatenated.

    Example:
      >>> run.states("import os").shape
      (9, 128)
      >>> run.states("import os", of="texts").shape
      (1, 128)

    Args:
      text: as of `predict`.
      of: `symbols`: the state after each symbol that the model reads; `texts`:
        a vector of each document, such as a line of a run on lines.
      **settings: `layer`, its number, from 1; None: the last; `pooling`, of
        `texts`: `mean`, `max`, or `last`, the state after the last step of each
        direction.

    Returns:
      float32 [symbols or documents, D].

    Raises:
      UserError: the task has no states, the model no such layer, or the text no
        symbol.
    """
    self._require("embed")
    embed = self._changed("embed", {"of": of, **settings}).embed
    if of == "vocabulary":
      return states.embedding(self.experiment, self.params)
    data = self.config.data
    pieces = self._pieces(text)
    if not len(pieces.corpus.ids):
      raise UserError(f"text={text!r}: no symbol there")
    pieces = states.ended(self.experiment, pieces, data.boundaries)
    reading = states.LayerOfTexts(
      self.experiment, self.params, pieces, embed.layer
    )
    blocks = states.vectors(reading, of, embed.pooling, data.boundaries)
    return np.concatenate([block.vectors for block in blocks])

  def _pieces(self, text: OneOrSeveral) -> Pieces:
    """The documents of a text, or of several, each of which is a document."""
    experiment, data = self.experiment, self.config.data
    if experiment.reads != "symbol":
      raise UserError(
        f"{self.workdir}: task={self.config.task!r} has no symbols to predict"
      )
    if not isinstance(text, str):
      texts = frames.documents("texts", text, experiment.by_text)
      return splits.whole(corpora.in_memory(texts, data))
    is_cell = experiment.by_text and data.format in ("csv", "jsonl")
    if is_cell and "\n" in text.strip():
      raise UserError(
        f"text: has several lines, which may be one text or several in"
        f" data.format={data.format!r}; pass a list of texts"
      )
    unit = experiment.vocabularies["symbols"].unit
    documents = corpora.from_text(text, unit, data)
    return splits.from_documents(documents, data.unit)

  def evaluate(self, split: str = "test") -> dict[str, float]:
    """The loss of a split, and the other figures of the task.

    Example:
      >>> run.evaluate("validation")["bits_per_symbol"]
      1.7934

    Args:
      split: train, validation or test.

    Returns:
      figure -> value; `loss` in nats, or in the unit of the task's loss.

    Raises:
      UserError: the data cannot be read.
    """
    return self._examined(split)[0]

  def confusion(self, split: str = "test") -> "pd.DataFrame":
    """The counts of predicted labels, a row for each true label.

    Args:
      split: train, validation or test.

    Raises:
      UserError: the task predicts no labels, or the data cannot be read.
    """
    names, (_, answers) = ["truth", *self.labels], self._examined(split)
    assert answers is not None, "the task has labels"
    table = confusion.confusion_table(self.experiment.labels, answers)
    return data_frame(table[1:], names).set_index("truth")

  def mistakes(self, split: str = "test", count: int = 20) -> "pd.DataFrame":
    """The worst wrong predictions of a split.

    Args:
      split: train, validation or test.
      count: the number of rows.

    Returns:
      a row each: `input`, the text or symbol; `truth`; `prediction`; and what
      they fall by, the `surprisal` of the truth in nats; of numbers the
      `distance`, in units of the mean distance, added over several.

    Raises:
      UserError: the task cannot predict, or the data cannot be read.
    """
    self._require("predict")
    split = self._changed("evaluate", {"split": split}).evaluate.split
    unit, is_number = self.config.data.unit, self.experiment.names is None
    far_name = "distance" if is_number else "surprisal"
    names = "input", "truth", "prediction", far_name
    rows = [*predictions(self.experiment, self.params, split, 1)]
    table = []
    for far, p, n in mistakes(rows)[:count]:
      answer = number_text(p.numbers[n]) if is_number else p.best[n]
      table.append((p.source(unit, n), p.truth[n], answer, far))
    return data_frame(table, names)

  def _examined(self, split: str) -> Examined:
    """The figures of a split, and the labels if it has any."""
    launch.refuse_fork()
    split = self._changed("evaluate", {"split": split}).evaluate.split
    command.show_inputs(self.workdir / "config.json", self.config, set())
    if split == "validation" and self.config.train.refit:
      report(
        "warning: train.refit has trained on the validation split;"
        " seqrnn.load(workdir, step) has the parameters before it"
      )
    return examine_split(self.experiment, self.params, split)


def _unpickled(workdir: str, step: int, contents: dict[str, bytes]) -> Run:
  """A run as `Run.__reduce__` has pickled it, in a temporary folder.

  Raises:
    UserError: this version cannot read it.
  """
  if launch.is_forked():  # Its methods say why nothing can be computed.
    nothing: Any = None
    return Run(Path(workdir), nothing, nothing, nothing, step)
  with temporary() as folder:
    for name, content in contents.items():
      path = Path(folder, name)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(content)
    for path in folder.rglob("checkpoints/*"):
      checkpoint.write_sums(path)
    is_refit = (folder / checkpoint.REFIT).exists()
    return kept(load_run(folder, None if is_refit else step))


@contextmanager
def temporary() -> Iterator[Path]:
  """A temporary folder, which an error removes."""
  folder = Path(tempfile.mkdtemp(prefix="seqrnn-"))
  try:
    yield folder
  except BaseException:
    shutil.rmtree(folder, ignore_errors=True)
    raise


def kept(run: Run) -> Run:
  """The run, with whose config its temporary folder is removed."""
  # Caches of compiled programs hold the config of the experiment.
  run = run._replace(config=derived.copy(run.config))
  weakref.finalize(run.config, _remove, run.workdir, os.getpid())
  return run


def _remove(folder: Path, process: int):
  if os.getpid() == process:  # A forked process leaves it.
    shutil.rmtree(folder, ignore_errors=True)


def load_run(workdir: str | os.PathLike, step: int | None = None) -> Run:
  """A trained run, from its workdir.

  Args:
    workdir: of the run.
    step: of a checkpoint; None: the best one.

  Raises:
    UserError: nothing was trained there, it is damaged, or a field of its
      config stands in the way.
  """
  workdir = Path(files.plain(workdir))
  files.check_links(workdir)
  config = read_run(workdir)
  override(config, "checkpoint.step", step)
  check(config)
  model = load_model(experiments.build, config, workdir, None)
  return Run(workdir, config, *model)
