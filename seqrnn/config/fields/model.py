"""The network."""

from seqrnn.config import rules
from seqrnn.config.field import choice, group, input_path
from seqrnn.config.fields import conditions as when

FIELDS = group(
  "model",
  cell=rules.one_of(
    rules.Registered(when.cells),
    more=", or, in a Python program, a cell that it registers",
  )(
    "The recurrent cell; seqrnn/models/cells/ has the equations.",
    default="lstm",
  ),
  hidden_size=rules.SIZE("The units of a layer in a direction.", default=128),
  parameters=rules.COUNT(
    "A budget instead of hidden_size: the run uses the largest hidden size"
    " whose model has at most this many parameters."
  ),
  layers=rules.integer(1, 128)("The recurrent layers.", default=2),
  block=choice(
    "plain residual",
    "What surrounds a layer. plain: nothing. residual: its input is normalised,"
    " its output goes through a gated linear unit and is added to its input;"
    " so six layers train.",
  ),
  bidirectional=rules.SWITCH(
    "Read sequences in both directions.",
    when.LABELLED,
    when.task("language_model"),
  ),
  cell_heads=rules.integer(1, 1024)(
    "Parts of a state that do not read each other; hidden_size is a multiple.",
    when.HEADS,
    default=1,
  ),
  merge=choice(
    "concat sum mean",
    "How the outputs of both directions are merged.",
    when.task("gap_model"),
    {"model.bidirectional": (True,)},
  ),
  heads=choice(
    "joint all",
    "Heads of a gap model. joint: from both sides. all: also from the past and"
    " from the future alone, so that it can sample.",
    when.task("gap_model"),
  ),
  embedding_size=rules.SIZE("Empty: cells read one-hot symbols, no embedding."),
  embedding_scale=rules.POSITIVE(
    "The standard deviation of the initial embedding. Empty: that of"
    " model.initial_scale, or 1. A small one keeps rare symbols near zero.",
    when.SYMBOLS | {"model.tied": (False,)},
  ),
  embedding_path=input_path(
    "Initial vectors, in the text format of GloVe, word2vec or fastText, of"
    " model.embedding_size numbers; may be gzipped.",
    when.SYMBOLS,
  ),
  convolution=rules.integer(3, 9)(
    "The width of a convolution of symbols between embedding and layers.",
    when.LABELLED,
  ),
  pooling=choice(
    "last mean max attention",
    "The reduction to one output. last: the final state of each direction."
    " mean, max: of the outputs over time. attention: their mean, weighted by"
    " a softmax over time of each output and of its place.",
    when.ONE_TARGET,
    when.LAST_SYMBOL,
  ),
  wide=rules.SWITCH(
    "Add logits that are linear in the TF-IDF of the symbols and pairs of"
    " symbols of a whole text. Unless train.choice is best, they are a logistic"
    " or a ridge regression that is fitted before the layers learn.",
    when.ONE_TARGET,
  ),
  logit_weights=rules.WEIGHTS(
    "The factors of the logits of the layers, and of a wide part that was"
    " fitted before them. Empty: a mean, in which the layers have an eighth, or"
    " 0, 0.25, 0.5, 0.75 or 1 if validation is clearly more likely with it;"
    " that of labels is divided by a temperature that fits validation.",
    when.ONE_TARGET | {"model.wide": (True,)},
  ),
  parts=rules.integer(1, 8)(
    "The characters of the longest part of a word that model.wide also reads.",
    when.ONE_TARGET
    | {"model.wide": (True,), "data.unit": ("char", "byte", "word")},
  ),
  crf_constraints=rules.SWITCH(
    "Predict only sequences that BIO, BIOES or BILOU allows, if all tags follow"
    " one of them. Use false for IOB1.",
    when.task("tagging") | {"model.crf": (True,)},
    default=True,
  ),
  tied=rules.SWITCH("Use the embedding's weights in the softmax, too."),
  forget_bias=rules.FINITE(
    "The initial bias of a forget gate.", when.FORGET_GATE, default=1.0
  ),
  initial_scale=rules.POSITIVE("a of initial U(-a, a). Empty: 1/sqrt(fan in)."),
  scan=choice(
    "fused plain",
    "fused: a faster scan with its own gradients. plain: nn.scan, with equal"
    " values; on a GPU its sums have no fixed order, so the last bits differ.",
  ),
  products=choice(
    "float32 tf32 bfloat16",
    "The rounding of factors of matrix products. float32: none. tf32: TF32 on a"
    " GPU, three bfloat16 parts on a TPU, none on a CPU. bfloat16: to bfloat16."
    " Sums and parameters are float32.",
  ),
  dropout=rules.SHARE("Dropout after embedding and layers."),
  variational_dropout=rules.SHARE(
    "Dropout with one mask for all steps (Gal & Ghahramani 2016)."
  ),
  recurrent_dropout=rules.SHARE("Variational dropout of the state."),
  weight_drop=rules.SHARE(
    "The share of recurrent weights zeroed for a batch (Merity et al. 2017)."
  ),
  symbol_dropout=rules.SHARE("The share of training inputs made unknown."),
  nade=rules.SIZE(
    "The hidden units of a NADE, which predicts each note of a frame from the"
    " notes below it. Empty: the notes of a frame are independent.",
    when.task("polyphony"),
  ),
  input_noise=rules.NOT_NEGATIVE(
    "The deviation of noise added to training frames.",
    when.task("polyphony"),
    default=0.0,
  ),
)

FIELDS |= group(
  "model",
  when.task("tagging"),
  letters=rules.SIZE("The units, each way, of an LSTM over a word's letters."),
  affixes=rules.integer(1, 8)(
    "The longest affix of a word that is a feature; faster than model.letters."
  ),
  crf=rules.SWITCH("A linear-chain CRF over the tags (Lample et al. 2016)."),
)
