"""The data: sources, formats, splits and windows."""

from seqrnn.config import rules
from seqrnn.config.field import choice, group, input_path
from seqrnn.config.fields import conditions as when

FIELDS = group(
  "data",
  source=rules.one_of(rules.Registered(when.sources))(
    "stdlib: Python's standard library, a document a module. opcodes: its"
    " functions' opcodes. packages: its modules, labelled by package. topics:"
    " the topics of Python's help. names: surnames, labelled by language (extra"
    " `names`). chords: synthetic music. formal: the formal language"
    " data.language. files: your own, in data.path or data.train_path. Others"
    " are public sets (docs/reference/data_sets.md), downloaded once.",
    default="stdlib",
  ),
  language=choice(
    "parity even_pairs cycle_navigation modular_arithmetic s3 reverse_string"
    " stack_manipulation duplicate_string odds_first bucket_sort",
    "The formal language (Delétang et al. 2023). The first five have labels,"
    " for classification; the others have tags. Training strings have 1 to 40"
    " symbols, test strings 41 to 100.",
    {"data.source": ("formal",)},
  ),
  path=input_path("Files, a glob or a folder; data.split splits them."),
  train_path=input_path("The training split, instead of data.path."),
  validation_path=input_path("The validation split."),
  test_path=input_path("The test split."),
  unlabelled_path=input_path(
    "More texts, one a line, without labels. Their words are known, too, and"
    " the embedding starts from vectors that are computed from all texts.",
    when.ONE_TARGET,
  ),
  format=choice(
    "text tab space csv jsonl folders files columns parallel conllu spaces",
    "The labels in files. text: none. tab: label, tab, text. space: label,"
    " space, text. csv, jsonl: a table. folders: a folder a label. files: a"
    " file a label. columns: a word and its tag a line. conllu: CoNLL-U."
    " parallel: tags in data.tags_file. spaces: if a space follows a symbol.",
  ),
  text_column=rules.COLUMN(
    "The column of the text or word: in csv and jsonl its name, else its number"
    " (-1: the last). Empty: text in csv and jsonl, the last in tab, FORM in"
    " CoNLL-U, else the first.",
    when.COLUMNS,
    when.TABLE,
  ),
  label_column=rules.COLUMN(
    "The column of the label, tag or number, as data.text_column; of several"
    " numbers, with commas. Empty: label in csv and jsonl, the first in tab,"
    " UPOS in CoNLL-U, else the last.",
    when.COLUMNS,
    when.TABLE,
  ),
  tags_file=input_path(
    "The tags of a file of sentences. * stands for its stem, as in '*.tags'.",
    {"data.format": ("parallel",)},
  ),
  log_format=choice(
    "auto json access syslog5424 syslog cri logcat klog time level plain",
    "The format of log lines. access: of nginx and Apache. cri: Kubernetes."
    " logcat: Android. klog: glog and klog. time, level: a line begins with it."
    " plain: the whole line. auto: the one that fits the first lines. A line"
    " that does not fit is joined to the line before. Empty: data.log_header.",
    empty=True,
  ),
  log_keys=rules.KEYS(
    "The keys of message, time and level in JSON lines, as"
    " message=body.text,time=ts,level=severity.",
    when.JSON,
  ),
  log_paths=choice(
    "auto on off",
    "on: the words of log lines that begin with / are paths, whose frequent"
    " segments stay, and the keys of their query. off: they are values. auto:"
    " on for the format access.",
    {"data.unit": ("log",)},
  ),
  log_mask=rules.PATTERN(
    "A regular expression. What its groups, or else all of it, match in a log"
    r" line is a value and makes no event of its own, as by (\w+) on (\S+)$.",
    {"data.unit": ("log",)},
  ),
  log_header=rules.HEADER(
    "The format of a log line, as '<Date> <Content>'. Empty: it is the content."
  ),
  log_session=rules.CUT(
    "The sessions of a log. A regular expression whose group is the session,"
    r" such as (blk_-?\d+); key=request_id, a key of JSON lines; gap=60,"
    " seconds without a line; lines=100. Empty: a file is a session."
  ),
  lowercase=rules.SWITCH(
    "Read all texts in lower case, also those to predict.",
    when.SYMBOLS | {"data.unit": ("char", "word")},
  ),
  punctuation=rules.SWITCH(
    "Punctuation marks are words, except inside a word or number.",
    when.SYMBOLS | {"data.unit": ("word",)},
  ),
  mapping=choice(
    "many_to_many many_to_one",
    "many_to_many: each symbol of a window predicts the next. many_to_one: the"
    " window predicts the symbol after it.",
  ),
  window=rules.COUNT("T, the symbols of a window.", default=64),
  step=rules.COUNT("Symbols between window starts. Empty: data.window."),
  offset=rules.NATURAL("The first window's start in a document.", default=0),
  random_offset=rules.SWITCH("Draw an offset for each document and epoch."),
  buckets=rules.integer(1, 64)(
    "The number of batch lengths. Empty: one, data.window."
  ),
  keep=choice(
    "all first last",
    "The windows to classify of a text longer than data.window.",
    when.ONE_TARGET,
  ),
  stateful=rules.SWITCH("Read B streams and keep the carry (truncated BPTT)."),
)

FIELDS |= group(
  "data",
  when.SYMBOLS,
  unit=choice(
    "char byte word id session log",
    "A symbol. word: between white space; a newline is a word. id: a line of a"
    " file. session: an id of a line of ids, or an event of a table (csv). log:"
    " the template of a line of a log.",
  ),
  errors=choice(
    "strict replace latin-1",
    "Bytes that are not UTF-8. strict: refuse them. replace: read U+FFFD."
    " latin-1: read all files as Latin-1.",
  ),
  boundaries=rules.SWITCH("Add begin and end to each document.", default=True),
  min_count=rules.COUNT("Symbols that are rarer are unknown.", default=1),
  vocabulary_size=rules.COUNT("The most frequent symbols. Empty: all."),
  repeats=choice(
    "each weight",
    "Equal documents. each: read every copy. weight: read one, weighted.",
  ),
)

FIELDS |= group(
  "data",
  when.SPLITS,
  split=choice(
    "auto documents last_documents shared_lines tails stream_tails",
    "How the splits are made. documents: by a hash of names. last_documents:"
    " the last ones. shared_lines: as documents, but keep together those that"
    " share long lines. tails: the end of every document. stream_tails: the"
    " ends of B parts of one text. auto: documents if 10 or more, or labelled;"
    " else tails.",
  ),
  validation_fraction=rules.SHARE("The share of validation.", default=0.05),
  test_fraction=rules.SHARE("The share of the test split.", default=0.05),
)
