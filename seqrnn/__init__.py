"""Recurrent networks on sequences of symbols, in JAX and Flax.

The functions and classes of this module are the Python API, seqrnn/api.py. They
are loaded when they are first used: `import seqrnn` itself imports no JAX.
"""
# ruff: noqa: F403, F405

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any

# Level 3: fatal errors only. XLA logs programs that it loads from a cache as
# errors. It reads this when JAX is imported, which sets 1 if this is not set.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if TYPE_CHECKING:
  from seqrnn.api import *
  from seqrnn.estimators import *


__all__ = [
  "Detection",
  "Interrupted",
  "Prediction",
  "Run",
  "Study",
  "UserError",
  "detect",
  "export",
  "from_export",
  "load",
  "runs",
  "search",
  "train",
]
# Those of seqrnn/estimators.py, which needs scikit-learn.
ESTIMATORS = (
  *("LanguageModel", "SessionDetector", "Tagger", "TextClassifier"),
  "TextRegressor",
)


@functools.cache
def load_api() -> Any:
  """The module seqrnn.api, whose import starts with JAX's settings."""
  from seqrnn.runtime import compiled

  compiled.enable_cache()  # JAX reads its settings when it is imported.
  return importlib.import_module("seqrnn.api")


def __getattr__(name: str) -> Any:
  if name in __all__:
    return getattr(load_api(), name)
  if name in ESTIMATORS:
    return getattr(importlib.import_module("seqrnn.estimators"), name)
  raise AttributeError(f"module 'seqrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__, *ESTIMATORS})
