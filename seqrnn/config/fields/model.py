"""The network."""

from seqrnn.config.field import (
  BELOW_1,
  COUNT,
  FINITE,
  NOT_EMPTY,
  NOT_NEGATIVE,
  POSITIVE,
  READ,
  SIZE,
  SWITCH,
  Field,
  Registered,
  choice,
  integer,
  one_of,
  optional,
)
from seqrnn.config.fields.conditions import (
  FORGET_GATE,
  POOLED,
  SYMBOLS,
  TWO_WAYS,
  cells,
  group,
  task,
)

MODEL = group(
  "model",
  cell=Field(
    "lstm",
    one_of(Registered(cells)),
    "The recurrent cell, by the name that its class is registered with in"
    " seqrnn/models/cells.py, which has the equations.",
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
    (task("classification", "language_model", "tagging"),),
  ),
  merge=Field(
    "concat",
    choice("concat", "sum", "mean"),
    "The operation that merges the outputs of both directions.",
    TWO_WAYS,
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
  embedding_scale=optional(
    float,
    POSITIVE,
    "The standard deviation of the initial embedding. Empty: that of"
    " model.initial_scale, or 1. With a small one, such as 0.03, the row of a"
    " symbol that is seldom trained stays near zero, not at a random value.",
    SYMBOLS | {"model.tied": (False,)},
  ),
  embedding_path=optional(
    str,
    NOT_EMPTY,
    "A file of vectors that the embedding starts from, as text of GloVe,"
    " word2vec or fastText: a line has a symbol and model.embedding_size"
    " numbers; may be gzipped.",
    SYMBOLS,
    place=READ,
  ),
  pooling=Field(
    "last",
    choice("last", "mean", "max"),
    "The reduction to one output. last: the final state of each direction."
    " mean, max: the mean or maximum of the outputs over time.",
    POOLED,
  ),
  letters=optional(
    int,
    SIZE,
    "The units, in each direction, of an LSTM over the characters of a word."
    " Its final states are concatenated to the embedding of the word.",
    task("tagging"),
  ),
  affixes=optional(
    int,
    integer(1, 8, "1 to 8"),
    "The longest prefix and suffix, in characters, of which a word has"
    " features, instead of model.letters. The features of all its affixes and"
    " of its shape, such as Xx-0, are summed and concatenated to the embedding"
    " of the word. It is several times faster than an LSTM over characters.",
    task("tagging"),
  ),
  crf=Field(
    False,
    SWITCH,
    "A linear-chain CRF over the tags (Lample et al. 2016): the loss is that of"
    " all tags of a text together, predictions are the most likely sequence,"
    " and probabilities are its marginals.",
    (task("tagging"),),
  ),
  crf_constraints=Field(
    True,
    SWITCH,
    "Never predict a sequence that BIO, BIOES or BILOU forbids, such as I-PER"
    " after O, if all tags follow one of them. False is for IOB1, whose spans"
    " may begin with I.",
    (task("tagging") | {"model.crf": (True,)},),
  ),
  tied=Field(False, SWITCH, "Use the embedding's weights in the softmax, too."),
  forget_bias=Field(
    1.0, FINITE, "The initial bias of a forget gate.", (FORGET_GATE,)
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
  weight_drop=Field(
    0.0,
    BELOW_1,
    "The share of the recurrent kernels' entries that are zero for a batch"
    " (DropConnect: Wan et al. 2013, Merity et al. 2017).",
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
