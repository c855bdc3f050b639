r"""Words of Python's help: the next word after those before it.

What: two LSTM layers of 200 units read 20 parallel streams of words, 20 a step,
the carry handed on; the softmax over all words uses the embedding's weights.
Source: the small model of Zaremba et al. 2014 (2 layers of 200, windows and
batches of 20), with tied weights (Press & Wolf 2017), dropout and Adam, since
the text is small. Penn Treebank's three files, where you have them:
  --config.data.source=files --config.data.train_path=ptb.train.txt \
  --config.data.validation_path=ptb.valid.txt \
  --config.data.test_path=ptb.test.txt
Expected: test perplexity 296, 20.2 % right, after 44 s on 2 cores (Python
3.11.7's help, jax 0.10.1, seed 0).
Command: python run.py --config=configs/words.py
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """The recipe."""
  config = base.get_config()
  data = config.data
  data.source = "topics"
  data.unit = "word"
  data.window = 20
  data.stateful = True

  config.model.hidden_size = 200
  config.model.layers = 2
  config.model.embedding_size = 200
  config.model.tied = True
  config.model.dropout = 0.3

  config.optimizer.learning_rate = 4e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 20
  config.train.epochs = 4
  return config
