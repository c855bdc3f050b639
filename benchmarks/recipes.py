"""The recipes of RESULTS.md, which results.py runs."""

from typing import Any, NamedTuple


class Recipe(NamedTuple):
  """A data set, its training, and the figures to compare with.

  Attributes:
    what: the data set and the split.
    source: the data set in the catalogue.
    metric: the metric in words.
    figure: the name of the metric in evaluation.json.
    published: a published figure, with its source.
    baseline: the figure of a simple method, with its source.
    config: the name of the config in configs/.
    fields: fields that override the config.
    splits: the splits to evaluate.
    pretrained: the text that the model has learned from before, in words, with
      its source; "": it starts from nothing.
    prepare: a command that makes what `fields` name; "": none does.
    dynamic: whether test is also evaluated with parameters that follow it.
    notes: what was tried and lost, with figures of validation.
  """

  what: str
  source: str
  metric: str
  figure: str
  published: str
  baseline: str
  config: str
  fields: dict[str, Any]
  splits: tuple[str, ...] = ("validation", "test")
  pretrained: str = ""
  prepare: str = ""
  dynamic: bool = False
  notes: tuple[str, ...] = ()


_LABELLED = {  # Fields that all classification sets share.
  "task": "classification",
  "data.unit": "word",
  "data.boundaries": False,
  "data.keep": "first",
  "data.buckets": 3,
  "model.bidirectional": True,
  "model.layers": 1,
  "optimizer.clip_norm": 1.0,
  "optimizer.learning_rate": 4e-3,
  "schedule.name": "cosine",
  "train.batch_size": 32,
  "train.ema": 0.995,
  # Two devices would be slower with so small a batch.
  "train.cpu_devices": 1,
}

_SENTENCES = {  # Fields that all recipes of SST-2 share.
  **_LABELLED,
  "data.window": 48,
  "data.min_count": 3,
  "model.pooling": "max",
  "model.dropout": 0.4,
  "model.weight_drop": 0.5,
  "train.ema": 0.99,
  "train.epochs": 8,
  "train.label_smoothing": 0.06,
}

_QUESTIONS = {  # Fields that all recipes of TREC share.
  **_LABELLED,
  "data.window": 24,
  "model.hidden_size": 128,
  "model.pooling": "mean",
  "model.symbol_dropout": 0.07,
  "model.weight_drop": 0.36,
  "train.epochs": 14,
  "train.label_smoothing": 0.1,
}
_TREC = Recipe(
  what="TREC questions, 6 classes; every tenth of training for validation",
  source="trec",
  metric="accuracy",
  figure="accuracy",
  published="-",
  baseline="logistic regression of words and pairs: 0.890*",
  config="configs/base.py",
  fields=_QUESTIONS,
)
_SST2 = Recipe(
  what="SST-2, whole sentences, 2 classes",
  source="sst2",
  metric="accuracy",
  figure="accuracy",
  published="2-layer LSTM 0.863, with GloVe and labelled phrases (Tai et al."
  " 2015)",
  baseline="logistic regression of words and pairs: 0.810*",
  config="configs/base.py",
  fields=_SENTENCES,
)
_VECTORS = (
  "IMDB's training texts, without their labels: word vectors, made in 75 s"
  " (Maas et al. 2011)"
)

# Published figures have their source; * marks figures of this project.
RECIPES = {
  "jsb": Recipe(
    what="JSB chorales; frames 2..T, every frame alike",
    source="jsb",
    metric="nats a frame",
    figure="loss",
    published="LSTM 8.45, TCN 8.10 (Bai et al. 2018)",
    baseline="each key from its last state: 10.49*",
    config="configs/polyphony.py",
    fields={
      "model.hidden_size": 400,
      "model.dropout": 0.35,
      "model.variational_dropout": 0.4,
      "model.recurrent_dropout": 0.075,
      "model.weight_drop": 0.65,
      "optimizer.learning_rate": 8e-3,
      "train.ema": 0.998,
      "train.epochs": 120,
      "train.cpu_devices": 1,
    },
    notes=(
      "dropout 0.57, no variational dropout or weight_drop, rate 0.01, ema"
      " 0.995, 70 epochs: 8.216 (seed 0, as all others); test 8.279 ± 0.041,"
      " three seeds",
      "AdamW with weight decay 0.1: 8.262; input_noise 0.1: 8.241; GRU: 8.441",
      "variational_dropout 0.3 to 0.45 without weight_drop, 70 to 100 epochs:"
      " 8.187 to 8.237; with weight_drop 0.3, 0.4, 0.5: 8.144, 8.169, 8.092 at"
      " rates of 0.004 and 0.006; 0.5 at 0.008, 140 epochs: 8.019",
    ),
  ),
  "nottingham": Recipe(
    what="Nottingham; frames 2..T, every frame alike",
    source="nottingham",
    metric="nats a frame",
    figure="loss",
    published="LSTM 3.29, TCN 3.07 (Bai et al. 2018)",
    baseline="each key from its last state: 5.16*",
    config="configs/polyphony.py",
    fields={
      "data.stateful": True,
      "model.hidden_size": 400,
      "model.dropout": 0.4,
      "model.variational_dropout": 0.1,
      "model.recurrent_dropout": 0.05,
      "model.weight_drop": 0.3,
      "model.products": "bfloat16",
      "optimizer.learning_rate": 6e-3,
      "train.batch_size": 8,
      "train.ema": 0.999,
      "train.epochs": 45,
      "train.eval_every": 1000,
      "train.cpu_devices": 1,
    },
    notes=(
      "dropout 0.5, recurrent_dropout 0.15, no variational dropout or"
      " weight_drop, rate 0.004, 30 epochs: 3.151 (seed 0, as all others;"
      " above, 3.119); test 3.142 ± 0.014, three seeds",
      "30 epochs, weight_drop 0.3: dropout 0.5, recurrent_dropout 0.1, no"
      " variational dropout: 3.190; dropout 0.3, variational_dropout 0.1:"
      " 3.127; weight_drop 0.5, variational_dropout 0.2: 3.255",
      "600 units, weight_drop 0.4, dropout 0.35, rate 0.005, 30 epochs: 3.118"
      " in three times the time",
    ),
  ),
  "trec": _TREC._replace(
    fields={
      **_QUESTIONS,
      "data.min_count": 1,
      "model.embedding_size": 200,
      "model.dropout": 0.5,
      "optimizer.name": "adamw",
      "optimizer.weight_decay": 0.2,
      "train.ema": 0.998,
    },
    notes=(
      "Adam, dropout 0.44, ema 0.995: 0.882 ± 0.008, 0.418 nats (seed 0, as all"
      " others; above, 0.403); test 0.904 ± 0.003, three seeds",
      "weight decay alone: 0.883, 0.417 nats; pooling max: 0.886, 0.535;"
      " initial_scale 0.1 to 0.3: 0.864 to 0.879, 0.432 to 0.489",
      "vectors of its own training split with log-count ratios, as of sst2:"
      " 0.837, 0.535 nats, and those that learn: 0.851, 0.478",
    ),
  ),
  "trec_vectors": _TREC._replace(
    fields={
      **_QUESTIONS,
      "data.min_count": 2,
      "model.embedding_size": 600,
      "model.dropout": 0.44,
      "optimizer.learning_rate": 3e-3,
      "train.start_from": "runs/vectors/start",
      "train.freeze": "embedding",
    },
    pretrained=_VECTORS,
    prepare="python benchmarks/vectors.py runs/vectors",
  ),
  "sst2": _SST2._replace(
    what="SST-2, whole sentences, 2 classes; from word vectors and log-count"
    " ratios of its own training split",
    fields={
      **_SENTENCES,
      "data.min_count": 2,
      "model.embedding_path": "runs/words/sst2/vectors.txt",
      "model.embedding_size": 201,
      "model.hidden_size": 64,
      "optimizer.name": "adamw",
      "optimizer.weight_decay": 0.2,
      "optimizer.learning_rate": 2e-3,
      "train.ema": 0.998,
    },
    prepare="python benchmarks/vectors.py runs/words/sst2 --labelled=sst2",
    notes=(
      "an embedding of 200 that starts at random, 32 units, Adam, 0.005: 0.797,"
      " 0.453 nats; test 0.803 ± 0.005, three seeds",
      "the same with AdamW, weight decay 0.2, dropout 0.5 and ema 0.998: 0.815"
      " and 0.794, 0.424 and 0.432 nats (seeds 0 and 1; below, seed 0)",
      "that with a rate of 0.01 and weight decay 0.3: 0.817, 0.433 nats",
      "mean pooling, variational or embedding dropout, initial_scale 0.05 to"
      " 0.3: 0.783 to 0.810, 0.425 to 0.469 nats",
      "these vectors, but frozen: 0.810, 0.417 nats; with symbol_dropout 0.1:"
      " 0.815, 0.422",
    ),
  ),
  "sst2_vectors": _SST2._replace(
    fields={
      **_SENTENCES,
      "model.embedding_size": 600,
      "model.hidden_size": 48,
      "optimizer.learning_rate": 2e-3,
      "train.start_from": "runs/vectors/start",
      "train.freeze": "embedding",
    },
    pretrained=_VECTORS,
    prepare="python benchmarks/vectors.py runs/vectors",
    notes=(
      "a start from a language model of these texts (300 tied units, perplexity"
      " 128) and not from vectors: 0.792, 0.435 nats, of seed 0 as all others;"
      " from nothing: 0.800, 0.453",
      "vectors that learn: 0.819, 0.402 nats",
      "vectors only of the words of SST-2's training split: 0.830, 0.382 nats",
      "the layer of a language model that reads these vectors: 0.839, 0.387"
      " nats",
      "100 units and dropout 0.5: 0.844, 0.390 nats; a rate of 0.001: 0.841,"
      " 0.384",
    ),
  ),
  "imdb": Recipe(
    what="IMDB, 2 classes; every tenth of training for validation",
    source="imdb",
    metric="accuracy",
    figure="accuracy",
    published="bidirectional LSTM 0.8428 on the test set, the epoch chosen"
    " there (keras-io)",
    baseline="logistic regression of words and pairs: 0.896*",
    config="configs/base.py",
    fields={
      **_LABELLED,
      "data.min_count": 3,
      "data.window": 400,
      "data.keep": "last",
      "model.embedding_size": 600,
      "model.hidden_size": 96,
      "model.pooling": "mean",
      "model.dropout": 0.4,
      "model.symbol_dropout": 0.05,
      "model.products": "bfloat16",
      "optimizer.learning_rate": 2e-3,
      "train.start_from": "runs/vectors/start",
      "train.freeze": "embedding",
      "train.epochs": 5,
      "train.eval_every": 352,
    },
    pretrained=_VECTORS,
    prepare="python benchmarks/vectors.py runs/vectors",
    notes=(
      "from nothing, an embedding of 64 that learns, 20,000 words, 64 units,"
      " 0.004, 3 epochs: 0.904 (seed 0, as all others); test 0.890",
      "from these vectors, 64 units, 3 epochs: 0.917, 0.212 nats",
    ),
  ),
  "ud_ewt": Recipe(
    what="UD English EWT, 17 UPOS tags",
    source="ud_ewt",
    metric="accuracy",
    figure="accuracy",
    published="-",
    baseline="most frequent tag of each word: 0.862*",
    config="configs/ud_ewt.py",
    fields={},
  ),
  "snips": Recipe(
    what="Snips, 39 slots of requests; ud_ewt's config as it stands",
    source="snips",
    metric="F1 of slots",
    figure="f1",
    published="slot-gated 0.888 (Goo et al. 2018)",
    baseline="most frequent tag of each word: 0.498*",
    config="configs/ud_ewt.py",
    fields={},
  ),
  "char_rnn": Recipe(
    what="tinyshakespeare; char-rnn's split, the last 5 % of 50 streams",
    source="tinyshakespeare",
    metric="nats a character",
    figure="loss",
    published="1.394 at epoch 26 (a user of char-rnn, its pull request 151)",
    baseline="-",
    config="configs/char_rnn.py",
    fields={
      "model.dropout": 0.1,
      "optimizer.learning_rate": 3e-3,
      "schedule.name": "cosine",
      "train.ema": 0.999,
      "train.epochs": 40,
    },
    splits=("validation",),
  ),
  "shakespeare": Recipe(
    what="tinyshakespeare; the last 10 % (nanoGPT's split, a character less)",
    source="tinyshakespeare",
    metric="nats a character",
    figure="loss",
    published="Transformer 1.4697 (nanoGPT)",
    baseline="n-grams, Witten-Bell: 1.669*",
    config="configs/char_rnn.py",
    fields={
      "data.split": "tails",
      "data.validation_fraction": 0.1,
      "data.window": 64,
      "model.hidden_size": 512,
      "model.dropout": 0.5,
      "model.variational_dropout": 0.1,
      "model.weight_drop": 0.2,
      "model.products": "bfloat16",
      "optimizer.name": "adam",
      "optimizer.learning_rate": 3e-3,
      "optimizer.clip_value": "none",
      "optimizer.clip_norm": 1.0,
      "schedule.name": "cosine",
      "train.batch_size": 32,
      "train.ema": 0.999,
      "train.epochs": 36,
      "train.cpu_devices": 1,
    },
    splits=("validation",),
    notes=(
      "hidden size 384, dropout 0.5, recurrent_dropout 0.15, no weight_drop,"
      " batches of 64, 30 epochs: 1.457 (seed 0, as all others)",
      "hidden size 384, dropout 0.4, rate 0.002, 30 epochs: 1.457",
      "hidden size 384, weight_drop 0.5, variational_dropout 0.3: 1.560 after"
      " 22 epochs; weight_drop 0.3, rate 0.008: 1.514 after 21 epochs",
    ),
  ),
  "ptb": Recipe(
    what="PTB characters",
    source="ptb",
    metric="bits a character",
    figure="bits_per_symbol",
    published="LSTM 1.36, TCN 1.31 (Bai et al. 2018)",
    baseline="n-grams, Witten-Bell: 1.54*",
    config="configs/char_rnn.py",
    fields={
      "data.split": "auto",
      "data.window": 100,
      "model.hidden_size": 512,
      "model.initial_scale": "none",
      "model.dropout": 0.15,
      "model.products": "bfloat16",
      "schedule.name": "cosine",
      "schedule.warmup_steps": 200,
      "train.batch_size": 64,
      "train.ema": 0.999,
      "train.epochs": 12,
    },
    notes=(
      "Adam with gradients clipped by norm, batches of 32, rate 0.01, 14"
      " epochs: 1.432 (seed 0, as all others); test 1.392, with dynamic"
      " evaluation 1.367. Rate 0.002, dropout 0.1, recurrent_dropout 0.05, 10"
      " epochs: 1.467",
      "A lead at the start says little: after 500 steps this Adam at 0.01 had"
      " 1.463 nats, at 0.002 1.817, and RMSprop 1.617",
    ),
  ),
  "ptb_words": Recipe(
    what="PTB words",
    source="ptb_words",
    metric="perplexity of a word",
    figure="perplexity",
    published="2 layers of 200: 115.9 (TensorFlow's ptb_word_lm); of 650: 82.7"
    " (Zaremba et al. 2014)",
    baseline="-",
    config="configs/base.py",
    fields={
      "data.window": 35,
      "data.stateful": True,
      "model.layers": 1,
      "model.hidden_size": 400,
      "model.embedding_size": 400,
      "model.tied": True,
      "model.dropout": 0.45,
      "model.symbol_dropout": 0.05,
      "model.products": "bfloat16",
      "optimizer.learning_rate": 3e-3,
      "optimizer.clip_norm": 1.0,
      "schedule.name": "cosine",
      "schedule.warmup_steps": 200,
      "train.batch_size": 32,
      "train.ema": 0.998,
      "train.epochs": 10,
      "train.cpu_devices": 1,
    },
  ),
}
