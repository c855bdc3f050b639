"""Which sessions are anomalous."""

from seqrnn.config.field import (
  BELOW_1,
  BETWEEN_0_1,
  COUNT,
  FOLDS,
  LISTENS,
  MASKED,
  NATURAL,
  NOT_EMPTY,
  NOT_NEGATIVE,
  READ,
  SECRETS,
  TEXT,
  WRITTEN,
  Field,
  choice,
  optional,
)
from seqrnn.config.fields.conditions import DETECTION, group

DETECT = group(
  "detect",
  path=optional(
    str,
    TEXT,
    "The sessions to score, with data.unit and data.format. Empty: the test"
    " split.",
    place=READ,
  ),
  anomalous_path=optional(
    str,
    TEXT,
    "Anomalous sessions. Those of detect.path are then normal.",
    place=READ,
  ),
  labels=optional(
    str,
    NOT_EMPTY,
    "A CSV file with the names and labels of the sessions.",
    place=READ,
  ),
  normal_labels=Field(
    "0,-,false,no,normal,benign,success,ok,negative,good,pass,passed,healthy,legitimate",
    TEXT,
    "The labels of normal sessions, separated by commas. Case is ignored, and"
    " equal numbers are one label.",
  ),
  inject=Field(
    0.0,
    BELOW_1,
    "The share of sessions into which anomalies are injected, to evaluate the"
    " detection.",
  ),
  head=Field(
    "forward",
    TEXT,
    "The head that scores an event. forward: from the events before it. A gap"
    " model has also backward, from the events after it, and joint, from both.",
  ),
  idle=optional(
    float,
    NOT_NEGATIVE,
    "The idle time, in seconds, or in lines of a log without times. A session"
    " silent for less than it at the end of the log is open, so its end is not"
    " scored. Empty: learned from the log. 0: every session is whole.",
  ),
  short=Field(
    "score",
    choice("score", "flag"),
    "Sessions of at most data.window events. score: score them like longer"
    " sessions. flag: flag them in addition to detect.rule, as DeepLog's"
    " programs do.",
  ),
  scores=optional(
    str,
    TEXT,
    "The scores of a session to combine: max, mean and top_mean of surprisals,"
    " misses of detect.top_k, the number of unknown events, or baselines."
    " Empty: max, mean and count_vector, unless others clearly rank anomalies"
    " injected into normal sessions better.",
  ),
  folds=Field(
    4,
    FOLDS,
    "The number of folds of the training sessions. Each fold calibrates a model"
    " trained on the other folds; these models are the detector. 0: the run's"
    " own model, calibrated on the validation split.",
  ),
  contamination=Field(
    0.1,
    BELOW_1,
    "The largest share of sessions left out of the calibration as anomalous."
    " They are left out only if their surprisals form a second mode.",
  ),
  rule=Field(
    "rate",
    choice("rate", "events", "budget", "bh", "topk"),
    "The rule that flags sessions. rate: by their score, at the false-alarm"
    " rate detect.rate. events: if an event is flagged, at the rate detect.rate"
    " of events. budget: the detect.budget highest scores. bh: so that a share"
    " of detect.rate of the flagged sessions is normal (Benjamini & Hochberg"
    " 1995). topk: if an event is not among the detect.top_k most likely events"
    " (DeepLog).",
  ),
  rate=Field(0.005, BETWEEN_0_1, "The rate of detect.rule."),
  budget=Field(
    100,
    COUNT,
    "The number of sessions to flag; equal sessions count once.",
    (DETECTION | {"detect.rule": ("budget",)},),
  ),
  top_k=Field(
    9, COUNT, "An event that is not among the k most likely events is a miss."
  ),
  events=Field(
    "flagged",
    choice("flagged", "all", "none"),
    "The sessions whose events are written.",
  ),
  bootstrap=Field(
    200, NATURAL, "The number of bootstrap samples for confidence intervals."
  ),
  engine=Field(
    "local",
    choice("local", "spark"),
    "What examines detect.path. local: this process. spark: Apache Spark, with"
    " the models and the settings of the last detection (extra `spark`); it"
    " also reads Parquet, and the table table:NAME of Spark's catalog.",
  ),
  output=optional(
    str,
    NOT_EMPTY,
    "The folder of the tables that Spark writes, as Spark names it; empty:"
    " detect-spark in the workdir. Of --follow without Spark the folder of its"
    " state: open sessions, the position in the input, and alarms.jsonl; empty:"
    " follow in the workdir.",
    place=WRITTEN,
  ),
  follow=Field(
    "alarms",
    choice("alarms", "sessions", "events"),
    "The lines of JSON that --follow writes. alarms: flagged sessions."
    " sessions: also each session that has ended. events: also each event.",
  ),
  quiet=Field(
    60.0,
    NOT_NEGATIVE,
    "Minutes of event time in which --follow counts further alarms of a kind,"
    " but writes none that is not more severe.",
  ),
  input=optional(
    str,
    NOT_EMPTY,
    "The log that --follow reads, by its name, across its rotations, from its"
    " begin or from where it was stopped. Without it, standard input.",
    place=READ,
  ),
  followed=Field(
    100_000,
    COUNT,
    "The maximum number of open sessions of --follow. When it is exceeded, the"
    " session whose last event is oldest ends.",
  ),
  port=optional(
    str,
    LISTENS,
    "The port at which --follow shows its figures to Prometheus (/metrics) and"
    " to probes (/healthz), on this machine alone. 0: any free one, which it"
    " names. With an address before it, as 0.0.0.0:9464, other machines read"
    " the figures, which have no password. Empty: none.",
    place=WRITTEN,
  ),
  redact=Field(
    SECRETS,
    MASKED,
    "A regular expression of what is masked in alarms, tables and reports;"
    " <secrets> in it stands for e-mail addresses, tokens and passwords. An"
    " empty text: nothing is masked.",
  ),
)
