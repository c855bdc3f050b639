"""What is read, and how it is cut."""

from seqrnn.config.field import (
  BELOW_1,
  COLUMN,
  COUNT,
  CUT,
  FOLD,
  HEADER,
  KEYS,
  NATURAL,
  NOT_EMPTY,
  READ,
  SWITCH,
  TEXT,
  Field,
  Registered,
  choice,
  integer,
  one_of,
  optional,
)
from seqrnn.config.fields.conditions import (
  CLASSIFICATION,
  COLUMNS,
  JSON,
  SPLITS,
  SYMBOLS,
  TABLE,
  group,
  sources,
)

DATA = group(
  "data",
  source=Field(
    "stdlib",
    one_of(Registered(sources)),
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
  path=optional(
    str,
    TEXT,
    "A file, a glob or a folder, split by data.split.",
    place=READ,
  ),
  train_path=optional(
    str,
    TEXT,
    "The training split, instead of splitting data.path.",
    place=READ,
  ),
  validation_path=optional(str, TEXT, "The validation split.", place=READ),
  test_path=optional(str, TEXT, "The test split.", place=READ),
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
  text_column=optional(
    str,
    COLUMN,
    "The column of the word: its number, from 1, or from the end, -1; or its"
    " name, as FORM in CoNLL-U. Of a table (csv, jsonl), the name of the column"
    " or the key of the text. Empty: the first; in CoNLL-U FORM; of a table"
    " text.",
    COLUMNS,
    TABLE,
  ),
  label_column=optional(
    str,
    COLUMN,
    "The column of the tag or label, as data.text_column. Empty: the last; in"
    " CoNLL-U UPOS; of a table label. If both are empty, a line of"
    " data.format=columns has two columns.",
    COLUMNS,
    TABLE,
  ),
  tags_file=optional(
    str,
    NOT_EMPTY,
    "The file of tags of each file of sentences, relative to its folder. A *"
    " stands for the name of that file without its last suffix: '*.tags' is"
    " train.tags for train.words.",
    {"data.format": ("parallel",)},
    place=READ,
  ),
  unit=Field(
    "char",
    choice("char", "byte", "word", "id", "session", "log"),
    "The symbol of a sequence. char; byte; word (separated by white space; a"
    " newline is a word); id (a line is an id, a file a sequence); session (a"
    " line is a sequence of ids separated by spaces; with data.format=csv, a"
    " table of sessions and events); log (the template of a line of a log).",
    (SYMBOLS,),
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
  log_keys=optional(
    str,
    KEYS,
    "The keys of JSON lines, where their programs use unusual ones, as"
    " message=body.text,time=ts,level=severity. The level is part of the event."
    " A key names an attribute, too.",
    JSON,
  ),
  log_header=optional(
    str,
    HEADER,
    "The format of a line of a log, such as '<Date> <Time> <Level> <Content>'."
    " Empty: the whole line is the content.",
  ),
  log_session=optional(
    str,
    CUT,
    r"How a log is cut into sessions: a regular expression whose group is the"
    r" session of a line, such as (blk_-?\d+); key=request_id, the key of the"
    r" session in JSON lines; gap=60, a session ends after so many seconds"
    r" without a line; lines=100, so many lines are a session. Empty: a file"
    r" is one session.",
  ),
  errors=Field(
    "strict",
    choice("strict", "replace", "latin-1"),
    "The handling of bytes that are not UTF-8. strict: refuse them. replace:"
    " read each as U+FFFD. latin-1: read all files as Latin-1.",
    (SYMBOLS,),
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
    (SPLITS,),
  ),
  validation_fraction=Field(
    0.05, BELOW_1, "The share of symbols in the validation split.", (SPLITS,)
  ),
  test_fraction=Field(
    0.05, BELOW_1, "The share of symbols in the test split.", (SPLITS,)
  ),
  fold=optional(
    str,
    FOLD,
    "A fold for cross-validation. 2/5: the second of five parts of the training"
    " split becomes the test split.",
    SYMBOLS,
  ),
  lowercase=Field(
    False,
    SWITCH,
    "Read texts in lower case: those of training, and those to predict, to"
    " continue or to examine.",
    (SYMBOLS | {"data.unit": ("char", "word")},),
  ),
  punctuation=Field(
    False,
    SWITCH,
    "Punctuation marks and other signs are words of their own; equal ones in a"
    " row are one word. An apostrophe or hyphen between letters or digits stays"
    " in its word, as does a point, comma or colon between digits.",
    (SYMBOLS | {"data.unit": ("word",)},),
  ),
  min_length=optional(
    int,
    COUNT,
    "The minimum symbols of a document, as of a text, sentence or session, in"
    " the splits; shorter ones are left out. Whatever you predict or examine by"
    " its own path is never left out.",
    SYMBOLS,
  ),
  max_length=optional(
    int,
    COUNT,
    "The maximum symbols of a document in the splits; see data.min_length.",
    SYMBOLS,
  ),
  boundaries=Field(
    True, SWITCH, "Add begin and end symbols to each document.", (SYMBOLS,)
  ),
  min_count=Field(
    1, COUNT, "Symbols with fewer occurrences are unknown.", (SYMBOLS,)
  ),
  vocabulary_size=optional(
    int, COUNT, "The most frequent symbols to keep. Empty: all.", SYMBOLS
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
    (SYMBOLS,),
  ),
  keep=Field(
    "all",
    choice("all", "first", "last"),
    "The windows to classify, of a text longer than data.window.",
    (CLASSIFICATION,),
  ),
  stateful=Field(
    False,
    SWITCH,
    "Read the split as B parallel streams, and pass the carry from batch to"
    " batch (truncated backpropagation through time).",
  ),
)
