"""Every field of a config: its default, rule, meaning and conditions.

The other configs start from these defaults and override fields. So do flags,
such as `--config.model.hidden_size=256`. A field made by `optional` is empty by
default, and the flag value `none` empties it again. A field with conditions
(its last arguments) has an effect only if one of them holds; otherwise setting
it causes a warning.

Letters: B batch rows, T window length in symbols, V vocabulary size.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from seqrnn import catalogue
from seqrnn.settings.fields import (
  ABOVE_0,
  BELOW_1,
  BETWEEN_0_1,
  COLUMN,
  COUNT,
  FINITE,
  FITTED,
  FOLD,
  FOLDS,
  FRACTION,
  HEADER,
  MASKED,
  NATURAL,
  NOT_EMPTY,
  NOT_NEGATIVE,
  ONE_GROUP,
  PARTS,
  POSITIVE,
  SECRETS,
  SEED,
  SIZE,
  SPLIT,
  SWITCH,
  TEMPERATURES,
  TEXT,
  Condition,
  Field,
  Registered,
  choice,
  integer,
  one_of,
  optional,
)


def _cells() -> list[str]:
  """Returns the names of all registered cells."""
  from seqrnn.models.cells import CELLS  # This imports JAX, so it is deferred.

  return sorted(CELLS)


def _sources() -> list[str]:
  """Returns the names of all sources of data."""
  built_in = ("stdlib", "opcodes", "packages", "topics", "names", "chords")
  return [*built_in, "formal", "files", *catalogue.sets()]


def _cells_with_forget_gate() -> list[str]:
  """Returns the names of the cells with a forget gate."""
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
_SPLITS = _SYMBOLS | {
  f"data.{split}_path": (None,) for split in ("train", "validation", "test")
}
_TABLE = {"data.format": ("csv", "jsonl")}
_COLUMNS = {"data.format": ("columns", "conllu")}
_JSON = {"data.log_format": ("auto", "json")}
_CLASSIFICATION = _task("classification")
_TWO_WAYS = (_task("gap_model"), {"model.bidirectional": (True,)})
_POOLED = (
  _CLASSIFICATION,
  _task("language_model") | {"data.mapping": ("many_to_one",)},
)
_FORGET_GATE = {"model.cell": Registered(_cells_with_forget_gate)}
_ROLLBACK = {"train.on_nonfinite": ("rollback",)}
_BOTH_HEADS = _task("gap_model") | {"model.heads": ("all",)}
_SAMPLED = (_task("language_model", "polyphony"), _BOTH_HEADS)
_SAMPLED_TEXT = (_task("language_model"), _BOTH_HEADS)
_DETECTION = _task("gap_model", "language_model")
_NEXT_SYMBOL = _task("language_model") | {"data.mapping": ("many_to_many",)}
_DYNAMIC = _NEXT_SYMBOL | {"evaluate.dynamic": (True,)}
_STATES = {"embed.of": ("texts", "symbols")}

DATA = _group(
  "data",
  source=Field(
    "stdlib",
    one_of(Registered(_sources)),
    "stdlib: the sources of the Python standard library, a document a module."
    " opcodes: the opcodes of its functions, a document a function. packages:"
    " the modules of its packages, labelled by package. topics: the topics of"
    " Python's help. names: surnames, labelled by language (extra `names`)."
    " chords: synthetic four-part music. formal: strings of a formal"
    " language, data.language, with answers as labels or tags. files: your own"
    " files, in data.path, or in data.train_path, data.validation_path and"
    " data.test_path. The other sources are public data sets, downloaded once,"
    " with formats and splits of their own; docs/howto/data.md lists them with"
    " their terms.",
  ),
  language=Field(
    "parity",
    choice(
      *("parity", "even_pairs", "cycle_navigation", "modular_arithmetic"),
      *("reverse_string", "stack_manipulation", "duplicate_string"),
      *("odds_first", "bucket_sort"),
    ),
    "The formal language of data.source=formal (Delétang et al. 2023). parity,"
    " even_pairs, cycle_navigation, modular_arithmetic: strings with a label,"
    " for classification. The others are for tagging: each answer is the tag of"
    " a blank after the string. Training and validation have strings of 1 to 40"
    " symbols, the test has 41 to 100.",
    ({"data.source": ("formal",)},),
  ),
  path=optional(str, TEXT, "A file, a glob or a folder, split by data.split."),
  train_path=optional(
    str, TEXT, "The training split, instead of splitting data.path."
  ),
  validation_path=optional(str, TEXT, "The validation split."),
  test_path=optional(str, TEXT, "The test split."),
  pretrain_path=optional(
    str,
    TEXT,
    "Texts without labels: a file, a glob or a folder. A language model, or a"
    " gap model if the network is bidirectional, is trained on them first, and"
    " the run starts from it.",
    _task("classification", "tagging"),
  ),
  format=Field(
    "text",
    choice(
      *("text", "tab", "space", "csv", "jsonl", "folders", "files", "columns"),
      *("parallel", "conllu", "spaces"),
    ),
    "The format of labels in files. text: no labels. Classification: tab (a"
    " line is label, tab, text), space (label, space, text), csv, jsonl,"
    " folders (a folder for each label, a file for each text), files (a file"
    " for each label, a line for each text). Tagging: columns (a line has a"
    " word and its tag, a blank line ends a sentence), conllu (word and UPOS),"
    " parallel (a line is a sentence; data.tags_file has its tags), spaces"
    " (whether white space follows a symbol).",
  ),
  word_column=optional(
    str,
    COLUMN,
    "The column of the word: its number, from 1, or from the end, -1; or its"
    " name, as FORM in CoNLL-U. Empty: the first; in CoNLL-U FORM.",
    _COLUMNS,
  ),
  tag_column=optional(
    str,
    COLUMN,
    "The column of the tag, as data.word_column. Empty: the last; in CoNLL-U"
    " UPOS. If both are empty, a line of data.format=columns has two columns.",
    _COLUMNS,
  ),
  tags_file=optional(
    str,
    NOT_EMPTY,
    "The file of tags of each file of sentences, relative to its folder. A *"
    " stands for the name of that file without its last suffix: '*.tags' is"
    " train.tags for train.words.",
    {"data.format": ("parallel",)},
  ),
  label_field=Field(
    "label", TEXT, "The column or key of the label.", (_TABLE,)
  ),
  text_field=Field("text", TEXT, "The column or key of the text.", (_TABLE,)),
  unit=Field(
    "char",
    choice("char", "byte", "word", "id", "session", "log"),
    "The symbol of a sequence. char; byte; word (separated by white space; a"
    " newline is a word); id (a line is an id, a file a sequence); session (a"
    " line is a sequence of ids separated by spaces; with data.format=csv, a"
    " table of sessions and events); log (the template of a line of a log).",
    (_SYMBOLS,),
  ),
  log_format=optional(
    str,
    choice(
      *("auto", "json", "access", "syslog5424", "syslog", "cri", "logcat"),
      *("klog", "time", "level", "plain"),
    ),
    "The format of a line of a log. json: an object. access: a request, as"
    " nginx and Apache log it. syslog5424, syslog: as RFC 5424 or RFC 3164"
    " says. cri: of Kubernetes. logcat: of Android. klog: of glog and klog."
    " time: a time, then the content. level: a level, perhaps a time, then the"
    " content. plain: the whole line, or data.log_header. auto: the one that"
    " fits the first lines of the training, which the run keeps. A line that"
    " does not fit, as of a stack trace, is joined to the line before; colours"
    " are removed. Empty: as data.log_header says, each line an event.",
  ),
  log_message=optional(
    str,
    TEXT,
    "The key of the content in JSON lines, as 'body.text', or an attribute.",
    _JSON,
  ),
  log_time=optional(str, TEXT, "The key of the time in JSON lines.", _JSON),
  log_level=optional(
    str,
    TEXT,
    "The key of the level in JSON lines, which is then part of the event.",
    _JSON,
  ),
  log_session_key=optional(
    str, TEXT, "The key of the session in JSON lines.", _JSON
  ),
  log_header=optional(
    str,
    HEADER,
    "The format of a line of a log, such as '<Date> <Time> <Level> <Content>'."
    " Empty: the whole line is the content.",
  ),
  log_session=optional(
    str,
    ONE_GROUP,
    r"A regular expression whose group is the session of a line, such as"
    r" (blk_-?\d+). If it, data.log_gap and data.log_lines are empty, a file is"
    r" one session.",
  ),
  log_gap=optional(
    float, POSITIVE, "Seconds without a line that separate sessions of a log."
  ),
  log_lines=optional(
    int, COUNT, "The number of lines in each session of a log."
  ),
  log_codes=Field(
    True,
    SWITCH,
    "Status codes in a log, such as 404 after 'HTTP/1.1' or 'status:', tell"
    " events apart; False: they are values, as other numbers are.",
    ({"data.unit": ("log",)},),
  ),
  errors=Field(
    "strict",
    choice("strict", "replace", "latin-1"),
    "The handling of bytes that are not UTF-8. strict: refuse them. replace:"
    " read each as U+FFFD. latin-1: read all files as Latin-1.",
    (_SYMBOLS,),
  ),
  split=Field(
    "auto",
    choice(
      "auto",
      "documents",
      "last_documents",
      "shared_lines",
      "tails",
      "stream_tails",
    ),
    "The parts that validate and test. documents: whole documents, chosen by a"
    " hash of their names. last_documents: the last documents in order."
    " shared_lines: as documents, but those that have a line of 40 characters"
    " or more in common stay together, and the largest such group trains."
    " tails: the end of every document. stream_tails: the end of each of B"
    " equal parts of one text. auto: documents if there are at least 10, else"
    " tails.",
    (_SPLITS,),
  ),
  validation_fraction=Field(
    0.05, BELOW_1, "The share of symbols in the validation split.", (_SPLITS,)
  ),
  test_fraction=Field(
    0.05, BELOW_1, "The share of symbols in the test split.", (_SPLITS,)
  ),
  fold=optional(
    str,
    FOLD,
    "A fold for cross-validation. 2/5: the second of five parts of the training"
    " split becomes the test split.",
    _SYMBOLS,
  ),
  lowercase=Field(
    False,
    SWITCH,
    "Read texts in lower case: those of training, and those to predict, to"
    " continue or to examine.",
    (_SYMBOLS | {"data.unit": ("char", "word")},),
  ),
  punctuation=Field(
    False,
    SWITCH,
    "Punctuation marks and other signs are words of their own; equal ones in a"
    " row are one word. An apostrophe or hyphen between letters or digits stays"
    " in its word, as does a point, comma or colon between digits.",
    (_SYMBOLS | {"data.unit": ("word",)},),
  ),
  min_length=optional(
    int,
    COUNT,
    "The minimum symbols of a document, as of a text, sentence or session, in"
    " the splits; shorter ones are left out. Whatever you predict or examine by"
    " its own path is never left out.",
    _SYMBOLS,
  ),
  max_length=optional(
    int,
    COUNT,
    "The maximum symbols of a document in the splits; see data.min_length.",
    _SYMBOLS,
  ),
  boundaries=Field(
    True, SWITCH, "Add begin and end symbols to each document.", (_SYMBOLS,)
  ),
  min_count=Field(
    1, COUNT, "Symbols with fewer occurrences are unknown.", (_SYMBOLS,)
  ),
  vocabulary_size=optional(
    int, COUNT, "The most frequent symbols to keep. Empty: all.", _SYMBOLS
  ),
  mapping=Field(
    "many_to_many",
    choice("many_to_many", "many_to_one"),
    "many_to_many: each symbol of a window predicts the next one. many_to_one:"
    " the window predicts the symbol after it.",
  ),
  window=Field(64, COUNT, "T, the symbols of a window, which gradients reach."),
  step=optional(
    int, COUNT, "Symbols between the starts of windows. Empty: data.window."
  ),
  offset=Field(
    0,
    NATURAL,
    "The position of the first training window in a document. Earlier symbols"
    " are not trained on.",
  ),
  random_offset=Field(
    False,
    SWITCH,
    "Draw a random offset for each document and epoch. The symbols before it"
    " form a shorter window, so every symbol is trained on.",
  ),
  buckets=optional(
    int,
    integer(1, 64, "1 to 64"),
    "The number of different batch lengths; a batch has windows of similar"
    " length. Empty: all batches have the length data.window.",
  ),
  repeats=Field(
    "each",
    choice("each", "weight"),
    "Equal documents. each: read every copy. weight: read one copy, weighted by"
    " the number of copies.",
    (_SYMBOLS,),
  ),
  keep=Field(
    "all",
    choice("all", "first", "last"),
    "The windows to classify, of a text longer than data.window.",
    (_CLASSIFICATION,),
  ),
  stateful=Field(
    False,
    SWITCH,
    "Read the split as B parallel streams, and pass the carry from batch to"
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
  hidden_size=Field(128, SIZE, "The units of a layer in each direction."),
  parameters=optional(
    int,
    COUNT,
    "A parameter budget instead of hidden_size: the run uses the largest hidden"
    " size whose model has at most so many parameters.",
  ),
  layers=Field(2, integer(1, 128, "1 to 128"), "The recurrent layers."),
  bidirectional=Field(
    False,
    SWITCH,
    "Read sequences in both directions (many_to_one, classification, tagging).",
    (_task("classification", "language_model", "tagging"),),
  ),
  merge=Field(
    "concat",
    choice("concat", "sum", "mean"),
    "The operation that merges the outputs of both directions.",
    _TWO_WAYS,
  ),
  heads=Field(
    "joint",
    choice("joint", "all"),
    "The heads of a gap model. joint: predict a symbol from both sides. all:"
    " predict it also from the past alone and from the future alone, so that"
    " the model can sample.",
  ),
  embedding_size=optional(
    int, SIZE, "The size of the embedding. Empty: cells read one-hot symbols."
  ),
  embedding_path=optional(
    str,
    NOT_EMPTY,
    "A file of vectors that the embedding starts from, as text of GloVe,"
    " word2vec or fastText: a line has a symbol and model.embedding_size"
    " numbers; may be gzipped.",
    _SYMBOLS,
  ),
  pooling=Field(
    "last",
    choice("last", "mean", "max"),
    "The reduction to one output. last: the final state of each direction."
    " mean, max: the mean or maximum of the outputs over time.",
    _POOLED,
  ),
  letters=optional(
    int,
    SIZE,
    "The units, in each direction, of an LSTM over the characters of a word."
    " Its final states are concatenated to the embedding of the word.",
    _task("tagging"),
  ),
  affixes=optional(
    int,
    integer(1, 8, "1 to 8"),
    "The longest prefix and suffix, in characters, of which a word has"
    " features, instead of model.letters. The features of all its affixes and"
    " of its shape, such as Xx-0, are summed and concatenated to the embedding"
    " of the word. It is several times faster than an LSTM over characters.",
    _task("tagging"),
  ),
  crf=Field(
    False,
    SWITCH,
    "A linear-chain CRF over the tags (Lample et al. 2016): the loss is that of"
    " all tags of a text together, predictions are the most likely sequence,"
    " and probabilities are its marginals.",
    (_task("tagging"),),
  ),
  crf_constraints=Field(
    True,
    SWITCH,
    "Never predict a sequence that BIO, BIOES or BILOU forbids, such as I-PER"
    " after O, if all tags follow one of them. False is for IOB1, whose spans"
    " may begin with I.",
    (_task("tagging") | {"model.crf": (True,)},),
  ),
  tied=Field(False, SWITCH, "Use the embedding's weights in the softmax, too."),
  forget_bias=Field(
    1.0, FINITE, "The initial bias of a forget gate.", (_FORGET_GATE,)
  ),
  initial_scale=optional(
    float, POSITIVE, "a of initial values U(-a, a). Empty: 1/sqrt(fan in)."
  ),
  scan=Field(
    "fused",
    choice("fused", "plain"),
    "The scan over time. fused: a scan and products with their own gradients,"
    " which are faster. plain: nn.scan and JAX's products. Both have the same"
    " values and gradients. On a GPU, plain adds up the gradients of a table of"
    " ids in no fixed order, so its results differ in the last bits.",
  ),
  products=Field(
    "float32",
    choice("float32", "tf32", "bfloat16"),
    "The rounding of the factors of matrix products. float32: none, on every"
    " platform. tf32: to TF32 on a GPU; a TPU multiplies three bfloat16 parts"
    " of each, which is about as precise; none on a CPU. bfloat16: to bfloat16."
    " States, sums and parameters are in float32.",
  ),
  dropout=Field(
    0.0, BELOW_1, "Dropout after the embedding and after each layer."
  ),
  variational_dropout=Field(
    0.0,
    BELOW_1,
    "Dropout after the embedding and after each layer, with the same units at"
    " all steps of a sequence or window (Gal & Ghahramani 2016).",
  ),
  recurrent_dropout=Field(
    0.0, BELOW_1, "Variational dropout of the state before its product."
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
    0.0, BELOW_1, "Zoneout of the rest of the carry, such as the LSTM's c."
  ),
  activation_penalty=Field(
    0.0,
    NOT_NEGATIVE,
    "The weight, in the training loss, of the mean square of the last layer's"
    " outputs (AR: Merity et al. 2017).",
  ),
  change_penalty=Field(
    0.0,
    NOT_NEGATIVE,
    "The weight of the mean square of the change of these outputs from step to"
    " step (TAR).",
  ),
  symbol_dropout=Field(
    0.0,
    BELOW_1,
    "The share of input symbols replaced by the unknown symbol in training, so"
    " that the model learns to read unknown symbols and gaps.",
  ),
  input_noise=Field(
    0.0,
    NOT_NEGATIVE,
    "The standard deviation of the noise added to frames in training"
    " (polyphony).",
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
    0.9, BELOW_1, "The decay of the mean square.", _optimizer("rmsprop")
  ),
  momentum=Field(
    0.0, BELOW_1, "The momentum of updates.", _optimizer("sgd", "rmsprop")
  ),
  nesterov=Field(False, SWITCH, "Use Nesterov's momentum (SGD)."),
  dampened=Field(
    False,
    SWITCH,
    "Multiply gradients by 1 - momentum, so that the momentum does not change"
    " the size of updates.",
    _optimizer("sgd"),
  ),
  beta1=Field(
    0.9, BELOW_1, "The decay of the mean.", _optimizer("adam", "adamw")
  ),
  beta2=Field(
    0.999, BELOW_1, "The decay of the mean square.", _optimizer("adam", "adamw")
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
    "AdamW: the decoupled weight decay, multiplied by the learning rate"
    " (Loshchilov & Hutter 2019). Other optimizers: the L2 penalty, added to"
    " the clipped gradients.",
  ),
  layer_decay=Field(
    1.0,
    ABOVE_0,
    "The learning rate of a layer as a share of that of the layer above it, or"
    " of the head (ULMFiT: Howard & Ruder 2018, 1/2.6).",
  ),
  clip_norm=optional(
    float, POSITIVE, "The maximum global norm of the gradients."
  ),
  clip_value=optional(
    float, POSITIVE, "The maximum magnitude of each gradient entry."
  ),
)

SCHEDULE = _group(
  "schedule",
  name=Field(
    "constant",
    choice("constant", "exponential", "step", "cosine", "linear", "plateau"),
    "The schedule of the learning rate. exponential: multiply it by `factor`"
    " after each epoch from `after` on. step: multiply it by `factor` every"
    " `every` epochs. cosine, linear: lower it to `final` times its value until"
    " the last step. plateau: multiply it by `factor` after `patience`"
    " evaluations without a better validation loss.",
  ),
  warmup_steps=Field(
    0, NATURAL, "The steps of linear warmup before the schedule."
  ),
  factor=Field(
    0.5,
    ABOVE_0,
    "The factor by which a schedule lowers the learning rate.",
    _schedule("exponential", "step", "plateau"),
  ),
  after=Field(10, COUNT, "The first epoch of decay.", _schedule("exponential")),
  every=Field(5, COUNT, "Epochs between decreases.", _schedule("step")),
  final=Field(
    0.0,
    FRACTION,
    "The last rate as a share.",
    _schedule("cosine", "linear"),
  ),
  patience=Field(2, COUNT, "Evaluations to wait.", _schedule("plateau")),
)

TRAIN = _group(
  "train",
  batch_size=Field(64, COUNT, "B, the batch size of all devices together."),
  cpu_devices=optional(
    int,
    integer(1, 64, "1 to 64"),
    "The number of CPU devices of a process. Empty: 2 if layers are small, else"
    " 1. JAX_NUM_CPU_DEVICES takes precedence.",
  ),
  cpu_threads=optional(
    int,
    integer(1, 1024, "1 to 1024"),
    "The number of threads that a process computes with on a CPU. Empty: one"
    " for each core; several workers of a search divide the cores. PJRT_NPROC"
    " takes precedence.",
  ),
  epochs=Field(10, COUNT, "The maximum number of epochs."),
  fit_to_data=optional(
    str,
    FITTED,
    "Fields that the size of the training split changes: all, or some of"
    " train.batch_size, train.epochs and model.dropout, separated by commas. A"
    " small set has smaller batches, more epochs and more dropout than the"
    " config says, a large one what it says."
    " Fields that a flag sets are kept. Empty: none.",
  ),
  max_steps=optional(int, COUNT, "The maximum number of steps."),
  batches_per_epoch=optional(
    int, COUNT, "The number of batches of an epoch. Empty: all windows."
  ),
  samples_per_epoch=optional(
    int, COUNT, "The number of windows of an epoch. Empty: all windows."
  ),
  class_weights=Field(
    "none",
    choice("none", "balanced"),
    "The weights of labels. balanced: all labels have the same total weight in"
    " training.",
    (_CLASSIFICATION,),
  ),
  start_from=optional(
    str,
    NOT_EMPTY,
    "The workdir of a trained run with the same cell. The new run starts from"
    " the parts of its best checkpoint that fit, and prints them. Empty: from"
    " random values.",
  ),
  pretrain_epochs=Field(
    5, COUNT, "The maximum number of epochs on data.pretrain_path."
  ),
  pretrain_rate=optional(
    float,
    POSITIVE,
    "The learning rate on data.pretrain_path. Empty: optimizer.learning_rate.",
  ),
  pretrain_window=optional(
    int,
    COUNT,
    "The window on data.pretrain_path. Empty: data.window.",
  ),
  freeze=optional(
    str,
    PARTS,
    "The parts of the model that do not learn, separated by commas: embedding,"
    " letters, layer1 (the layer that reads the input, in each direction),"
    " layer2 and so on, layers (all), head, or taken (what train.start_from has"
    " given).",
  ),
  unfreeze_every=optional(
    float,
    POSITIVE,
    "The epochs after which a frozen part begins to learn: first the head, then"
    " the layers from the last to the first, each so many epochs after the one"
    " before, then the embedding. Empty: frozen parts never learn.",
  ),
  eval_every=optional(
    int, COUNT, "Steps between evaluations. Empty: an epoch."
  ),
  adapt_to_length=Field(
    False,
    SWITCH,
    "Limit fields to the length of the training: train.eval_every to an epoch,"
    " schedule.warmup_steps to a tenth of all steps, and train.ema to an"
    " average over a fifth of them, 1 / (1 - ema) steps. A line names what is"
    " limited.",
  ),
  patience=optional(
    int, COUNT, "Stop early after so many evaluations without improvement."
  ),
  label_smoothing=Field(
    0.0,
    BELOW_1,
    "The share of each target that training spreads over all symbols or labels"
    " (Szegedy et al. 2016).",
  ),
  ema=optional(
    float,
    BETWEEN_0_1,
    "Evaluate and save an exponential moving average of the parameters, in"
    " which those of n steps ago have weight ema^n.",
  ),
  asgd=optional(
    int,
    COUNT,
    "Evaluate and save the mean of the parameters, taken from the asgd-th"
    " evaluation without a better validation loss on (NT-ASGD: Merity et al."
    " 2017).",
  ),
  on_nonfinite=Field(
    "stop",
    choice("stop", "rollback"),
    "The response to a loss, gradient or parameter that is not finite. stop:"
    " end the run. rollback: continue from the last checkpoint with a lower"
    " learning rate.",
  ),
  rollback_factor=Field(
    0.5, BETWEEN_0_1, "A rollback's factor of the learning rate.", (_ROLLBACK,)
  ),
  rollbacks=Field(
    3, COUNT, "The maximum number of rollbacks of a run.", (_ROLLBACK,)
  ),
  sample_length=Field(
    60,
    integer(0, 10**4, "0 to 10,000"),
    "The symbols of the sample on a terminal at each evaluation; 0: none.",
  ),
  tensorboard=Field(
    False,
    SWITCH,
    "Write metrics, samples and histograms for TensorBoard at each evaluation"
    " (extra `tensorboard`).",
  ),
)

CHECKPOINT = _group(
  "checkpoint",
  keep=Field(
    2, COUNT, "The number of latest checkpoints to keep, besides the best."
  ),
  every=optional(
    int, COUNT, "Steps between checkpoints. Empty: only at evaluations."
  ),
  step=optional(
    int, NATURAL, "The step of the checkpoint to read. Empty: the best."
  ),
)

EVALUATE = _group(
  "evaluate",
  split=Field("test", SPLIT, "The split to evaluate."),
  dynamic=Field(
    False,
    SWITCH,
    "Also evaluate with parameters that follow the text (dynamic evaluation,"
    " Krause et al. 2018): each segment is scored, and then learned from.",
    (_NEXT_SYMBOL,),
  ),
  dynamic_window=Field(
    20,
    integer(1, 10_000, "1 to 10000"),
    "The symbols of a segment of dynamic evaluation.",
    (_DYNAMIC,),
  ),
  dynamic_rate=optional(
    float,
    FRACTION,
    "The rate of a step of dynamic evaluation. Empty: chosen on the validation"
    " split.",
    _DYNAMIC,
  ),
  dynamic_decay=optional(
    float,
    FRACTION,
    "The decay of the parameters towards the trained ones at each step. Empty:"
    " chosen on the validation split.",
    _DYNAMIC,
  ),
)

DESCRIBE = _group(
  "describe",
  measure=Field(True, SWITCH, "Also measure three steps."),
)

PREDICT = _group(
  "predict",
  split=Field("validation", SPLIT, "The split to predict."),
  text=optional(str, TEXT, "A text to predict, instead of a split."),
  path=optional(
    str,
    TEXT,
    "A file, a glob or a folder to predict, instead of a split, with"
    " data.format and data.unit. Labels and tags may be missing.",
  ),
  gap=Field(
    "_",
    NOT_EMPTY,
    "The text that marks a gap in predict.text or predict.path.",
    (_task("gap_model"),),
  ),
  top_k=Field(5, COUNT, "The number of most likely predictions to show."),
  sequences=Field(
    3,
    COUNT,
    "The number of sequences of a split to predict, and of a file to show.",
  ),
  symbols=Field(
    40, COUNT, "The number of symbols of each sequence in the table."
  ),
)

SAMPLE = _group(
  "sample",
  temperature=Field(
    (1.0,),
    TEMPERATURES,
    "One or several temperatures, by which logits are divided; 0 selects the"
    " most likely symbol.",
    _SAMPLED,
  ),
  length=Field(500, COUNT, "The number of symbols of a text.", _SAMPLED),
  streams=Field(1, COUNT, "The number of texts per temperature.", _SAMPLED),
  prime=Field(
    "",
    TEXT,
    "The text to continue. Music: the number of a piece of the test split, from"
    " 0, or its first frames, such as 3:16. Empty: start without a text, or"
    " from silence.",
    _SAMPLED,
  ),
  top_k=optional(
    int, COUNT, "Draw only from the k most likely symbols.", *_SAMPLED_TEXT
  ),
  top_p=optional(
    float,
    ABOVE_0,
    "Draw only from the smallest set of symbols with this total probability.",
    *_SAMPLED_TEXT,
  ),
  seed=Field(0, SEED, "The seed of the draws.", _SAMPLED),
  tempo=Field(
    120,
    integer(4, 10_000, "4 to 10,000"),  # The limits of MIDI.
    "Frames a minute of music.",
    (_task("polyphony"),),
  ),
)

EMBED = _group(
  "embed",
  of=Field(
    "texts",
    choice("texts", "symbols", "vocabulary"),
    "What has a vector. texts: each text or session, pooled over its symbols."
    " symbols: each symbol of a text, in its context. vocabulary: each symbol"
    " of the vocabulary, its embedding.",
  ),
  split=Field("test", SPLIT, "The split to read.", (_STATES,)),
  path=optional(
    str,
    TEXT,
    "A file, a glob or a folder to read, instead of a split, as predict.path.",
    _STATES,
  ),
  layer=optional(
    int,
    COUNT,
    "The layer whose states are written, from 1. Empty: the last.",
    _STATES,
  ),
  pooling=Field(
    "mean",
    choice("last", "mean", "max"),
    "The vector of a text. last: the state after the last step of each"
    " direction. mean, max: over the symbols.",
    ({"embed.of": ("texts",)},),
  ),
  format=Field(
    "npz",
    choice("npz", "parquet"),
    "npz: an array of vectors, and a table in CSV with what each row is."
    " parquet: one table of both (extra `parquet`).",
  ),
)

DETECT = _group(
  "detect",
  path=optional(
    str,
    TEXT,
    "The sessions to score, with data.unit and data.format. Empty: the test"
    " split.",
  ),
  anomalous_path=optional(
    str, TEXT, "Anomalous sessions. Those of detect.path are then normal."
  ),
  labels=optional(
    str, NOT_EMPTY, "A CSV file with the names and labels of the sessions."
  ),
  normal_labels=Field(
    "0,-,false,no,normal,benign,success,ok,negative,good,pass,passed,healthy,legitimate",
    TEXT,
    "The labels of normal sessions, separated by commas. Case is ignored, and"
    " equal numbers are one label.",
  ),
  anomalous_labels=Field(
    "1,true,yes,anomaly,anomalous,abnormal,attack,positive,malicious",
    TEXT,
    "The labels of anomalous sessions. A label in neither list counts as"
    " anomalous, with a warning unless this list is empty.",
  ),
  inject=Field(
    0.0,
    BELOW_1,
    "The share of sessions into which anomalies are injected, to evaluate the"
    " detection.",
  ),
  seed=Field(0, SEED, "The seed of detect.inject and of the bootstrap."),
  head=Field(
    "forward",
    TEXT,
    "The head that scores an event. forward: from the events before it. A gap"
    " model has also backward, from the events after it, and joint, from both.",
  ),
  unknown=Field(
    20.0,
    NOT_NEGATIVE,
    "The minimum surprisal, in nats, of an event that training has not seen.",
  ),
  flag_unknown=Field(
    True,
    SWITCH,
    "Flag every event that training has not seen, whatever its surprisal and"
    " the threshold are.",
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
  top_mean=Field(
    5, COUNT, "The number of largest surprisals in the score top_mean."
  ),
  scores=optional(
    str,
    TEXT,
    "The scores of a session to combine: max, mean and top_mean of surprisals,"
    " misses of detect.top_k, the number of unknown events, or baselines."
    " Empty: those that rank anomalies injected into normal sessions best.",
  ),
  combine=Field(
    "fisher",
    choice("min", "fisher"),
    "The combination of detect.scores. min: the least p-value. fisher: the"
    " product of the p-values.",
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
  reviewed=Field(
    50, COUNT, "The number of sessions that --mode=review asks about."
  ),
  rule=Field(
    "rate",
    choice("rate", "events", "budget", "bh", "topk"),
    "The rule that flags sessions. rate: by their score, at the false-alarm"
    " rate detect.rate. events: if an event is flagged at detect.event_rate."
    " budget: the detect.budget highest scores. bh: so that a share of"
    " detect.false_share of the flagged sessions is normal (Benjamini &"
    " Hochberg 1995). topk: if an event is not among the detect.top_k most"
    " likely events (DeepLog).",
  ),
  rate=Field(0.005, BETWEEN_0_1, "The false-alarm rate of sessions."),
  event_rate=Field(0.001, BETWEEN_0_1, "The false-alarm rate of events."),
  budget=Field(
    100,
    COUNT,
    "The number of sessions to flag; equal sessions count once.",
    (_DETECTION | {"detect.rule": ("budget",)},),
  ),
  false_share=Field(
    0.1,
    BETWEEN_0_1,
    "The expected share of normal sessions among the flagged sessions.",
    (_DETECTION | {"detect.rule": ("bh",)},),
  ),
  top_k=Field(
    9, COUNT, "An event that is not among the k most likely events is a miss."
  ),
  baselines=Field(True, SWITCH, "Also compute the scores of the baselines."),
  events=Field(
    "flagged",
    choice("flagged", "all", "none"),
    "The sessions whose events are written.",
  ),
  format=Field(
    "csv",
    choice("csv", "jsonl", "csv.gz", "jsonl.gz"),
    "The format of the files of sessions and events.",
  ),
  alternatives=Field(
    3, NATURAL, "The number of likelier events written with each event."
  ),
  worst=Field(
    5, NATURAL, "The number of sessions that are printed with their events."
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
    "The folder of the tables that Spark writes, as Spark names it. Empty:"
    " detect-spark in the workdir.",
    _DETECTION | {"detect.engine": ("spark",)},
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
  ),
  state=optional(
    str,
    NOT_EMPTY,
    "The folder of the state of --follow: open sessions, the position in the"
    " input, and alarms.jsonl. Without it, the folder follow in the workdir.",
  ),
  followed=Field(
    100_000,
    COUNT,
    "The maximum number of open sessions of --follow. When it is exceeded, the"
    " session whose last event is oldest ends.",
  ),
  port=optional(
    int,
    integer(0, 65_535, "0 to 65,535"),
    "The port at which --follow shows its figures to Prometheus (/metrics) and"
    " to probes (/healthz). 0: any free one, which it names. Empty: none.",
  ),
  address=Field(
    "127.0.0.1",
    NOT_EMPTY,
    "The address of detect.port; 0.0.0.0 lets other machines read the figures,"
    " which have no password.",
  ),
  redact=Field(
    SECRETS,
    MASKED,
    "A regular expression of what is masked in alarms, tables and reports;"
    " <secrets> in it stands for e-mail addresses, tokens and passwords. An"
    " empty text: nothing is masked.",
  ),
)

REPORT = _group(
  "report",
  beside=Field("", TEXT, "The workdirs to compare with, separated by commas."),
)

EXPORT = _group(
  "export",
  format=Field(
    "safetensors",
    choice("safetensors", "onnx"),
    "The format of --mode=export (extra `export`). safetensors: tensors with"
    " the names and the order of gates of PyTorch. onnx: a graph, which runs"
    " without JAX.",
  ),
)

SEARCH = _group(
  "search",
  method=Field(
    "tpe",
    choice("tpe", "random", "grid", "coarse"),
    "The method that chooses values. tpe: Optuna's tree-structured Parzen"
    " estimator. random. grid: all combinations. coarse: only the learning"
    " rate, from 1 down by factors of ten until the loss stops improving, then"
    " three times and a third of the best value (Greff et al. 2017).",
  ),
  coarse_size=Field(
    64,
    SIZE,
    "The maximum hidden size of a trial.",
    ({"search.method": ("coarse",)},),
  ),
  trials=Field(40, COUNT, "The maximum number of trials."),
  minutes=optional(float, POSITIVE, "Minutes after which no trial starts."),
  symbols=optional(
    int, COUNT, "The training symbols after which no trial starts."
  ),
  pruning=Field(
    "median",
    choice("median", "hyperband", "none"),
    "The rule that ends trials early, at an evaluation. median: a trial worse"
    " than the median of earlier trials. hyperband: a trial worse than two"
    " thirds of them, with more checks early.",
    ({"search.method": ("tpe", "random", "grid")},),
  ),
  workers=optional(
    int,
    integer(1, 1024, "1 to 1024"),
    "The number of processes on this machine, which share the cores and take"
    " the GPUs in turn. Empty: one for each GPU; without GPUs, one for each"
    " core if layers are small, else one. The method coarse has one.",
  ),
  storage=optional(
    str,
    TEXT,
    "A database as an SQLAlchemy URL, such as"
    " postgresql+psycopg://USER@HOST/NAME (extra `postgres`). Empty: a file in"
    " the workdir, which machines may share.",
  ),
)

TRAINING = {
  "task": Field("language_model", TEXT, "A module of experiments/."),
  "seed": Field(0, SEED, "The seed of the initial values, the data, dropout."),
  **DATA,
  **MODEL,
  **OPTIMIZER,
  **SCHEDULE,
  **TRAIN,
}

_SPACE = (
  "The values of the field in a search: log_uniform(low, high), uniform(low,"
  " high), integer(low, high), one_minus_log_uniform(low, high) with the bounds"
  " of 1 - value, choice(a, b, ...) or grid(a, b, ...)."
)
FIELDS = {
  **TRAINING,
  **CHECKPOINT,
  **EVALUATE,
  **DESCRIBE,
  **PREDICT,
  **SAMPLE,
  **EMBED,
  **DETECT,
  **REPORT,
  **EXPORT,
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
