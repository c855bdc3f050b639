"""The search for values of other fields."""

from seqrnn.config import rules
from seqrnn.config.field import WRITTEN, choice, group

FIELDS = group(
  "search",
  method=choice(
    "tpe random grid coarse",
    "tpe: Optuna's tree-structured Parzen estimator. random: random values."
    " grid: all combinations. coarse: only the learning rate, by factors of ten"
    " and then three (Greff et al. 2017).",
  ),
  trials=rules.COUNT("The maximum number of trials.", default=40),
  pruning=choice(
    "median hyperband none",
    "Trials that end early. median: worse than the median of earlier trials."
    " hyperband: worse than two thirds, checked earlier.",
    {"search.method": ("tpe", "random", "grid")},
  ),
  space=rules.SPACE(
    "The values of a field, as model.dropout=uniform(0, 0.5); repeat the flag"
    " for each field. Also log_uniform, integer, one_minus_log_uniform (bounds"
    " of 1 - value), choice(a, b) and grid(a, b)."
  ),
  storage=rules.TEXT(
    "A database as an SQLAlchemy URL (extra `postgres`). Empty: a file in the"
    " workdir, which machines may share.",
    place=WRITTEN,
  ),
)
