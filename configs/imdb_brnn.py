r"""Keras's imdb_bidirectional_lstm: the sentiment of a film review.

What: a bidirectional LSTM of 64 units reads the embeddings (size 128) of the
last 100 words of a review; its final states give the label.
Source: keras-team/keras, examples/imdb_bidirectional_lstm.py: 20,000 words,
length 100, batches of 32, dropout 0.5, Adam, 4 epochs. Keras validates on the
test set, and so does the command below, so the best epoch is chosen on the test
set. Two differences: Keras's words are in lower case and without punctuation,
while ours are separated by white space only, so preprocess your files; and a
softmax of two labels replaces the sigmoid.
Expected: accuracy 82.4 % after 4 epochs, on texts in lower case in which all
but letters, digits and apostrophes are replaced by spaces; 77.3 % on raw texts,
in 2.4 minutes on one of 2 busy cores (jax 0.10.1, seed 0). Keras's file states
.8146, for an older version of the data.
Command: python run.py --config=configs/imdb_brnn.py \
  --config.data.train_path=imdb/train.tsv \
  --config.data.validation_path=imdb/test.tsv \
  --config.data.test_path=imdb/test.tsv
Each line is a label, a tab and a text; columns between two tabs are skipped.
Files may be compressed (.xz, .gz). For the original files of Maas et al.
(2011) set --config.data.format=folders, with paths such as
'aclImdb/train/[np]*/*.txt'.
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  config.task = "classification"
  data = config.data
  data.source = "files"
  data.format = "tab"
  data.unit = "word"
  data.vocabulary_size = 20_000
  data.window = 100
  data.keep = "last"
  data.boundaries = False

  config.model.bidirectional = True
  config.model.layers = 1
  config.model.hidden_size = 64
  config.model.embedding_size = 128
  config.model.dropout = 0.5

  config.optimizer.learning_rate = 1e-3

  config.train.batch_size = 32
  config.train.epochs = 4
  config.train.fit_to_data = "all"  # A small set has more, smaller steps.
  config.train.adapt_to_length = True
  return config
