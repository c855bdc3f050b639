r"""Classification of sentences by their words; for want of any, of code.

What: configs/classification.py with words for characters: the network reads 48
words through an embedding that starts near zero, so that a word which training
has a few times does not keep a large random value. It reads them in lower case,
and its logits are also linear in words, pairs of words and parts of words.
Source: this project. The recipe needs no download; it reads windows of 48 words
of the Python standard library, labelled by package. Whole modules are held out.
Your own: --config.data.source=files --config.data.path=my.csv
  --config.data.format=csv, with the columns text and label.
Expected: test accuracy 98.4 % of 62 modules, macro F1 .99, after two minutes on
one core (Python 3.11.7, jax 0.10.1, seed 0).
Command: python run.py --config=configs/sentences.py
"""

from seqrnn.configs import classification


def get_config():
  """Returns the config of this recipe."""
  config = classification.get_config()
  config.data.unit = "word"
  config.data.window = 48
  config.model.embedding_size = 100
  config.model.embedding_scale = 0.03
  return config
