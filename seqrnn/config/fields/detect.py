"""Which sessions are anomalous."""

from seqrnn.config import rules
from seqrnn.config.field import WRITTEN, choice, group, input_path
from seqrnn.config.fields import conditions as when

FIELDS = group(
  "detect",
  path=input_path("The sessions to score. Empty: the test split."),
  anomalous_path=input_path("Anomalous sessions; detect.path has normal ones."),
  labels=input_path("A CSV file with sessions and their labels."),
  normal_labels=rules.TEXT(
    "The labels of normal sessions, in any case, separated by commas.",
    default="0,-,false,no,normal,benign,success,ok,negative,good,pass,passed,healthy,legitimate",
  ),
  inject=rules.SHARE("The share of sessions with injected anomalies."),
  head=rules.TEXT(
    "The events that predict an event. forward: earlier ones. A gap model also"
    " has backward (later ones) and joint (both).",
    default="forward",
  ),
  idle=rules.NOT_NEGATIVE(
    "Seconds, or lines of a log without times, after which a session is"
    " complete; the end of an open one is left out. Empty: learned. 0: all are."
  ),
  short=choice(
    "score flag",
    "Sessions of at most data.window events. score: as longer ones. flag: flag"
    " them all, as DeepLog's programs do.",
  ),
  scores=rules.TEXT(
    "Scores to combine: max, mean, top_mean, misses, value, gap or a baseline."
    " Empty: unknown, counts, max, mean and markov_5, and where sessions have"
    " numbers or times, value and gap."
  ),
  folds=rules.FOLDS(
    "Models trained and calibrated on folds of the training sessions; they are"
    " the detector. 0: the run's model, calibrated on the validation split.",
    default=4,
  ),
  contamination=rules.SHARE(
    "The largest share of sessions that folds and calibration may leave out as"
    " anomalous.",
    default=0.1,
  ),
  rule=choice(
    "rate events budget bh topk",
    "The sessions to flag. rate: at the false-alarm rate detect.rate. events:"
    " with a flagged event, at this rate of events. budget: the detect.budget"
    " highest. bh: a share detect.rate of the flagged is normal (Benjamini &"
    " Hochberg). topk: with an event outside the detect.top_k most likely.",
  ),
  rate=rules.BETWEEN_0_1("The rate of detect.rule.", default=0.005),
  budget=rules.COUNT(
    "The sessions to flag; equal ones count once.",
    when.DETECTION | {"detect.rule": ("budget",)},
    default=100,
  ),
  top_k=rules.COUNT("An event outside the k most likely is a miss.", default=9),
  events=choice("flagged all none", "The sessions with events in events.csv."),
  engine=choice(
    "local spark",
    "spark: Apache Spark scores with the models of the last detection (extra"
    " `spark`).",
  ),
  output=rules.NOT_EMPTY(
    "The folder of Spark's tables (empty: detect-spark in the workdir), or of"
    " the state and alarms of --follow (empty: follow in the workdir).",
    place=WRITTEN,
  ),
  follow=choice(
    "alarms sessions",
    "Lines of --follow. alarms: flagged sessions. sessions: all.",
  ),
  quiet=rules.NOT_NEGATIVE(
    "Minutes in which --follow only counts similar, not more severe alarms.",
    default=60.0,
  ),
  input=input_path("The log that --follow reads. Empty: standard input."),
  followed=rules.COUNT("The most open sessions of --follow.", default=100_000),
  port=rules.LISTENS(
    "The port of --follow for /metrics and /healthz, on this machine; 0: any"
    " free one. ADDRESS:PORT opens it to others, without a password.",
    place=WRITTEN,
  ),
  refresh=rules.NOT_NEGATIVE(
    "The days of the log, up to its end, of which --mode=refresh makes the next"
    " model. Empty: since the last change of the log. 0: go back by one."
  ),
  redact=rules.MASKED(
    "A regular expression of texts to mask in alarms, tables and reports;"
    " <secrets> stands for e-mail addresses, tokens and passwords.",
    default=rules.SECRETS,
  ),
)
