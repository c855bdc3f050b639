r"""Parts of speech of English: UD-EWT, the UPOS tags of Universal Dependencies.

What: two bidirectional LSTM layers of 128 units read the words of a sentence. A
word is read as its embedding, concatenated with the final states of a
bidirectional LSTM over its characters. Words that occur once in the training
split are unknown, so that the model learns to tag unknown words.
Source: the tagger of Ling et al. 2015, with the word embeddings of Plank et al.
2016.
Expected: test accuracy 93.1 % (jax 0.10.1, seed 0; RESULTS.md). Choosing the
most frequent tag of each word has 86.2 %.
The treebank is downloaded once (18 MB, CC BY-SA 4.0). For another one, in
CoNLL-U:
  --config.data.source=files --config.data.train_path=train.conllu \
  --config.data.validation_path=dev.conllu --config.data.test_path=test.conllu
Command: python run.py --config=configs/ud_ewt.py
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the config of this recipe."""
  config = base.get_config()
  config.task = "tagging"
  data = config.data
  data.source = "ud_ewt"
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
