"""Every field of a config, by its dotted name; a module declares a group."""

from ml_collections.config_dict import placeholder

from seqrnn.config.field import Config, nested
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


def get_config() -> Config:
  """The defaults of all fields."""
  values = {
    name: placeholder(field.rule.kind) if field.optional else field.default
    for name, field in FIELDS.items()
  }
  config = Config(nested(values))
  config.lock()
  return config
