"""The search space: fields of a config and their distributions."""

from optuna import distributions

from seqrnn.config import derived
from seqrnn.config import read as config_lib
from seqrnn.config.read import FIELDS, Config
from seqrnn.errors import UserError

# Name of a field -> Optuna's distribution; under _REST + name the distribution
# of 1 - the field.
Space = dict[str, distributions.BaseDistribution]
_REST = "1 - "
_COARSE_SIZE = 64  # The most units of a layer in the coarse search.
LEARNING_RATE = "optimizer.learning_rate"
_RANGES = {
  float: ("log_uniform", "uniform", "one_minus_log_uniform"),
  int: ("log_uniform", "integer"),
}


def parse_space(config: Config) -> Space:
  """The search space that `config.search.space` describes.

  Raises:
    UserError: a text has none of the forms, a value breaks its field's rule,
      or the method cannot use the form.
  """
  space, method = {}, config.search.method
  for text in config.search.space:
    name, _, form = (part.strip() for part in text.partition("="))
    try:
      distribution = _distribution(name, form)
      if name in (other.removeprefix(_REST) for other in space):
        raise UserError(f"{name} stands in the space twice")
      if method == "grid" and not hasattr(distribution, "choices"):
        raise UserError("search.method='grid' needs grid(a, b, ...)")
      if method == "coarse" and name != LEARNING_RATE:
        raise UserError(
          f"search.method='coarse' searches {LEARNING_RATE} alone"
        )
    except UserError as error:
      raise UserError(f"config.search.space={text!r}: {error}") from None
    space[_REST * form.startswith("one_minus") + name] = distribution
  if method == "coarse":
    return {LEARNING_RATE: distributions.FloatDistribution(1e-8, 3.0, log=True)}
  if not space:
    example = f"{LEARNING_RATE}=log_uniform(1e-4, 1e-1)"
    raise UserError(f"config.search.space: is empty; must be as {example!r}")
  return space


def choices(distribution: distributions.BaseDistribution) -> tuple:
  """The values of a distribution of `grid` or `choice`."""
  assert isinstance(distribution, distributions.CategoricalDistribution)
  return distribution.choices


def _distribution(name: str, text: str) -> distributions.BaseDistribution:
  """Optuna's distribution of a field, from a text such as integer(1, 3)."""
  if name not in FIELDS or not name.startswith(config_lib.TRAINING):
    raise UserError(config_lib.no_such_field(name))
  if name in config_lib.CPU:
    raise UserError("must be none: a process has one value for all its trials")
  kind = FIELDS[name].rule.kind
  forms = [f"{form}(low, high)" for form in _RANGES.get(kind, ())]
  forms += ["choice(a, b, ...)", "grid(a, b, ...)"]
  form, _, parts = (part.strip() for part in text[:-1].partition("("))
  names = [known.partition("(")[0] for known in forms]
  if form not in names or not parts or text[-1] != ")":
    raise UserError(f"must be {', '.join(forms[:-1])} or {forms[-1]}")
  values = []
  for part in parts.split(","):
    values.append(value := config_lib.converted(name, part.strip()))
    if form.startswith("one_minus") and value is not None:
      value = 1 - value
    if (rule := config_lib.broken(name, value)) is not None:
      raise UserError(f"of which {value!r} {rule}")
  if form in ("choice", "grid"):
    return distributions.CategoricalDistribution(values)
  log = form.endswith("log_uniform")
  low, high = values if len(values) == 2 else (None, None)
  if low is None or high is None or low >= high or (log and low <= 0):
    order = "0 < low < high" if log else "low < high"
    raise UserError(f"must be {form}(low, high), {order}")
  if kind is int:
    return distributions.IntDistribution(low, high, log=log)
  return distributions.FloatDistribution(low, high, log=log)


def trial_config(config: Config, values: dict[str, float]) -> Config:
  """The config of a trial.

  Raises:
    UserError: the values set both `hidden_size` and `parameters` of the model.
  """
  model, search = config.model, config.search
  fields = {
    name.removeprefix(_REST): 1 - value if name.startswith(_REST) else value
    for name, value in values.items()
  }
  if search.method == "coarse" and not model.tied:
    fields["model.hidden_size"] = min(model.hidden_size, _COARSE_SIZE)
  return derived.trial(config, fields)
