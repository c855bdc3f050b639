"""The search for values of other fields."""

from seqrnn.config.field import (
  COUNT,
  TEXT,
  WRITTEN,
  Field,
  Rule,
  choice,
  integer,
  optional,
)
from seqrnn.config.fields.conditions import group

SEARCH = group(
  "search",
  method=Field(
    "tpe",
    choice("tpe", "random", "grid", "coarse"),
    "The method that chooses values. tpe: Optuna's tree-structured Parzen"
    " estimator. random. grid: all combinations. coarse: only the learning"
    " rate, from 1 down by factors of ten until the loss stops improving, then"
    " three times and a third of the best value (Greff et al. 2017).",
  ),
  trials=Field(40, COUNT, "The maximum number of trials."),
  pruning=Field(
    "median",
    choice("median", "hyperband", "none"),
    "The rule that ends trials early, at an evaluation. median: a trial worse"
    " than the median of earlier trials. hyperband: a trial worse than two"
    " thirds of them, with more checks early.",
    ({"search.method": ("tpe", "random", "grid")},),
  ),
  workers=optional(
    int,
    integer(1, 1024, "1 to 1024"),
    "The number of processes on this machine, which share the cores and take"
    " the GPUs in turn. Empty: one for each GPU; without GPUs, one for each"
    " core if layers are small, else one. The method coarse has one.",
  ),
  space=Field(
    (),
    Rule(
      lambda v: isinstance(v, tuple) and all("=" in text for text in v),
      "must be FIELD=VALUES",
    ),
    "The values of a field in a search, as model.dropout=uniform(0, 0.5):"
    " log_uniform(low, high), uniform(low, high), integer(low, high),"
    " one_minus_log_uniform(low, high) with the bounds of 1 - value, choice(a,"
    " b, ...) or grid(a, b, ...). Repeat the flag for each field; flags replace"
    " the space of the config.",
    repeated=True,
  ),
  storage=optional(
    str,
    TEXT,
    "A database as an SQLAlchemy URL, such as"
    " postgresql+psycopg://USER@HOST/NAME (extra `postgres`). Empty: a file in"
    " the workdir, which machines may share.",
    place=WRITTEN,
  ),
)
