"""The modes that use a trained model, but for detection."""

from seqrnn.config import rules
from seqrnn.config.field import choice, group, input_path
from seqrnn.config.fields import conditions as when

FIELDS = group(
  "evaluate",
  split=rules.SPLIT("The split to evaluate.", default="test"),
  dynamic=rules.SWITCH(
    "Also evaluate while learning from what is scored (Krause et al. 2018).",
    when.NEXT_SYMBOL,
  ),
  simple=rules.SWITCH(
    "Print the figure of a simple method of the task beside it. Texts need"
    " scikit-learn, and at most 500,000 symbols to train on.",
    default=True,
  ),
)

FIELDS |= group(
  "predict",
  split=rules.SPLIT("The split to predict.", default="validation"),
  text=rules.TEXT("A text to predict, instead of a split."),
  path=input_path("Files to predict, as data.format; labels may be missing."),
  gap=rules.NOT_EMPTY(
    "The mark of a missing symbol. A language model needs a number, as _{5}.",
    when.DETECTION,
    default="_",
  ),
  top_k=rules.COUNT("The most likely predictions to show.", default=5),
  sequences=rules.COUNT("Sequences of a split or file to show.", default=3),
)

FIELDS |= group(
  "sample",
  *when.SAMPLED,
  temperature=rules.TEMPERATURES(
    "One or several temperatures, to divide logits; 0: the most likely symbol.",
    default=(1.0,),
  ),
  length=rules.COUNT("The symbols of a text.", default=500),
  streams=rules.ROWS("The texts per temperature.", default=1),
  prime=rules.TEXT(
    "The text to continue. Music: a piece of the test split and its frames, as"
    " 3:16. Empty: begin like a document.",
    default="",
  ),
  seed=rules.SEED("The seed of the draws.", default=0),
)

FIELDS |= group(
  "sample",
  *when.SAMPLED_TEXT,
  prompts=input_path(
    "A file of texts to continue, a line each, or JSON lines with `prime`"
    " (.jsonl), instead of sample.prime."
  ),
  format=choice("text jsonl", "jsonl: JSON lines, also in samples.jsonl."),
  top_k=rules.COUNT("Draw from the k most likely symbols."),
  top_p=rules.ABOVE_0(
    "Draw from the smallest set with this probability (Holtzman et al. 2020)."
  ),
  pattern=rules.TEXT(
    "A regular expression that texts after the prime match (extra `patterns`)."
  ),
  schema=input_path(
    "A file with a JSON schema for texts after the prime (extra `patterns`)."
  ),
  min_p=rules.ABOVE_0("Draw symbols of p >= min_p max p (Nguyen et al. 2024)."),
  repetition_penalty=rules.PENALTY(
    "Divide positive logits of repeated symbols by this, and multiply negative"
    " ones (Keskar et al. 2019)."
  ),
  no_repeat=rules.COUNT("Draw no n-gram of this length twice."),
  stop=rules.STOPS(
    r'A text, or a JSON list of texts such as ["\n"], that ends it.'
  ),
)

FIELDS |= group(
  "embed",
  of=choice(
    "texts symbols vocabulary",
    "texts: a vector a text or session. symbols: a vector a symbol in its"
    " context. vocabulary: the embedding of each symbol.",
  ),
  path=input_path("Files to read, instead of a split.", when.STATES),
  layer=rules.COUNT("The layer, from 1. Empty: the last.", when.STATES),
  pooling=choice(
    "mean last max",
    "A text's vector. last: each direction's final state. mean, max: of all.",
    {"embed.of": ("texts",)},
  ),
)

FIELDS |= group(
  "export",
  format=choice(
    "safetensors onnx",
    "safetensors: tensors with PyTorch's names and gate order. onnx: a graph"
    " that runs without JAX. Both need the extra `export`.",
  ),
)
