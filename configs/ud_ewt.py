r"""Parts of speech of English: UD-EWT, the UPOS tags of Universal Dependencies.

What: two bidirectional LSTM layers of 128 units read the words of a sentence,
each as its embedding beside the final states of a bidirectional LSTM over its
characters; an output a word gives its tag. Words that come once in training are
unknown, so that the model learns what to do with those.
Source: the tagger of Ling et al. 2015, with word embeddings beside the
characters as Plank et al. 2016 have them.
Expected: test 93.1 % of the tags right (jax 0.10.1, seed 0; RESULTS.md). The
most frequent tag of each word has 86.2.
Command: python run.py --config=configs/ud_ewt.py \
  --config.data.train_path=ud_ewt/en_ewt-ud-train.conllu \
  --config.data.validation_path=ud_ewt/en_ewt-ud-dev.conllu \
  --config.data.test_path=ud_ewt/en_ewt-ud-test.conllu
.xz and .gz are read as they are.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """The recipe."""
  config = base.get_config()
  config.task = "tagging"
  data = config.data
  data.source = "files"
  data.format = "conllu"
  data.unit = "word"
  data.min_count = 2
  data.window = 48
  data.boundaries = False

  config.model.bidirectional = True
  config.model.layers = 2
  config.model.hidden_size = 128
  config.model.embedding_size = 100
  config.model.letters = 32
  config.model.dropout = 0.4
  config.model.symbol_dropout = 0.05

  config.optimizer.learning_rate = 2e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 32
  config.train.epochs = 8
  return config
