r"""Language model of words: an LSTM predicts the next word of Python's help.

What: an LSTM layer of 200 units reads 20 parallel streams, 20 words a step, and
passes the carry from batch to batch. The softmax shares the weights of the
embedding.
Source: the small model of Zaremba et al. 2014 (2 layers of 200, windows and
batches of 20). Because the text is small, the recipe has one layer, and adds
tied weights (Press & Wolf 2017), dropout, Adam and averaged parameters. Words
that occur once are the unknown word, as rare words are in the Penn Treebank's
files. Topics quote each other, so those that share a line are in one split. The
Penn Treebank is downloaded by --config.data.source=ptb_words
Expected: test perplexity 63, accuracy 29.5 %, after 27 s on one core (Python
3.11.7's help, jax 0.10.1, seed 0). A fifth of the words of the test topics are
the unknown word.
Command: python run.py --config=configs/words.py
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  data = config.data
  data.source = "topics"
  data.unit = "word"
  data.min_count = 2
  data.window = 20
  data.split = "shared_lines"  # Topics quote each other.
  data.validation_fraction = 0.1
  data.test_fraction = 0.1
  data.stateful = True

  config.model.hidden_size = 200
  config.model.layers = 1
  config.model.embedding_size = 200
  config.model.tied = True
  config.model.dropout = 0.4

  config.optimizer.learning_rate = 1e-2
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 20
  config.train.epochs = 6
  config.train.ema = 0.99
  return config
