"""The modes that use a trained model, but for detection."""

from seqrnn.config import rules
from seqrnn.config.field import Field, group, input_path, optional
from seqrnn.config.fields import conditions as when

EVALUATE = group(
  "evaluate",
  split=Field("test", rules.SPLIT, "The split to evaluate."),
  dynamic=Field(
    False,
    rules.SWITCH,
    "Also evaluate while learning from each segment after its score (dynamic"
    " evaluation, Krause et al. 2018).",
    (when.NEXT_SYMBOL,),
  ),
)

PREDICT = group(
  "predict",
  split=Field("validation", rules.SPLIT, "The split to predict."),
  text=optional(str, rules.TEXT, "A text to predict, instead of a split."),
  path=input_path(
    "Files to predict, instead of a split, as data.format; labels may be"
    " missing."
  ),
  gap=Field(
    "_",
    rules.NOT_EMPTY,
    "The mark of a missing symbol in predict.text; _{5} marks five, the only"
    " kind that a language model fills.",
    (when.DETECTION,),
  ),
  top_k=Field(5, rules.COUNT, "The most likely predictions to show."),
  sequences=Field(3, rules.COUNT, "Sequences of a split or file to show."),
)

SAMPLE = group(
  "sample",
  temperature=Field(
    (1.0,),
    rules.TEMPERATURES,
    "One or several temperatures, which divide logits; 0 takes the most"
    " likely symbol.",
    when.SAMPLED,
  ),
  length=Field(500, rules.COUNT, "The symbols of a text.", when.SAMPLED),
  streams=Field(1, rules.COUNT, "The texts per temperature.", when.SAMPLED),
  prime=Field(
    "",
    rules.TEXT,
    "The text to continue. Music: a piece of the test split and its frames,"
    " as 3:16. Empty: begin like a document.",
    when.SAMPLED,
  ),
  prompts=input_path(
    "A file of texts to continue, a line each, or JSON lines with `prime`"
    " (.jsonl), instead of sample.prime.",
    *when.SAMPLED_TEXT,
  ),
  format=Field(
    "text",
    rules.choice("text", "jsonl"),
    "jsonl: JSON lines with log-probabilities, also in samples.jsonl.",
    when.SAMPLED_TEXT,
  ),
  top_k=optional(
    int, rules.COUNT, "Draw from the k most likely symbols.", *when.SAMPLED_TEXT
  ),
  top_p=optional(
    float,
    rules.ABOVE_0,
    "Draw from the smallest set with this probability (Holtzman et al. 2020).",
    *when.SAMPLED_TEXT,
  ),
  pattern=optional(
    str,
    rules.TEXT,
    "A regular expression that each text, without sample.prime, matches"
    " (extra `patterns`).",
    *when.SAMPLED_TEXT,
  ),
  schema=input_path(
    "A file with a JSON schema that each text, without sample.prime,"
    " satisfies (extra `patterns`).",
    *when.SAMPLED_TEXT,
  ),
  min_p=optional(
    float,
    rules.ABOVE_0,
    "Draw symbols of p >= min_p * max p (Nguyen et al. 2024).",
    *when.SAMPLED_TEXT,
  ),
  repetition_penalty=optional(
    float,
    rules.PENALTY,
    "Divide positive logits of repeated symbols by this, and multiply"
    " negative ones (Keskar et al. 2019).",
    *when.SAMPLED_TEXT,
  ),
  no_repeat=optional(
    int, rules.COUNT, "Draw no n-gram of this length twice.", *when.SAMPLED_TEXT
  ),
  stop=optional(
    str,
    rules.STOPS,
    r'A text, or a JSON list of texts such as ["\n"], that ends a sample and'
    r" is no part of it.",
    *when.SAMPLED_TEXT,
  ),
  seed=Field(0, rules.SEED, "The seed of the draws.", when.SAMPLED),
)

EMBED = group(
  "embed",
  of=Field(
    "texts",
    rules.choice("texts", "symbols", "vocabulary"),
    "texts: a vector a text or session. symbols: a vector a symbol in its"
    " context. vocabulary: the embedding of each symbol.",
  ),
  path=input_path("Files to read, instead of a split.", when.STATES),
  layer=optional(
    int, rules.COUNT, "The layer, from 1. Empty: the last.", when.STATES
  ),
  pooling=Field(
    "mean",
    rules.choice("last", "mean", "max"),
    "A text's vector. last: each direction's final state. mean, max: over the"
    " symbols.",
    ({"embed.of": ("texts",)},),
  ),
)

EXPORT = group(
  "export",
  format=Field(
    "safetensors",
    rules.choice("safetensors", "onnx"),
    "safetensors: tensors with PyTorch's names and gate order. onnx: a graph"
    " that runs without JAX. Both need the extra `export`.",
  ),
)
