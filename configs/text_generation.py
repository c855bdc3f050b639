r"""Keras's lstm_text_generation: the next character after a window of 40.

What: one LSTM layer of 128 units reads 40 characters from the zero carry and
predicts the next character; windows start every 3 characters.
Source: keras-team/keras, examples/lstm_text_generation.py: length 40, step 3,
128 units, RMSprop at 0.01, batches of 128, samples of 400 characters at
temperatures 0.2, 0.5, 1.0 and 1.2. An epoch of Keras's is 200,000 windows of
Nietzsche in lower case; here it is 100,000 windows of the standard library, the
rate decays to zero, and the parameters are averaged.
Expected: test 2.27 bits a character, accuracy 59 %; 3 minutes on one core
(Python 3.11.7's library, jax 0.10.1, seed 0).
Command: python run.py --config=configs/text_generation.py
"""

from seqrnn.configs import base


def get_config():
  """Returns the config of this recipe."""
  config = base.get_config()
  data = config.data
  data.mapping = "many_to_one"
  data.window = 40
  data.step = 3
  data.boundaries = False
  data.validation_fraction = 0.01
  data.test_fraction = 0.01

  config.model.hidden_size = 128
  config.model.layers = 1

  config.optimizer.name = "rmsprop"
  config.optimizer.learning_rate = 0.01
  config.schedule.name = "cosine"

  config.train.batch_size = 128
  config.train.samples_per_epoch = 100_000
  config.train.epochs = 10
  config.train.ema = 0.999
  config.train.adapt_to_length = True

  config.sample.temperature = (0.2, 0.5, 1.0, 1.2)
  config.sample.length = 400
  return config
