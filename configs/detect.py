r"""Odd sessions of events, found without labels, at a chosen false-alarm rate.

What: configs/sessions.py, where an event is an opcode of CPython and a session
is one function of the standard library, trained for longer; then
--mode=detect makes a twentieth of the held-out sessions anomalous from a seed
(events swapped, dropped, inserted, a run of another session, the end cut off),
and says how well each kind is found, by the network and by baselines.
Your own sessions, one a line, and those to look at:
  --config.data.source=files --config.data.path=normal.txt
  --mode=detect --config.detect.path=new.txt --config.detect.inject=0
Source: the task of Du et al. 2017 (DeepLog), with error rates by conformal
prediction.
Expected: after two to three minutes, with --config.detect.folds=0, average
precision .522 of the combined score; of the best baseline, a Markov chain of
order 5, .504. By kind: swap .22, drop .23, insert .40, foreign .46, truncate
.41; the chain finds truncations better (.56), the network insertions and
foreign runs (Python 3.11.7, jax 0.10.1, seed 0). The five folds of the default
take as long as five trainings more.
Command: python run.py --config=configs/detect.py
  then: python run.py --config=configs/detect.py --mode=detect
"""

import ml_collections

from configs import sessions


def get_config() -> ml_collections.ConfigDict:
  """The recipe."""
  config = sessions.get_config()
  config.data.test_fraction = 0.2
  config.train.epochs = 20
  config.detect.inject = 0.05
  # One odd event in a session of many changes no counts to speak of.
  config.detect.scores = "max,mean"
  return config
