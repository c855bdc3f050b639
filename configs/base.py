"""Every field of a config: its default, rule, meaning and conditions.

seqrnn/config/fields/ declares them, a module for each group or for a few. The
other configs start from these defaults and override fields. So do flags, such
as `--config.model.hidden_size=256`. A field that declares no default is empty,
and the flag value `none` empties it again. A field with conditions, behind its
help text, has an effect only if one of them holds; otherwise setting it causes
a warning.

Letters: B batch rows, T window length in symbols, V vocabulary size.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from seqrnn.config.field import nested
from seqrnn.config.fields import data, detect, model, modes, search, training
from seqrnn.config.rules import SEED, TEXT

FIELDS = {
  "task": TEXT("A module of experiments/.", default="language_model"),
  "seed": SEED("The seed of the initial values, the data, dropout.", default=0),
  **data.FIELDS,
  **model.FIELDS,
  **training.FIELDS,
  **modes.FIELDS,
  **detect.FIELDS,
  **search.FIELDS,
}


def get_config() -> ConfigDict:
  """The defaults: a unidirectional language model of the standard library."""
  values = {
    name: placeholder(field.rule.kind) if field.optional else field.default
    for name, field in FIELDS.items()
  }
  return ConfigDict(nested(values)).lock()
