"""Every field of a run: its default, its rule, what it means, where it counts.

The other configs start from this one and override what differs; so does the
command line: `--config.model.hidden_size=256`. A field made by `optional` is
empty by default, and `none` empties it again. A field with conditions (the
last arguments) has an effect only where one of them holds; a run that sets it
elsewhere is warned.

Letters: B batch rows, T window length in symbols, V vocabulary size.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from seqrnn.fields import (
  ABOVE_0,
  BELOW_1,
  BETWEEN,
  FINITE,
  FOLD,
  FOLDS,
  HEADER,
  NATURAL,
  NOT_EMPTY,
  NOT_NEGATIVE,
  ONE_GROUP,
  POSITIVE,
  SEED,
  SIZE,
  SPLIT,
  SWITCH,
  TEMPERATURES,
  TEXT,
  UNIT,
  WHOLE,
  Condition,
  Field,
  Registered,
  choice,
  one_of,
  optional,
  whole,
)


def _cells() -> list[str]:
  """The names of all cells; they are registered where the cells are."""
  from seqrnn.models.cells import CELLS  # With JAX: not before it is needed.

  return sorted(CELLS)


def _cells_that_forget() -> list[str]:
  """The names of the cells with a forget gate."""
  from seqrnn.models.cells import CELLS

  return [name for name in _cells() if CELLS[name](1).forget_place is not None]


def _task(*names: str) -> Condition:
  return {"task": names}


def _optimizer(*names: str) -> tuple[Condition, ...]:
  return ({"optimizer.name": names},)


def _schedule(*names: str) -> tuple[Condition, ...]:
  return ({"schedule.name": names},)


def _group(group: str, /, **fields: Field) -> dict[str, Field]:
  """The fields of a group by their dotted names."""
  return {f"{group}.{name}": field for name, field in fields.items()}


# Conditions. Tasks other than the project's own may use any field.
_SYMBOLS = _task("classification", "gap_model", "language_model", "tagging")
_SPLIT_HERE = _SYMBOLS | {
  f"data.{split}_path": (None,) for split in ("train", "validation", "test")
}
_TABLE = {"data.format": ("csv", "jsonl")}
_CLASSIFIES = _task("classification")
_TWO_WAYS = (_task("gap_model"), {"model.bidirectional": (True,)})
_ONE_OUTPUT = (
  _CLASSIFIES,
  _task("language_model") | {"data.mapping": ("many_to_one",)},
)
_FORGETS = {"model.cell": Registered(_cells_that_forget)}
_ROLLBACK = {"train.on_nonfinite": ("rollback",)}
_BOTH_HEADS = _task("gap_model") | {"model.heads": ("all",)}
_SAMPLES = (_task("language_model", "polyphony"), _BOTH_HEADS)
_SAMPLES_TEXT = (_task("language_model"), _BOTH_HEADS)
_DETECTS = _task("gap_model", "language_model")

DATA = _group(
  "data",
  source=Field(
    "stdlib",
    TEXT,
    "stdlib: the sources of the Python standard library, a module a document."
    " opcodes: the opcodes of its functions, a function a document. packages:"
    " the modules of its packages, labelled by package. topics: the topics of"
    " Python's help. names: surnames, labelled by language (extra `names`)."
    " chords: four-part music made by rules. tinyshakespeare: downloaded once."
    " files: your own, from data.path or from the three paths below it.",
  ),
  path=optional(str, TEXT, "A file, a glob or a folder, split by data.split."),
  train_path=optional(
    str, TEXT, "Instead of data.path, the training split of a corpus."
  ),
  validation_path=optional(str, TEXT, "Its validation split."),
  test_path=optional(str, TEXT, "Its test split."),
  format=Field(
    "text",
    choice(
      *("text", "tab", "space", "csv", "jsonl", "folders", "files", "columns"),
      *("conllu", "spaces"),
    ),
    "How files give labels; text: they give none. Classification: tab (label,"
    " tab, text), space (label, space, text), csv, jsonl, folders (a folder a"
    " label, a file a text), files (a file a label, a line a text). Tagging:"
    " columns (a line has a word and its tag, a blank line ends a sentence),"
    " conllu (word and UPOS), spaces (whether white space follows a symbol).",
  ),
  label_field=Field(
    "label", TEXT, "The column or key of the label.", (_TABLE,)
  ),
  text_field=Field("text", TEXT, "The column or key of the text.", (_TABLE,)),
  unit=Field(
    "char",
    choice("char", "byte", "word", "id", "session", "log"),
    "char; byte; word (separated by white space, a newline is a word); id (one"
    " a line, a file a sequence); session (a sequence a line, ids separated by"
    " spaces, or with data.format=csv a table of session and event); log (the"
    " template of a line of a raw log, extra `logs`).",
    (_SYMBOLS,),
  ),
  log_header=optional(
    str,
    HEADER,
    "The form of a line of a log, as '<Date> <Time> <Level> <Content>'; empty:"
    " the whole line is content.",
  ),
  log_session=optional(
    str,
    ONE_GROUP,
    r"A regular expression whose group is the session of a line, as"
    r" (blk_-?\d+). Empty, with the next two: a file is one session.",
  ),
  log_gap=optional(
    float, POSITIVE, "Seconds of silence that separate two sessions of a log."
  ),
  log_lines=optional(
    int, WHOLE, "The number of lines in each session of a log."
  ),
  errors=Field(
    "strict",
    choice("strict", "replace", "latin-1"),
    "Bytes that are not UTF-8: strict refuses them, replace reads each as"
    " U+FFFD, latin-1 reads all files as Latin-1.",
    (_SYMBOLS,),
  ),
  split=Field(
    "auto",
    choice("auto", "documents", "last_documents", "tails", "stream_tails"),
    "What is held out. documents: whole documents, chosen by a hash of their"
    " names. last_documents: the last ones in order. tails: the end of every"
    " document. stream_tails: the end of each of B equal parts of one text."
    " auto: documents where there are at least 10, else tails.",
    (_SPLIT_HERE,),
  ),
  validation_fraction=Field(
    0.05, BELOW_1, "The share of all symbols to validate on.", (_SPLIT_HERE,)
  ),
  test_fraction=Field(
    0.05, BELOW_1, "The share of all symbols to test on.", (_SPLIT_HERE,)
  ),
  fold=optional(
    str,
    FOLD,
    "As 2/5: the second of five parts of the training split is the test split,"
    " and is not trained on.",
    _SYMBOLS,
  ),
  boundaries=Field(
    True, SWITCH, "Add begin and end symbols to each document.", (_SYMBOLS,)
  ),
  min_count=Field(
    1, WHOLE, "Rarer symbols of the training split are unknown.", (_SYMBOLS,)
  ),
  vocabulary_size=optional(
    int, WHOLE, "Keep so many of the most frequent symbols; all.", _SYMBOLS
  ),
  mapping=Field(
    "many_to_many",
    choice("many_to_many", "many_to_one"),
    "many_to_many: each symbol of a window predicts the next one. many_to_one:"
    " the window predicts the symbol after it.",
  ),
  window=Field(64, WHOLE, "T: how many symbols back the gradient reaches."),
  step=optional(
    int, WHOLE, "Symbols from the start of a window to the next; the window."
  ),
  offset=Field(
    0,
    NATURAL,
    "Where the first training window of a document starts. The symbols before"
    " it are not trained on.",
  ),
  random_offset=Field(
    False,
    SWITCH,
    "Draw the offset of each document anew each epoch. The symbols before it"
    " form a shorter window, so none is lost.",
  ),
  buckets=optional(
    int,
    whole(1, 64, "1 to 64"),
    "The number of lengths that batches may have, each of windows of similar"
    " length; all have the window's.",
  ),
  repeats=Field(
    "each",
    choice("each", "weight"),
    "each: every document by itself. weight: one copy of equal documents,"
    " weighted by its count.",
    (_SYMBOLS,),
  ),
  keep=Field(
    "all",
    choice("all", "first", "last"),
    "The windows of a text longer than one that are classified.",
    (_CLASSIFIES,),
  ),
  stateful=Field(
    False,
    SWITCH,
    "Cut the split into B parallel streams and pass the carry from batch to"
    " batch (truncated backpropagation through time).",
  ),
)

MODEL = _group(
  "model",
  cell=Field(
    "lstm",
    one_of(Registered(_cells)),
    "The recurrent cell, by the name that its class is registered with in"
    " seqrnn/models/cells.py or odyssey.py, which have the equations.",
  ),
  hidden_size=Field(128, SIZE, "The units of a layer, in each direction."),
  parameters=optional(
    int,
    WHOLE,
    "Instead of hidden_size: the run takes the largest one whose model has no"
    " more parameters than this.",
  ),
  layers=Field(2, whole(1, 128, "1 to 128"), "The number of recurrent layers."),
  bidirectional=Field(
    False,
    SWITCH,
    "Read sequences in both directions (many_to_one, classification, tagging).",
    (_task("classification", "language_model", "tagging"),),
  ),
  merge=Field(
    "concat",
    choice("concat", "sum", "mean"),
    "How the outputs of the two directions are merged.",
    _TWO_WAYS,
  ),
  heads=Field(
    "joint",
    choice("joint", "all"),
    "Gap model. joint: predict a symbol from both sides. all: from the past"
    " alone and from the future alone, too, so that the model can sample.",
  ),
  embedding_size=optional(
    int, SIZE, "The size of the embedding; ids go straight to the gates."
  ),
  pooling=Field(
    "last",
    choice("last", "mean", "max"),
    "The one output of a sequence: the final state of each direction, or the"
    " mean or maximum of the outputs at all symbols.",
    _ONE_OUTPUT,
  ),
  letters=optional(
    int,
    SIZE,
    "Units, in each direction, of an LSTM over the characters of a word, whose"
    " states are concatenated to the word's embedding.",
    _task("tagging"),
  ),
  tied=Field(False, SWITCH, "The softmax uses the embedding's weights."),
  forget_bias=Field(
    1.0, FINITE, "The initial bias of a forget gate.", (_FORGETS,)
  ),
  initial_scale=optional(
    float, POSITIVE, "a of the initial values U(-a, a); 1/sqrt(fan in)."
  ),
  scan=Field(
    "fused",
    choice("fused", "plain"),
    "fused: a scan and products with gradients of their own, which take less"
    " time. plain: nn.scan and JAX's own products. Values and gradients are the"
    " same.",
  ),
  products=Field(
    "float32",
    choice("float32", "bfloat16"),
    "The type that factors of matrix products are rounded to; states, sums and"
    " parameters stay in float32.",
  ),
  dropout=Field(
    0.0, BELOW_1, "Dropout after the embedding and after each layer."
  ),
  variational_dropout=Field(
    0.0,
    BELOW_1,
    "Dropout at the same places, of the same units at all steps of a sequence"
    " or window (Gal & Ghahramani 2016).",
  ),
  recurrent_dropout=Field(
    0.0, BELOW_1, "The same, of the state that the recurrent product reads."
  ),
  embedding_dropout=Field(
    0.0,
    BELOW_1,
    "The share of symbols whose embedding is zero for a batch (Merity et al."
    " 2017).",
  ),
  weight_drop=Field(
    0.0,
    BELOW_1,
    "The share of the recurrent kernels' entries that are zero for a batch"
    " (DropConnect: Wan et al. 2013, Merity et al. 2017).",
  ),
  zoneout_hidden=Field(
    0.0,
    BELOW_1,
    "The share of the units of h that a step leaves unchanged (Krueger et al."
    " 2017).",
  ),
  zoneout_cell=Field(
    0.0, BELOW_1, "The same of the rest of the carry, as the LSTM's c."
  ),
  activation_penalty=Field(
    0.0,
    NOT_NEGATIVE,
    "The factor of the mean square of the last layer's outputs in the training"
    " loss (AR: Merity et al. 2017).",
  ),
  change_penalty=Field(
    0.0,
    NOT_NEGATIVE,
    "The factor of the mean square of their change from step to step (TAR).",
  ),
  symbol_dropout=Field(
    0.0,
    BELOW_1,
    "The share of input symbols replaced by the unknown symbol in training, so"
    " that the model learns what an unknown symbol or a gap means.",
  ),
  input_noise=Field(
    0.0,
    NOT_NEGATIVE,
    "Polyphony: the standard deviation of noise added in training.",
  ),
)

OPTIMIZER = _group(
  "optimizer",
  name=Field(
    "adam",
    choice("rmsprop", "sgd", "adagrad", "adam", "adamw"),
    "The optimizer.",
  ),
  learning_rate=Field(
    2e-3, POSITIVE, "The learning rate, before the schedule's factor."
  ),
  decay=Field(
    0.9, BELOW_1, "Of the mean squared gradient.", _optimizer("rmsprop")
  ),
  momentum=Field(
    0.0, BELOW_1, "The momentum of updates.", _optimizer("sgd", "rmsprop")
  ),
  nesterov=Field(False, SWITCH, "SGD: Nesterov's momentum."),
  dampened=Field(
    False,
    SWITCH,
    "Multiply gradients by 1 - momentum, so that momentum leaves the size of"
    " updates unchanged.",
    _optimizer("sgd"),
  ),
  beta1=Field(
    0.9, BELOW_1, "Decay of the mean gradient.", _optimizer("adam", "adamw")
  ),
  beta2=Field(
    0.999, BELOW_1, "Decay of its mean square.", _optimizer("adam", "adamw")
  ),
  epsilon=Field(
    1e-8,
    POSITIVE,
    "Added to the divisor of an update.",
    _optimizer("rmsprop", "adagrad", "adam", "adamw"),
  ),
  weight_decay=Field(
    0.0,
    NOT_NEGATIVE,
    "AdamW: times the learning rate, subtracted from the parameters (Loshchilov"
    " & Hutter 2019). Others: the L2 penalty, added to clipped gradients.",
  ),
  clip_norm=optional(
    float, POSITIVE, "The largest norm of all gradients together."
  ),
  clip_value=optional(
    float, POSITIVE, "The largest magnitude of a gradient's entry."
  ),
)

SCHEDULE = _group(
  "schedule",
  name=Field(
    "constant",
    choice("constant", "exponential", "step", "cosine", "plateau"),
    "exponential: times `factor` after each epoch from `after` on. step: times"
    " `factor` every `every` epochs. cosine: to `final` times the learning rate"
    " at the last step. plateau: times `factor` after `patience` evaluations"
    " without a better validation loss.",
  ),
  warmup_steps=Field(
    0, NATURAL, "Steps of a linear rise from 0 before any schedule."
  ),
  factor=Field(
    0.5,
    ABOVE_0,
    "The factor of a decrease.",
    _schedule("exponential", "step", "plateau"),
  ),
  after=Field(10, WHOLE, "Epochs.", _schedule("exponential")),
  every=Field(5, WHOLE, "Epochs.", _schedule("step")),
  final=Field(0.0, UNIT, "A share of the learning rate.", _schedule("cosine")),
  patience=Field(2, WHOLE, "Evaluations.", _schedule("plateau")),
)

TRAIN = _group(
  "train",
  batch_size=Field(64, WHOLE, "B, over all devices together."),
  cpu_devices=optional(
    int,
    whole(1, 64, "1 to 64"),
    "The devices that a process makes of its CPU; 2 where layers are small,"
    " else 1. JAX_NUM_CPU_DEVICES takes precedence.",
  ),
  epochs=Field(10, WHOLE, "Epochs of training."),
  max_steps=optional(
    int, WHOLE, "Stop after so many steps, whatever the epochs."
  ),
  batches_per_epoch=optional(
    int, WHOLE, "Batches that make an epoch; all windows make one."
  ),
  samples_per_epoch=optional(
    int, WHOLE, "Instead of them, the windows that make an epoch."
  ),
  class_weights=Field(
    "none",
    choice("none", "balanced"),
    "balanced: all labels have the same total weight in training.",
    (_CLASSIFIES,),
  ),
  eval_every=optional(int, WHOLE, "Steps between evaluations; an epoch."),
  patience=optional(
    int, WHOLE, "Stop after so many evaluations without improvement."
  ),
  label_smoothing=Field(
    0.0,
    BELOW_1,
    "The share of each target that training spreads over all symbols or labels"
    " (Szegedy et al. 2016).",
  ),
  ema=optional(
    float,
    BETWEEN,
    "Evaluate and keep an exponential mean of the parameters; those of n steps"
    " ago have weight ema^n.",
  ),
  asgd=optional(
    int,
    WHOLE,
    "Evaluate and keep the mean of the parameters since the asgd-th evaluation"
    " without a better validation loss (NT-ASGD: Merity et al. 2017).",
  ),
  on_nonfinite=Field(
    "stop",
    choice("stop", "rollback"),
    "What a loss, gradient or parameter that is not finite does. stop: it ends"
    " the run. rollback: it continues from the last good checkpoint.",
  ),
  rollback_factor=Field(
    0.5, BETWEEN, "The factor of the learning rate then.", (_ROLLBACK,)
  ),
  rollbacks=Field(
    3, WHOLE, "The number of rollbacks before the run ends.", (_ROLLBACK,)
  ),
  sample_length=Field(
    60,
    whole(0, 10**4, "0 to 10,000"),
    "Symbols of the sample that a terminal shows at each evaluation; 0: none.",
  ),
  tensorboard=Field(
    False,
    SWITCH,
    "Write figures, samples and histograms for TensorBoard at each evaluation"
    " (extra `tensorboard`).",
  ),
)

CHECKPOINT = _group(
  "checkpoint",
  keep=Field(
    2, WHOLE, "The number of latest checkpoints kept, beside the best."
  ),
  every=optional(int, WHOLE, "Steps between checkpoints; at evaluations only."),
  step=optional(
    int, NATURAL, "The step of the checkpoint that a mode reads; the best."
  ),
)

EVALUATE = _group(
  "evaluate", split=Field("test", SPLIT, "The split to evaluate.")
)

DESCRIBE = _group(
  "describe",
  measure=Field(True, SWITCH, "Time three steps; else estimate only."),
)

PREDICT = _group(
  "predict",
  split=Field("validation", SPLIT, "The split to predict."),
  text=optional(
    str, TEXT, "Instead of a split, a text typed on the command line."
  ),
  path=optional(
    str,
    TEXT,
    "Instead of a split, a file, a glob or a folder in the form of data.format"
    " and data.unit. Labels and tags may be missing.",
  ),
  gap=Field(
    "_",
    NOT_EMPTY,
    "What marks a gap in a text or file.",
    (_task("gap_model"),),
  ),
  top_k=Field(5, WHOLE, "The number of predictions of a symbol."),
  sequences=Field(
    3,
    WHOLE,
    "How many sequences of a split are predicted, and of a file shown.",
  ),
  symbols=Field(
    40, WHOLE, "How many symbols of each sequence the table shows."
  ),
)

SAMPLE = _group(
  "sample",
  temperature=Field(
    (1.0,),
    TEMPERATURES,
    "One or several; 0 takes the most likely symbol.",
    _SAMPLES,
  ),
  length=Field(500, WHOLE, "Symbols of a text.", _SAMPLES),
  streams=Field(1, WHOLE, "Texts for a temperature.", _SAMPLES),
  prime=Field(
    "",
    TEXT,
    "A text to continue. Music: the number of a piece of the test split from 0,"
    " or its first frames, as 3:16; else from silence.",
    _SAMPLES,
  ),
  top_k=optional(
    int, WHOLE, "Draw from the k most likely symbols only.", *_SAMPLES_TEXT
  ),
  top_p=optional(
    float,
    ABOVE_0,
    "Draw from the smallest set of this probability only.",
    *_SAMPLES_TEXT,
  ),
  seed=Field(0, SEED, "The seed of the draws.", _SAMPLES),
  tempo=Field(
    120,
    whole(4, 10_000, "4 to 10,000"),  # The limits of MIDI.
    "Music: frames a minute.",
    (_task("polyphony"),),
  ),
)

DETECT = _group(
  "detect",
  path=optional(
    str,
    TEXT,
    "Sessions to score, in the form of data.unit and data.format; the test"
    " split.",
  ),
  anomalous_path=optional(
    str, TEXT, "Sessions known to be anomalous; detect.path has normal ones."
  ),
  labels=optional(
    str, TEXT, "A csv file with the names and labels of the sessions."
  ),
  normal_labels=Field(
    "0,-,false,no,normal,benign,success,ok,negative,good,pass,passed,healthy,"
    "legitimate",
    TEXT,
    "Labels of normal sessions, separated by commas, in any case. Equal numbers"
    " are one label.",
  ),
  anomalous_labels=Field(
    "1,true,yes,anomaly,anomalous,abnormal,attack,positive,malicious",
    TEXT,
    "Labels of anomalous sessions. A label in neither list is taken as"
    " anomalous, with a warning unless this list is empty.",
  ),
  inject=Field(
    0.0,
    BELOW_1,
    "The share of the sessions that are made anomalous first, as a trial.",
  ),
  seed=Field(0, SEED, "The seed of inject and of the bootstrap."),
  head=Field(
    "forward",
    TEXT,
    "What an event's probability depends on: forward, the events before it; of"
    " a gap model also backward, those after it, and joint, both.",
  ),
  unknown=Field(
    20.0,
    NOT_NEGATIVE,
    "The least surprisal, in nats, of an event unseen in training.",
  ),
  short=Field(
    "score",
    choice("score", "flag"),
    "Sessions of at most data.window events. score: as the others. flag: always"
    " flagged, as DeepLog's programs do, outside the rule and its budget.",
  ),
  top_mean=Field(
    5, WHOLE, "The number of largest surprisals whose mean is a score."
  ),
  scores=Field(
    "max,mean,count_vector",
    TEXT,
    "The scores of a session that are combined: max, mean, top_mean (of the"
    " surprisals), misses (of top_k), unknown (events), or baselines.",
  ),
  combine=Field(
    "fisher",
    choice("min", "fisher"),
    "min: the least p-value decides. fisher: the product of the p-values.",
  ),
  folds=Field(
    5,
    FOLDS,
    "Calibrate on so many parts of the training sessions, each scored by a"
    " model trained on the others. 0: on the validation split.",
  ),
  rule=Field(
    "rate",
    choice("rate", "events", "budget", "bh", "topk"),
    "What is flagged. rate: sessions, at this rate of false alarms. events:"
    " those with an event flagged at event_rate. budget: so many of the highest"
    " scores. bh: so that `false_share` of the flagged are normal (Benjamini &"
    " Hochberg 1995). topk: those with an event outside the top_k (DeepLog).",
  ),
  rate=Field(0.005, BETWEEN, "The rate of false alarms of sessions."),
  event_rate=Field(0.001, BETWEEN, "The rate of false alarms of events."),
  budget=Field(
    100,
    WHOLE,
    "Sessions flagged; equal ones are counted once.",
    (_DETECTS | {"detect.rule": ("budget",)},),
  ),
  false_share=Field(
    0.1,
    BETWEEN,
    "The expected share of normal sessions among the flagged.",
    (_DETECTS | {"detect.rule": ("bh",)},),
  ),
  top_k=Field(
    9, WHOLE, "An event that is not among so many most likely ones is a miss."
  ),
  baselines=Field(True, SWITCH, "Compute the scores of the baselines, too."),
  events=Field(
    "flagged",
    choice("flagged", "all", "none"),
    "The sessions whose events are written.",
  ),
  format=Field(
    "csv",
    choice("csv", "jsonl", "csv.gz", "jsonl.gz"),
    "The form of the files of sessions and events.",
  ),
  alternatives=Field(
    3, NATURAL, "The number of likelier events written beside each event."
  ),
  worst=Field(20, NATURAL, "The number of sessions in the table."),
  bootstrap=Field(
    200, NATURAL, "The number of draws for confidence intervals."
  ),
  followed=Field(
    100_000,
    WHOLE,
    "--follow: the number of open sessions in memory. Beyond it, the session"
    " whose last event is oldest has ended.",
  ),
)

REPORT = _group(
  "report",
  beside=Field("", TEXT, "Workdirs to compare with, separated by commas."),
)

SEARCH = _group(
  "search",
  method=Field(
    "tpe",
    choice("tpe", "random", "grid", "coarse"),
    "tpe: Optuna's tree of Parzen estimators. random. grid: all combinations."
    " coarse: the learning rate alone, 1 and then a tenth of it until the loss"
    " stops improving, then three times and a third of the best (Greff et al."
    " 2017).",
  ),
  coarse_size=Field(
    64,
    SIZE,
    "The largest hidden size of a trial.",
    ({"search.method": ("coarse",)},),
  ),
  trials=Field(40, WHOLE, "No trial starts after so many."),
  minutes=optional(float, POSITIVE, "No trial of this command starts later."),
  symbols=optional(
    int, WHOLE, "No trial starts once all have trained on so many symbols."
  ),
  pruning=Field(
    "median",
    choice("median", "hyperband", "none"),
    "Which trials end early, at an evaluation. median: those behind the median"
    " of earlier ones. hyperband: those behind two thirds, more often early.",
    ({"search.method": ("tpe", "random", "grid")},),
  ),
  workers=optional(
    int,
    whole(1, 1024, "1 to 1024"),
    "Processes on this machine, each with its share of the cores; one for each"
    " core where layers are small and the method is not coarse, else one.",
  ),
  storage=optional(
    str,
    TEXT,
    "A database as an SQLAlchemy URL, postgresql+psycopg://USER@HOST/NAME"
    " (extra `postgres`); a file in the workdir, which machines may share.",
  ),
)

TRAINING = {
  "task": Field("language_model", TEXT, "A module of experiments/."),
  "seed": Field(0, SEED, "Of initial values, the order of windows, dropout."),
  **DATA,
  **MODEL,
  **OPTIMIZER,
  **SCHEDULE,
  **TRAIN,
}

_SPACE = (
  "Its values in a search: log_uniform(low, high), uniform(low, high),"
  " integer(low, high), one_minus_log_uniform(low, high) with the bounds of"
  " 1 - value, choice(a, b, ...) or grid(a, b, ...)."
)
FIELDS = {
  **TRAINING,
  **CHECKPOINT,
  **EVALUATE,
  **DESCRIBE,
  **PREDICT,
  **SAMPLE,
  **DETECT,
  **REPORT,
  **SEARCH,
  **{f"search.space.{name}": optional(str, TEXT, _SPACE) for name in TRAINING},
}


def get_config() -> ConfigDict:
  """The defaults: a unidirectional language model of the standard library."""
  config = ConfigDict()
  for name, field in FIELDS.items():
    *groups, key = name.split(".")
    group = config
    for part in groups:
      if part not in group:
        group[part] = ConfigDict()
      group = group[part]
    group[key] = (
      placeholder(field.optional) if field.optional else field.default
    )
  return config.lock()
