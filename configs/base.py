"""Every field of a config: its default, rule, meaning and conditions.

seqrnn/config/fields/ declares them, a module for each group or for a few. The
other configs start from these defaults and override fields. So do flags, such
as `--config.model.hidden_size=256`. A field made by `optional` is empty by
default, and the flag value `none` empties it again. A field with conditions
(its last arguments) has an effect only if one of them holds; otherwise setting
it causes a warning.

Letters: B batch rows, T window length in symbols, V vocabulary size.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from seqrnn.config.field import Field
from seqrnn.config.fields.data import DATA
from seqrnn.config.fields.detect import DETECT
from seqrnn.config.fields.model import MODEL
from seqrnn.config.fields.modes import (
  EMBED,
  EVALUATE,
  EXPORT,
  PREDICT,
  SAMPLE,
)
from seqrnn.config.fields.search import SEARCH
from seqrnn.config.fields.training import (
  CHECKPOINT,
  OPTIMIZER,
  SCHEDULE,
  TRAIN,
)
from seqrnn.config.rules import SEED, TEXT

FIELDS = {
  "task": Field("language_model", TEXT, "A module of experiments/."),
  "seed": Field(0, SEED, "The seed of the initial values, the data, dropout."),
  **DATA,
  **MODEL,
  **OPTIMIZER,
  **SCHEDULE,
  **TRAIN,
  **CHECKPOINT,
  **EVALUATE,
  **PREDICT,
  **SAMPLE,
  **EMBED,
  **DETECT,
  **EXPORT,
  **SEARCH,
}


def get_config() -> ConfigDict:
  """The defaults: a unidirectional language model of the standard library."""
  config = ConfigDict()
  for name, field in FIELDS.items():
    *groups, key = name.split(".")
    group = config
    for part in groups:
      if part not in group:
        group[part] = ConfigDict()
      group = group[part]
    group[key] = (
      placeholder(field.optional) if field.optional else field.default
    )
  return config.lock()
