"""Estimators by scikit-learn's conventions, over data in memory.

A fit is a run, as `seqrnn.train` makes it, in a temporary folder that is
removed with the estimator, or in `workdir`. There is no `warm_start` and no
`partial_fit`: a training has a schedule of a known length, and its vocabulary
is made before it begins. `train.start_from` in `settings` starts from a run.
"""

import itertools
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from seqrnn.config.field import FieldValue
from seqrnn.data.documents import digest
from seqrnn.data.read import frames
from seqrnn.errors import DataError, counted, listed, needs_package

with needs_package("an estimator", "sklearn", "sklearn"):
  from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    OutlierMixin,
    RegressorMixin,
  )
  from sklearn.metrics import accuracy_score
  from sklearn.utils import check_random_state
  from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
  import pandas as pd  # pyright: ignore[reportMissingImports]

  from seqrnn.run import Run

# The fields that parameters of the same last name set, unless they are None.
_FIELDS = (
  *("model.cell", "model.hidden_size", "model.layers", "model.dropout"),
  *("model.embedding_size", "data.unit", "data.window", "train.batch_size"),
  *("optimizer.learning_rate", "train.epochs", "train.max_steps"),
)


@dataclass(frozen=True)
class Page:
  """The report of an estimator, which a notebook shows.

  Attributes:
    path: the file, a page of HTML.
  """

  path: Path

  def _repr_html_(self) -> str:
    content = self.path.read_text("utf-8")
    content = content.replace("&", "&amp;").replace('"', "&quot;")
    style = "width: 100%; height: 40em; border: 0"
    return f'<iframe srcdoc="{content}" style="{style}"></iframe>'


@dataclass(kw_only=True, eq=False, repr=False)
class _Estimator(BaseEstimator):
  """What all estimators share; a parameter of None is that of the config.

  Attributes:
    config: the name of a config, whose fields the other parameters change.
    cell: the recurrent cell, such as `lstm` or `gru`.
    hidden_size: the units of a layer.
    layers: their number.
    embedding_size: of a symbol.
    dropout: the share of units that a step of the training leaves out.
    unit: a symbol, `word` or `char`.
    window: the number of symbols that are read at once.
    learning_rate: the highest one.
    batch_size: the rows of a step.
    epochs: how often all data are read.
    max_steps: the most steps of the training.
    early_stopping: whether training ends when `n_iter_no_change` evaluations,
      one an epoch, had no lower loss.
    validation_fraction: the share of the symbols that is held out; the
      parameters are those of the lowest loss there.
    n_iter_no_change: as `early_stopping` has it.
    random_state: the seed.
    workdir: the folder of the run; None: a temporary one.
    verbose: whether a training prints its progress.
    settings: other fields of the config, by their dotted names.
    run_: the Run of the fit.
  """

  config: str = "sentences"
  cell: str | None = None
  hidden_size: int | None = None
  layers: int | None = None
  embedding_size: int | None = None
  dropout: float | None = None
  unit: str | None = None
  window: int | None = None
  learning_rate: float | None = None
  batch_size: int | None = None
  epochs: int | None = None
  max_steps: int | None = None
  early_stopping: bool = False
  validation_fraction: float = 0.1
  n_iter_no_change: int = 10
  random_state: Any = 0
  workdir: str | os.PathLike[str] | None = None
  verbose: bool = False
  settings: Mapping[str, FieldValue] | None = None

  _preset: ClassVar[dict[str, FieldValue]] = {}

  def __sklearn_tags__(self):
    """One column of texts."""
    tags = super().__sklearn_tags__()
    tags.input_tags.string = tags.input_tags.one_d_array = True
    tags.input_tags.two_d_array = False
    return tags

  @property
  def history_(self) -> "pd.DataFrame":
    """The table of the evaluations of the training."""
    return self.run_.metrics

  def report(self) -> Page:
    """Writes the report of the run, and returns it; a notebook shows it."""
    check_is_fitted(self)
    return Page(_api().call("report", None, self.run_.workdir, {}, False)[0])

  def _train(self, name: str, content: bytes, fields: Mapping[str, FieldValue]):
    """Trains on a file of this name and content."""
    api, folder = _api(), self.workdir
    if folder is None:
      self._new_folder()
      folder = self._folder
    path = api.write_data(Path(folder) / "data" / name, content)
    seed = self.random_state
    if seed is None or not isinstance(seed, int | np.integer):
      seed = check_random_state(seed).randint(2**31)
    stops = {"train.patience": self.n_iter_no_change, "train.eval_every": None}
    own = {x: getattr(self, x.rpartition(".")[2]) for x in _FIELDS}
    settings = {
      **self._preset,
      **{name: value for name, value in own.items() if value is not None},
      **(stops if self.early_stopping else {}),
      **{"seed": int(seed), "data.test_fraction": 0.0},
      "data.validation_fraction": self.validation_fraction,
      **fields,
      **(self.settings or {}),
      **{"data.source": "files", "data.path": path},
    }
    self.run_ = api.train(self.config, folder, verbose=self.verbose, **settings)

  def _new_folder(self):
    """Makes a temporary folder, and removes that of the last fit."""
    if "_remove" in vars(self):
      self._remove()
    self._folder = tempfile.mkdtemp(prefix="seqrnn-")
    self._remove = weakref.finalize(self, _remove, self._folder, os.getpid())

  def __getstate__(self) -> dict[str, Any]:
    """The parameters, and the files of the run but its data."""
    state = {**super().__getstate__()}  # pyright: ignore[reportGeneralTypeIssues]
    for name in ("_folder", "_remove"):
      state.pop(name, None)
    if "run_" in state:
      folder = state.pop("run_").workdir
      state["_files"] = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "data" not in path.relative_to(folder).parts
      }
    return state

  def __setstate__(self, state: dict[str, Any]):
    """Writes the files of the run into a temporary folder."""
    contents = (state := dict(state)).pop("_files", None)
    super().__setstate__(state)  # pyright: ignore[reportAttributeAccessIssue]
    if contents is not None:
      self._new_folder()
      for name, content in contents.items():
        path = Path(self._folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
      self.run_ = _api().load(self._folder)


def _api() -> Any:
  """The module of the API, which imports JAX."""
  import seqrnn

  return sys.modules[seqrnn.train.__module__]


def _remove(folder: str, process: int):
  """Removes a folder, unless this process was forked from that of it."""
  if os.getpid() == process:
    shutil.rmtree(folder, ignore_errors=True)


def _labels(name: str, values: Any) -> tuple[np.ndarray, list[str]]:
  """The distinct labels, sorted, and their names in a file.

  Raises:
    DataError: one is missing, there is a single one, or they cannot be sorted.
  """
  for n, value in enumerate(values):
    if frames.is_missing(value):
      raise DataError(f"{name}[{n}]={value!r}: is missing")
  try:
    classes = np.unique(np.asarray(values))
  except (TypeError, ValueError):
    kinds = sorted({type(value).__name__ for value in values})
    raise DataError(
      f"{name}: has labels of the types {', '.join(kinds)}; there must be one"
    ) from None
  if len(classes) < 2:
    only = f", {classes[0]!r}" * len(classes)
    raise DataError(f"{name}: has one label{only}; there must be two classes")
  names = [str(label) for label in classes]
  plain = lambda x: x.isprintable() and x == x.strip() != ""
  return classes, [x if plain(x) else repr(x) for x in names]


@dataclass(kw_only=True, eq=False, repr=False)
class TextClassifier(ClassifierMixin, _Estimator):
  """A label for each text.

  Example:
    >>> clf = seqrnn.TextClassifier(hidden_size=32).fit(df.text, df.label)
    >>> new[clf.classes_] = clf.predict_proba(new.text)

  Attributes:
    classes_: the labels, sorted.
  """

  _preset = {"data.lowercase": True, "data.punctuation": True}

  def fit(self, X: Iterable[str], y: Iterable) -> "TextClassifier":
    """Trains on texts and their labels."""
    texts, values = frames.texts("X", X), frames.column("y", y)
    frames.same_length("X", texts, "y", values)
    classes, names = _labels("y", values)
    if len(classes) > max(len(set(texts)), len(texts) / 2):
      raise DataError(
        f"X, y: {len(classes):,} labels of {len(set(texts)):,} distinct texts;"
        " they seem to be swapped"
      )
    labels = [names[i] for i in np.searchsorted(classes, np.asarray(values))]
    content = frames.encoded({"text": texts, "label": labels})
    self._train("train.csv", content, _texts(self, "classification"))
    self.classes_, self._names = classes, names
    return self

  def predict_proba(self, X: Iterable[str]) -> np.ndarray:
    """The probability of each of `classes_` for each text."""
    check_is_fitted(self)
    p_NV = self.run_.predict_proba(frames.texts("X", X)).astype(np.float64)
    known = {name: n for n, name in enumerate(self.run_.labels)}
    found = np.zeros((len(p_NV), len(self.classes_)))
    for n, name in enumerate(self._names):
      if name in known:  # Others are in the validation split alone.
        found[:, n] = p_NV[:, known[name]]
    return found / found.sum(axis=1, keepdims=True)

  def predict_log_proba(self, X: Iterable[str]) -> np.ndarray:
    """The logarithm of `predict_proba`."""
    with np.errstate(divide="ignore"):
      return np.log(self.predict_proba(X))

  def predict(self, X: Iterable[str]) -> np.ndarray:
    """The most likely label of each text."""
    return self.classes_[self.predict_proba(X).argmax(axis=1)]


def _texts(estimator: _Estimator, task: str) -> dict[str, FieldValue]:
  """The fields for texts of one column, each with one answer."""
  fields = {"task": task, "data.format": "csv"}
  if estimator.unit not in (None, "word"):
    fields |= {"data.lowercase": False, "data.punctuation": False}
  return fields


@dataclass(kw_only=True, eq=False, repr=False)
class TextRegressor(RegressorMixin, _Estimator):
  """One or several numbers for each text.

  Example:
    >>> stars = seqrnn.TextRegressor().fit(df.text, df[["depth", "stars"]])
    >>> stars.predict(new.text)
  """

  _preset = {**TextClassifier._preset, "model.pooling": "mean"}

  def __sklearn_tags__(self):
    """Several numbers are allowed."""
    tags = super().__sklearn_tags__()
    tags.target_tags.multi_output = True
    return tags

  def fit(self, X: Iterable[str], y: Any) -> "TextRegressor":
    """Trains on texts and their numbers, [texts] or [texts, numbers]."""
    texts = frames.texts("X", X)
    try:
      values = np.asarray(y, np.float64)
    except (TypeError, ValueError) as error:
      raise DataError(f"y: must be numbers ({error})") from None
    if values.ndim not in (1, 2):
      raise DataError(f"y: has the shape {values.shape}; must be one number or"
                      " several for each text")  # fmt: skip
    frames.same_length("X", texts, "y", values)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
      place = ", ".join(map(str, wrong[0]))
      raise DataError(f"y[{place}]={values[*wrong[0]]}: must be finite")
    self._several = values.ndim == 2
    columns = dict(enumerate(values.reshape(len(values), -1).T.tolist()))
    named = {f"y{n}": numbers for n, numbers in columns.items()}
    content = frames.encoded({"text": texts, **named})
    fields = {"data.label_column": ",".join(named)}
    self._train("train.csv", content, _texts(self, "regression") | fields)
    return self

  def predict(self, X: Iterable[str]) -> np.ndarray:
    """The numbers of each text, in the shape of those of the fit."""
    check_is_fitted(self)
    found = self.run_.predict(frames.texts("X", X))
    numbers = np.array([one.numbers[0] for one in found])
    return numbers if self._several else numbers[:, 0]


@dataclass(kw_only=True, eq=False, repr=False)
class Tagger(_Estimator):
  """A tag for each word of a sentence.

  Example:
    >>> tagger = seqrnn.Tagger().fit(words, tags)
    >>> tagger.predict([["films", "by", "Chris", "Marker"]])
    [['O', 'O', 'B-PER', 'I-PER']]

  Attributes:
    classes_: the tags, sorted.
    metric_: of `score`: `accuracy`, or `span_f1` where the tags mark spans.
  """

  config: str = "ud_ewt"

  def fit(self, X: Iterable, y: Iterable) -> "Tagger":
    """Trains on sentences, as lists of words, and lists of their tags."""
    words, tags = self._pairs(X, y)
    classes, names = _labels("y", [*itertools.chain.from_iterable(tags)])
    name_of = dict(zip(classes.tolist(), names, strict=True))
    lines = []
    for sentence, of_words in zip(words, tags, strict=True):
      pairs = zip(sentence, of_words, strict=True)
      for number, (word, tag) in enumerate(pairs, 1):
        tag = name_of[tag]  # In column 4 of 10.
        lines.append(f"{number}\t{word}\t_\t{tag}" + "\t_" * 6)
      lines.append("")
    content = "\n".join([*lines, ""]).encode()
    fields = {"task": "tagging", "data.format": "conllu"}
    self._train("train.conllu", content, fields)
    self.classes_ = classes
    self._of_name = dict(zip(names, classes.tolist(), strict=True))
    symbols = self.run_.experiment.labels
    from seqrnn.scoring import spans

    marks = spans.scheme(symbols.symbols) is not None
    self.metric_ = "span_f1" if marks else "accuracy"
    return self

  def predict(self, X: Iterable) -> list[list]:
    """The tags of each sentence."""
    check_is_fitted(self)
    words = frames.sequences("X", X, "word")
    found = self.run_.predict(words, top_k=1)
    symbols = self.run_.labels
    return [
      [self._of_name[symbols[i - 4]] for i in one.ids[:, 0]] for one in found
    ]

  def score(self, X: Iterable, y: Iterable) -> float:
    """The share of correct tags, or the F1 of spans; `metric_` says which."""
    words, tags = self._pairs(X, y)
    found = self.predict(words)
    flat = [[*itertools.chain.from_iterable(x)] for x in (tags, found)]
    if self.metric_ == "accuracy":
      return float(accuracy_score(*flat))
    from seqrnn.scoring import spans

    labels = self.run_.experiment.labels
    begins = np.zeros(len(flat[0]), bool)
    begins[np.cumsum([0, *map(len, tags[:-1])])] = True
    codes = [spans.codes(labels, [str(tag) for tag in x]) for x in flat]
    counts_3K = spans.count_spans(labels, *codes, begins)
    return spans.figures(counts_3K.sum(axis=1))["f1"]

  def _pairs(self, X, y) -> tuple[list[list[str]], list[list]]:
    words = frames.sequences("X", X, "word")
    tags = frames.column("y", y)
    frames.same_length("X", words, "y", tags)
    tags = [frames.column(f"y[{n}]", x) for n, x in enumerate(tags)]
    for n, (one, other) in enumerate(zip(words, tags, strict=True)):
      frames.same_length(f"X[{n}]", one, f"y[{n}]", other)
    for n, sentence in enumerate(words):
      for t, word in enumerate(sentence):
        if {*word} & {*"\t\n\r"}:
          raise DataError(f"X[{n}][{t}]={word!r}: has a tab or a line break")
    return words, tags


@dataclass(kw_only=True, eq=False, repr=False)
class LanguageModel(_Estimator):
  """The probability of each symbol of a text, from those before it.

  Example:
    >>> lm = seqrnn.LanguageModel().fit(texts)
    >>> lm.sample("The ", temperature=0.5, length=100)
  """

  config: str = "rnn"

  def fit(self, X: Iterable[str], y: None = None) -> "LanguageModel":  # noqa: ARG002
    """Trains on texts."""
    texts = frames.texts("X", X)
    columns = {"text": texts, "label": ["text"] * len(texts)}
    fields: dict[str, FieldValue] = {"data.format": "csv"}
    if len(texts) < 10:  # Too few to hold whole ones out.
      fields["data.split"] = "tails"
    self._train("train.csv", frames.encoded(columns), fields)
    return self

  def score_samples(self, X: Iterable[str]) -> np.ndarray:
    """The logarithm of the probability of each text, in nats."""
    return np.array([-nll.sum(dtype=np.float64) for nll in self._score(X)])

  def score(self, X: Iterable[str], y: None = None) -> float:  # noqa: ARG002
    """The negative bits a symbol."""
    nll = np.concatenate(self._score(X))
    return -float(nll.mean(dtype=np.float64) / np.log(2))

  def _score(self, X: Iterable[str]) -> list[np.ndarray]:
    check_is_fitted(self)
    return self.run_.score(frames.texts("X", X))  # pyright: ignore[reportReturnType]

  def sample(self, prime: str = "", **settings: FieldValue) -> list:
    """Draws texts that begin with `prime`, as `Run.sample` does."""
    check_is_fitted(self)
    return self.run_.sample(prime, **settings)


@dataclass(kw_only=True, eq=False, repr=False)
class SessionDetector(OutlierMixin, _Estimator):
  """Anomalous sessions of events, at a false-alarm rate.

  Sessions are lists of events; or a frame with the columns `session`, `event`
  and perhaps `timestamp`, whose sessions are in the order of their first rows.

  Example:
    >>> odd = seqrnn.SessionDetector(rate=0.01).fit(sessions)
    >>> odd.predict(new)  # -1: anomalous
    array([ 1,  1, -1])

  Attributes:
    rate: the share of normal sessions that may be flagged.
    folds: models that are calibrated on folds of the sessions; 0: one model,
      calibrated on the share that is held out.
    offset_: `decision_function` is `score_samples` less this threshold.
  """

  config: str = "sessions"
  rate: float = 0.005
  folds: int | None = None

  def fit(self, X: Any, y: None = None) -> "SessionDetector":  # noqa: ARG002
    """Trains on sessions, of which few are anomalous, and calibrates."""
    content, seen, rows = _sessions("X", X)
    fields: dict[str, FieldValue] = {"detect.rate": self.rate}
    if self.folds is not None:
      fields["detect.folds"] = self.folds
    fields |= {"data.unit": "session", "data.format": "csv"}
    self._train("train.csv", content, fields)
    path = {"detect.path": self.run_.config.data.path}
    _api().call("detect", None, self.run_.workdir, path, self.verbose)
    self._seen, self._rows = seen, rows
    least = _deployed(self.run_).normal.scores["combined"].resolution
    self.offset_ = -sys.float_info.max  # No session can be flagged.
    if least <= self.rate:
      self.offset_ = float(np.nextafter(np.log(self.rate * (1 + 1e-12)), 0))
    return self

  def predict(self, X: Any) -> np.ndarray:
    """-1 for each session that is flagged, and 1 for the others."""
    return np.where(self._found(X, lambda found: found.decision.flags), -1, 1)

  def p_values(self, X: Any) -> np.ndarray:
    """The share of normal sessions that are as anomalous as each session."""
    return self._found(X, lambda found: found.decision.p)

  def score_samples(self, X: Any) -> np.ndarray:
    """The log p-value of each session; a lower one is more anomalous."""
    return -self._found(X, lambda found: found.decision.scores["combined"])

  def decision_function(self, X: Any) -> np.ndarray:
    """`score_samples` less `offset_`; negative where `rate` flags a session."""
    return self.score_samples(X) - self.offset_

  def _found(self, X: Any, column: Callable[[Any], np.ndarray]) -> np.ndarray:
    """A column of the findings on distinct sessions, for each session."""
    check_is_fitted(self)
    from seqrnn.data import splits
    from seqrnn.data.logs import log_corpus, sessions
    from seqrnn.data.read.reading import Source
    from seqrnn.logs.detect.findings import find_anomalies

    content, seen, rows = _sessions("X", X)
    if rows is not None and not rows.isin(self._rows).any():
      known = self._seen
      cut = [x for x in seen if known.get(x, seen[x]) != seen[x]]
      if cut:
        raise DataError(
          f"X: has other events of {counted(len(cut), 'session')} of the frame"
          " of fit; a frame is split by session, as GroupKFold does with"
          " groups=frame['session']"
        )
    detector = _deployed(self.run_)
    data, idle = detector.config.data, detector.config.detect.idle
    corpus = log_corpus.read_table([Source("X", content)], data)
    trained = corpus
    if corpus.cuts is not None:  # The log of the fit has the idle times.
      cuts = corpus.cuts._replace(idle=detector.cut)
      trained = corpus._replace(cuts=cuts)
    corpus = log_corpus.with_cuts(corpus, idle, trained)
    every = sessions.of_pieces(splits.whole(corpus), detector.detector.names)
    found = find_anomalies(detector.detector, detector.normal, every)
    return column(found)[found.distinct.which]


def _deployed(run: "Run") -> Any:
  """The detector that the detection of a fit has left in its folder."""
  from seqrnn import experiments
  from seqrnn.logs.detect import deployed

  return deployed.restore(experiments.build, run.config, run.workdir)


def _sessions(name: str, X: Any) -> tuple[bytes, dict[int, int], Any]:
  """Sessions as a csv.

  Returns:
    the csv; of a frame also a digest of the events of each session, by that of
    its name, and the index of the frame if it has one.

  Raises:
    DataError: a frame lacks a column, or a session or an event is missing.
  """
  if not (hasattr(X, "columns") or isinstance(X, Mapping)):
    every = [
      frames.column(f"{name}[{n}]", x)
      for n, x in enumerate(frames.column(name, X))
    ]
    for n, events in enumerate(every):
      places = [t for t, x in enumerate(events) if _is_empty(x)]
      if places or not events:
        place = f"[{places[0]}]" if places else ""
        raise DataError(f"{name}[{n}]{place}: has no event")
    pairs = [(n, x) for n, events in enumerate(every) for x in events]
    numbers, events = zip(*pairs, strict=True) if pairs else ((), ())
    return frames.encoded({"session": numbers, "event": events}), {}, None
  table = frames.columns_of(name, X)
  for one in ("session", "event"):
    if one not in table:
      raise DataError(f"{name}: has no column {one!r}, only {listed([*table])}")
    for n, value in enumerate(table[one]):
      if _is_empty(value):
        raise DataError(f"{name}[{one!r}][{n}]={value!r}: is missing")
  seen: dict[int, int] = {}
  for session, event in zip(table["session"], table["event"], strict=True):
    key = digest(str(session).encode())
    seen[key] = digest(f"{seen.get(key)} {event}".encode())
  columns = ("session", "event", "timestamp")
  used = {one: table[one] for one in columns if one in table}
  rows = X.index if hasattr(X, "iloc") else None  # Of pandas.
  return frames.encoded(used), seen, rows


def _is_empty(value: Any) -> bool:
  return frames.is_missing(value) or not str(value).strip()
