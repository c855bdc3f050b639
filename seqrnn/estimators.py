"""Estimators by scikit-learn's conventions, over data in memory.

A fit is a run, in a temporary folder that is removed with the estimator, or in
`workdir`. There is no `warm_start` and no `partial_fit`: the vocabulary is made
before a training begins. `train.start_from` in `settings` starts from a run.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from seqrnn import load_api
from seqrnn.config.field import FieldValue
from seqrnn.data import splits
from seqrnn.data.read import frames
from seqrnn.data.read.reading import Source
from seqrnn.data.vocabulary import RESERVED
from seqrnn.errors import DataError, Interrupted, counted, listed, needs_package
from seqrnn.scoring import spans

with needs_package("an estimator", "sklearn", "sklearn"):
  from sklearn import base
  from sklearn.metrics import accuracy_score
  from sklearn.utils import check_consistent_length, check_random_state
  from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
  import pandas as pd  # pyright: ignore[reportMissingImports]

  from seqrnn.logs.detect import deployed
  from seqrnn.run import Run

# The fields that parameters of the same last name set, unless they are None.
_FIELDS = (
  *("model.cell", "model.hidden_size", "model.layers", "model.dropout"),
  *("model.embedding_size", "data.unit", "data.window", "train.batch_size"),
  *("optimizer.learning_rate", "train.epochs", "train.max_steps"),
)


@dataclass(frozen=True)
class Page:
  """The report of an estimator, a page of HTML, which a notebook shows."""

  path: Path

  def _repr_html_(self) -> str:
    content = self.path.read_text("utf-8")
    content = content.replace("&", "&amp;").replace('"', "&quot;")
    style = "width: 100%; height: 40em; border: 0"
    return f'<iframe srcdoc="{content}" style="{style}"></iframe>'


# Explicit parameters by name, as scikit-learn inspects them.
_parameters = dataclass(kw_only=True, eq=False, repr=False)


@_parameters
class _Estimator(base.BaseEstimator):
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
    early_stopping: whether `n_iter_no_change` epochs without a lower loss end
      the training, with the parameters of the lowest one.
    validation_fraction: the share that is held out, for evaluations.
    n_iter_no_change: see `early_stopping`.
    random_state: the seed.
    workdir: the folder of the run; None: a temporary one.
    verbose: 1: a fit prints a line with its figures; 2: also its progress.
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
  verbose: int = 0
  settings: Mapping[str, FieldValue] | None = None

  _preset: ClassVar[dict[str, FieldValue]] = {}

  def __sklearn_tags__(self):
    """One column of texts."""
    tags = super().__sklearn_tags__()
    tags.input_tags.string = tags.input_tags.one_d_array = True
    tags.input_tags.two_d_array = False
    return tags

  @property
  def _run(self) -> "Run":
    check_is_fitted(self)
    load_api().launch.refuse_fork()
    return self.run_

  @property
  def history_(self) -> "pd.DataFrame":
    """The table of the evaluations of the training."""
    return self._run.metrics

  def report(self) -> Page:
    """Writes the report of the run, and returns it; a notebook shows it."""
    call = load_api().call
    return Page(call("report", None, self._run.workdir, {}, False)[0])

  def _train(self, name: str, content: bytes, fields: Mapping[str, FieldValue]):
    """Trains on a file of this name and content."""
    seed = self.random_state
    if not isinstance(seed, int | np.integer):
      seed = check_random_state(seed).randint(2**31)
    own = {x: getattr(self, x.rpartition(".")[2]) for x in _FIELDS}
    stops = {"train.patience": self.n_iter_no_change, "train.eval_every": None}
    settings = {
      **self._preset,
      **{name: value for name, value in own.items() if value is not None},
      **(stops if self.early_stopping else {}),
      "seed": int(seed),
      "data.validation_fraction": self.validation_fraction,
      "data.test_fraction": 0.0,
      **fields,
      **(self.settings or {}),
    }
    api = load_api()
    from seqrnn.run import kept, temporary
    from seqrnn.training import history

    own_folder = nullcontext(self.workdir) if self.workdir else temporary()
    with own_folder as folder:
      file = frames.written(Path(folder, "data"), {name: content})
      how = {"verbose": self.verbose > 1, **settings, **file}
      try:
        run = api.train(self.config, folder, **how)
      except Interrupted as error:  # An Exception would be a fit that failed.
        raise KeyboardInterrupt(str(error)) from None
    self.run_ = run if self.workdir else kept(run)
    if self.verbose:
      rows = history.read_rows(run.workdir / "metrics.csv")
      [best] = (row for row in rows if row["step"] == str(run.step))
      pairs = (x for x in best.items() if x[0].startswith("validation_"))
      shown = ", ".join(f"{x[11:]} {float(y):.4g}" for x, y in pairs)
      print(f"{type(self).__name__}: step {run.step:,}, validation {shown}")


def _labels(
  name: str, values: list[Any]
) -> tuple[np.ndarray, list[str], list[str]]:
  """The distinct labels, sorted, their names in a file, and that of each value.

  Raises:
    DataError: one is missing or a list, or there are no two of different names.
  """
  for n, value in enumerate(values):
    if isinstance(value, list | tuple) or frames.is_missing(value):
      raise DataError(f"{name}[{n}]={value!r}: is missing, or not one label")
  classes, places = np.unique(np.asarray(values), return_inverse=True)
  names = [" ".join(str(label).split()) or repr(label) for label in classes]
  if len({*names}) < max(len(names), 2):
    raise DataError(f"{name}: has the labels {names}; two must differ")
  return classes, names, [names[i] for i in places]


class _OfTexts(_Estimator):
  """What estimators share that give each text an answer."""

  _task: ClassVar[str]
  _preset = {"data.lowercase": True, "data.punctuation": True}

  def _fit(self, texts: list[str], answers: dict[str, Any]):
    fields = {"task": self._task, "data.format": "csv"}
    if self.unit not in (None, "word"):
      fields |= dict.fromkeys(_OfTexts._preset, False)
    fields["data.label_column"] = ",".join(answers)
    content = frames.encoded({"text": texts, **answers})
    self._train("train.csv", content, fields)


@_parameters
class TextClassifier(base.ClassifierMixin, _OfTexts):
  """A label for each text.

  Example:
    >>> clf = seqrnn.TextClassifier(hidden_size=32).fit(df.text, df.label)
    >>> new[clf.classes_] = clf.predict_proba(new.text)

  Attributes:
    classes_: the labels, sorted.
  """

  _task = "classification"

  def fit(self, X: Iterable[str], y: Iterable) -> "TextClassifier":
    """Trains on texts and their labels."""
    texts, values = frames.texts("X", X), frames.column("y", y)
    check_consistent_length(texts, values)
    classes, names, labels = _labels("y", values)
    distinct = len({*texts})
    if len(names) > max(distinct, len(texts) / 2):
      raise DataError(
        f"X, y: {counted(distinct, 'distinct text')} have {len(names):,}"
        " labels; are X and y swapped?"
      )
    self._fit(texts, {"label": labels})
    self.classes_, self._names = classes, names
    return self

  def predict_proba(self, X: Iterable[str]) -> np.ndarray:
    """The probability of each of `classes_` for each text."""
    p_NV = self._run.predict_proba(frames.texts("X", X, blank=True))
    p_NV = p_NV / p_NV.sum(axis=1, keepdims=True, dtype=np.float64)
    column_of = dict(zip(self._run.labels, p_NV.T, strict=True))
    never = np.zeros(len(p_NV))  # Of a label of the validation split alone.
    return np.stack([column_of.get(x, never) for x in self._names], axis=1)

  def predict_log_proba(self, X: Iterable[str]) -> np.ndarray:
    """The logarithm of `predict_proba`."""
    with np.errstate(divide="ignore"):
      return np.log(self.predict_proba(X))

  def predict(self, X: Iterable[str]) -> np.ndarray:
    """The most likely label of each text."""
    best = self.predict_proba(X).argmax(axis=1)
    return self.classes_[best]


@_parameters
class TextRegressor(base.RegressorMixin, _OfTexts):
  """One or several numbers for each text.

  Example:
    >>> stars = seqrnn.TextRegressor().fit(df.text, df[["depth", "stars"]])
    >>> stars.predict(new.text)
  """

  _task = "regression"
  _preset = {**_OfTexts._preset, "model.pooling": "mean"}

  def fit(self, X: Iterable[str], y: Any) -> "TextRegressor":
    """Trains on texts and their numbers, [texts] or [texts, numbers]."""
    texts, values = frames.texts("X", X), y if hasattr(y, "__len__") else [*y]
    values = np.asarray(values, np.float64)
    check_consistent_length(texts, values)
    for place in np.argwhere(~np.isfinite(values)).tolist():
      raise DataError(f"y{place}={values[*place]}: must be finite")
    columns = values.reshape(len(values), -1).T.tolist()
    names = [str(one) for one in getattr(y, "columns", ["y"])]
    if len({*names} - {"text"}) < len(columns) or "," in "".join(names):
      names = [f"y{n}" for n in range(len(columns))]
    self._fit(texts, dict(zip(names, columns, strict=True)))
    self._shape = values.shape[1:]
    return self

  def predict(self, X: Iterable[str]) -> np.ndarray:
    """The numbers of each text, in the shape of those of the fit."""
    found = self._run.predict(frames.texts("X", X, blank=True))
    return np.array([one.numbers[0] for one in found]).reshape(-1, *self._shape)


@_parameters
class Tagger(_Estimator):
  """A tag for each word of a sentence.

  Example:
    >>> tagger = seqrnn.Tagger().fit(words, tags)
    >>> tagger.predict([["films", "by", "Chris", "Marker"]])
    [['O', 'O', 'B-PER', 'I-PER']]

  Attributes:
    classes_: the tags, sorted.
    metric_: of `score`: `accuracy`, or `f1` where the tags mark spans.
  """

  config: str = "ud_ewt"

  def fit(self, X: Iterable, y: Iterable) -> "Tagger":
    """Trains on sentences, as lists of words, and lists of their tags."""
    words, tags = self._pairs(X, y)
    classes, names, labels = _labels("y", [*chain(*tags)])
    lines, label = [], iter(labels)
    for n, sentence in enumerate(words):
      for t, word in enumerate(sentence):
        if {*word} & {*"\t\n\r"}:
          raise DataError(f"X[{n}][{t}]={word!r}: has a tab or a line break")
        # CoNLL-U, whose words may have spaces.
        lines.append(f"{t + 1}\t{word}\t_\t{next(label)}" + "\t_" * 6)
      lines.append("")
    fields = {"task": "tagging", "data.format": "conllu"}
    self._train("train.conllu", "\n".join([*lines, ""]).encode(), fields)
    self.classes_ = classes
    self._tag_of = dict(zip(names, classes.tolist(), strict=True))
    self.metric_ = "f1" if spans.scheme(names) else "accuracy"
    return self

  def predict(self, X: Iterable) -> list[list]:
    """The tags of each sentence."""
    found = self._run.predict(frames.sequences("X", X, "word"), top_k=1)
    tags = [self._tag_of[name] for name in self._run.labels]
    return [[tags[i - len(RESERVED)] for i in one.ids[:, 0]] for one in found]

  def score(self, X: Iterable, y: Iterable) -> float:
    """The share of correct tags, or the F1 of spans, as `metric_` says."""
    words, tags = self._pairs(X, y)
    true, found = [*chain(*tags)], [*chain(*self.predict(words))]
    if self.metric_ == "accuracy":
      return float(accuracy_score(true, found))
    labels, begins = self._run.experiment.labels, np.zeros(len(true), bool)
    begins[np.cumsum([0, *map(len, tags[:-1])])] = True
    true, found = (spans.codes(labels, [*map(str, x)]) for x in (true, found))
    counts_3K = spans.count_spans(labels, true, found, begins)
    return spans.figures(counts_3K.sum(axis=1))["f1"]

  def _pairs(self, X, y) -> tuple[list[list[str]], list[list]]:
    words, tags = frames.sequences("X", X, "word"), frames.column("y", y)
    check_consistent_length(words, tags)
    tags = [frames.column(f"y[{n}]", x) for n, x in enumerate(tags)]
    for n, (one, other) in enumerate(zip(words, tags, strict=True)):
      if len(one) != len(other):
        raise DataError(
          f"y[{n}]: has {counted(len(other), 'tag')}, where X[{n}] has"
          f" {counted(len(one), 'word')}"
        )
    return words, tags


@_parameters
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
    content = frames.encoded({"text": texts, "label": ["text"] * len(texts)})
    fields = {"data.format": "csv"}
    if len(texts) < 10:  # Too few to hold whole ones out.
      fields["data.split"] = "tails"
    self._train("train.csv", content, fields)
    return self

  def score_samples(self, X: Iterable[str]) -> np.ndarray:
    """The logarithm of the probability of each text, in nats."""
    each = self._run.score(frames.texts("X", X))
    return np.array([-nll.sum(dtype=np.float64) for nll in each])

  def score(self, X: Iterable[str], y: None = None) -> float:  # noqa: ARG002
    """The negative bits a symbol."""
    nll = np.concatenate(self._run.score(frames.texts("X", X)))
    return -float(nll.mean(dtype=np.float64) / np.log(2))

  def sample(self, prime: str = "", **settings: FieldValue) -> list:
    """Draws texts that begin with `prime`, as `Run.sample` does."""
    return self._run.sample(prime, **settings)


@_parameters
class SessionDetector(base.OutlierMixin, _Estimator):
  """Anomalous sessions of events, at a false-alarm rate.

  Sessions are lists of events; or a frame with the columns `session`, `event`
  and perhaps `timestamp`, whose rows, not timestamps, are the order of both.

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
  folds: int = 5

  def fit(self, X: Any, y: None = None) -> "SessionDetector":  # noqa: ARG002
    """Trains on sessions, of which few are anomalous, and calibrates."""
    content, self._names, self._rows = _sessions("X", X)
    fields = {"data.unit": "session", "data.format": "csv"}
    fields |= {"detect.rate": self.rate, "detect.folds": self.folds}
    self._train("train.csv", content, fields)
    path = {"detect.path": self.run_.config.data.path}
    load_api().detect(None, self.run_.workdir, verbose=self.verbose > 1, **path)
    rate, self.offset_ = self.rate, -np.finfo(float).max  # None can be flagged.
    if self._deployed().normal.scores["combined"].resolution <= rate:
      self.offset_ = float(np.nextafter(np.log(rate * (1 + 1e-12)), 0))
    return self

  def predict(self, X: Any) -> np.ndarray:
    """-1 for each session that is flagged, and 1 for the others."""
    return np.where(self._decide(X, lambda decision: decision.flags), -1, 1)

  def p_values(self, X: Any) -> np.ndarray:
    """The share of normal sessions that are as anomalous as each session."""
    return self._decide(X, lambda decision: decision.p)

  def score_samples(self, X: Any) -> np.ndarray:
    """The log p-value of each session; a lower one is more anomalous."""
    return -self._decide(X, lambda decision: decision.scores["combined"])

  def decision_function(self, X: Any) -> np.ndarray:
    """`score_samples` less `offset_`; negative where `rate` flags a session."""
    return self.score_samples(X) - self.offset_

  def _deployed(self) -> "deployed.Deployed":
    from seqrnn import experiments
    from seqrnn.logs.detect import deployed

    run = self._run
    return deployed.restore(experiments.build, run.config, run.workdir)

  def _decide(self, X: Any, column: Callable[..., np.ndarray]) -> np.ndarray:
    """A column of the decision, for each session."""
    from seqrnn.data.logs import log_corpus, sessions
    from seqrnn.logs.detect.findings import find_anomalies

    known, (content, names, rows) = self._deployed(), _sessions("X", X)
    again = names & self._names
    if again and rows is not None and not rows.isin(self._rows).any():
      raise DataError(
        f"X: has other rows of the session {min(again)!r} of the frame of fit;"
        " a frame is split by session, as by GroupKFold with"
        " groups=frame['session']"
      )
    source = Source("X", content)
    corpus = log_corpus.read_table([source], known.config.data)
    cuts = corpus.cuts and corpus.cuts._replace(idle=known.cut)
    trained = corpus._replace(cuts=cuts)  # The log of fit has the idle times.
    corpus = log_corpus.with_cuts(corpus, known.config.detect.idle, trained)
    every = sessions.of_pieces(splits.whole(corpus), known.detector.names)
    found = find_anomalies(known.detector, known.normal, every)
    return column(found.decision)[found.distinct.which]


def _sessions(name: str, X: Any) -> tuple[bytes, set[str], Any]:
  """Sessions as a csv.

  Returns the csv; of a frame of pandas also its sessions and its index.
  """
  if not frames.is_table(X):
    every = enumerate(frames.column(name, X, "session"))
    every = [frames.column(f"{name}[{n}]", x, "event") for n, x in every]
    every = [[*map(_text, events)] for events in every]
    every = frames.sequences(name, every, "event")
    pairs = [(n, event) for n, events in enumerate(every) for event in events]
    table = {"session": [n for n, _ in pairs], "event": [x for _, x in pairs]}
    return frames.encoded(table), set(), None
  table = frames.columns_of(name, X)
  if not {"session", "event"} <= {*table}:
    raise DataError(
      f"{name}: has the columns {listed([*table])}; it needs session and event,"
      " and may have timestamp"
    )
  used = {x: table[x] for x in ("session", "event", "timestamp") if x in table}
  for one in ("session", "event"):
    used[one] = frames.texts(f"{name}[{one!r}]", map(_text, used[one]), one)
  return frames.encoded(used), {*used["session"]}, getattr(X, "index", None)


def _text(value: Any) -> Any:
  """A session or an event, which may be a number, as a text."""
  return value if frames.is_missing(value) else str(value)
