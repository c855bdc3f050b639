"""The modes that use a trained model, but for detection."""

from seqrnn.config.field import (
  ABOVE_0,
  COUNT,
  NOT_EMPTY,
  PENALTY,
  READ,
  SEED,
  SPLIT,
  STOPS,
  SWITCH,
  TEMPERATURES,
  TEXT,
  Field,
  choice,
  optional,
)
from seqrnn.config.fields.conditions import (
  DETECTION,
  NEXT_SYMBOL,
  SAMPLED,
  SAMPLED_TEXT,
  STATES,
  group,
)

EVALUATE = group(
  "evaluate",
  split=Field("test", SPLIT, "The split to evaluate."),
  dynamic=Field(
    False,
    SWITCH,
    "Also evaluate with parameters that follow the text (dynamic evaluation,"
    " Krause et al. 2018): each segment is scored, and then learned from.",
    (NEXT_SYMBOL,),
  ),
)

PREDICT = group(
  "predict",
  split=Field("validation", SPLIT, "The split to predict."),
  text=optional(str, TEXT, "A text to predict, instead of a split."),
  path=optional(
    str,
    TEXT,
    "A file, a glob or a folder to predict, instead of a split, with"
    " data.format and data.unit. Labels and tags may be missing.",
    place=READ,
  ),
  gap=Field(
    "_",
    NOT_EMPTY,
    "The text that marks a gap of one symbol in predict.text. A gap may have a"
    " length, as _{5}; a language model fills only these.",
    (DETECTION,),
  ),
  top_k=Field(5, COUNT, "The number of most likely predictions to show."),
  sequences=Field(
    3,
    COUNT,
    "The number of sequences of a split to predict, and of a file to show.",
  ),
)

SAMPLE = group(
  "sample",
  temperature=Field(
    (1.0,),
    TEMPERATURES,
    "One or several temperatures, by which logits are divided; 0 selects the"
    " most likely symbol.",
    SAMPLED,
  ),
  length=Field(500, COUNT, "The number of symbols of a text.", SAMPLED),
  streams=Field(1, COUNT, "The number of texts per temperature.", SAMPLED),
  prime=Field(
    "",
    TEXT,
    "The text to continue. Music: the number of a piece of the test split, from"
    " 0, or its first frames, such as 3:16. Empty: begin as documents do, from"
    " silence, or, where the training text is one document or has no"
    " data.boundaries, after a line break.",
    SAMPLED,
  ),
  prompts=optional(
    str,
    NOT_EMPTY,
    "A file with a text to continue on each line, instead of sample.prime; if"
    " its name ends in .jsonl, each line is a JSON object with the text as"
    " `prime`. Each has one sample, and samples.jsonl has all.",
    *SAMPLED_TEXT,
    place=READ,
  ),
  format=Field(
    "text",
    choice("text", "jsonl"),
    "How samples are printed: as text, or as JSON lines with log-probabilities,"
    " which are also written to samples.jsonl.",
    SAMPLED_TEXT,
  ),
  top_k=optional(
    int,
    COUNT,
    "Draw only from the k most likely symbols. Limits hold one after another,"
    " at the temperature: top_k, top_p, min_p, as in Hugging Face's"
    " transformers. Symbols as likely as the last one kept are kept, too.",
    *SAMPLED_TEXT,
  ),
  top_p=optional(
    float,
    ABOVE_0,
    "Draw only from the smallest set of symbols with this total probability"
    " (Holtzman et al. 2020).",
    *SAMPLED_TEXT,
  ),
  pattern=optional(
    str,
    TEXT,
    "A regular expression, which each text matches as a whole. It is about the"
    " symbols that are drawn, without sample.prime. After a match, a text ends"
    " where the model would leave the pattern (extra `patterns`).",
    *SAMPLED_TEXT,
  ),
  schema=optional(
    str,
    TEXT,
    "A file with a JSON schema; each text, without sample.prime, is valid JSON"
    " of it (extra `patterns`).",
    *SAMPLED_TEXT,
    place=READ,
  ),
  min_p=optional(
    float,
    ABOVE_0,
    "Draw only symbols with p >= min_p * max p (Nguyen et al. 2024).",
    *SAMPLED_TEXT,
  ),
  repetition_penalty=optional(
    float,
    PENALTY,
    "Divide positive logits of symbols that are in the prime or the sample by"
    " this number, and multiply negative ones (Keskar et al. 2019).",
    *SAMPLED_TEXT,
  ),
  no_repeat=optional(
    int,
    COUNT,
    "Draw no n-gram of this many symbols twice, those of the prime included,"
    " unless no other symbol is allowed.",
    *SAMPLED_TEXT,
  ),
  stop=optional(
    str,
    STOPS,
    "A text, or a JSON list of texts, with which a sample ends: the first one"
    " that is complete, in what is drawn. It is not part of the sample. A list"
    ' has escapes: ["\\n"] is a newline, and \\n alone a backslash and an n.',
    *SAMPLED_TEXT,
  ),
  seed=Field(0, SEED, "The seed of the draws.", SAMPLED),
)

EMBED = group(
  "embed",
  of=Field(
    "texts",
    choice("texts", "symbols", "vocabulary"),
    "What has a vector. texts: each text or session, pooled over its symbols."
    " symbols: each symbol of a text, in its context. vocabulary: each symbol"
    " of the vocabulary, its embedding.",
  ),
  path=optional(
    str,
    TEXT,
    "A file, a glob or a folder to read, instead of a split, as predict.path.",
    STATES,
    place=READ,
  ),
  layer=optional(
    int,
    COUNT,
    "The layer whose states are written, from 1. Empty: the last.",
    STATES,
  ),
  pooling=Field(
    "mean",
    choice("last", "mean", "max"),
    "The vector of a text. last: the state after the last step of each"
    " direction. mean, max: over the symbols.",
    ({"embed.of": ("texts",)},),
  ),
)

EXPORT = group(
  "export",
  format=Field(
    "safetensors",
    choice("safetensors", "onnx"),
    "The format of --mode=export (extra `export`). safetensors: tensors with"
    " the names and the order of gates of PyTorch. onnx: a graph, which runs"
    " without JAX.",
  ),
)
