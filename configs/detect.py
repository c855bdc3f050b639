r"""Anomaly detection: sessions flagged without labels, at a false-alarm rate.

What: the model of configs/sessions.py, trained for longer. An event is an
opcode of CPython, a session is a function of the standard library. Then
--mode=detect injects anomalies into a twentieth of the held-out sessions
(swapped, dropped and inserted events, events of another session, truncation),
and evaluates the network and the baselines on each kind of anomaly.
Your own sessions, one a line, and the sessions to score:
  --config.data.source=files --config.data.path=normal.txt
  --mode=detect --config.detect.path=new.txt --config.detect.inject=0
Source: the task of Du et al. 2017 (DeepLog), with error rates by conformal
prediction.
Expected: average precision .675 of the combined score and .554 of the largest
surprisal alone; the best baseline, a Markov chain of order 5, has .490. With
--config.detect.folds=0, after a minute on one core, .702, .545 and .485 (Python
3.11.7, jax 0.10.1, seed 0).
Command: python run.py --config=configs/detect.py
  then: python run.py --config=configs/detect.py --mode=detect
"""

from seqrnn.configs import sessions


def get_config():
  """Returns the config of this recipe."""
  config = sessions.get_config()
  config.data.test_fraction = 0.2
  config.model.dropout = 0.2
  config.train.epochs = 16
  config.detect.inject = 0.05
  return config
