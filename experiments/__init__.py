"""The tasks, one module each."""

import importlib
import pkgutil
from collections.abc import Mapping

from seqrnn.config import suggestions
from seqrnn.config.read import Config
from seqrnn.data.logs import templates
from seqrnn.data.logs.sessions import event_vocabulary
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment

TASKS = [module.name for module in pkgutil.iter_modules(__path__)]


def build(
  config: Config, vocabularies: Mapping[str, Vocabulary] | None
) -> Experiment:
  """The experiment of a config.

  Args:
    config: of the run.
    vocabularies: of the run; None: made from the training split, which reads
      the corpus.
  """
  if config.task not in TASKS:
    raise UserError(
      f"config.task={config.task!r}: must be one of {', '.join(TASKS)}"
      f"{suggestions.hint(config.task, TASKS)}"
    )
  # Of one task alone: the imports of others take time and memory.
  task = importlib.import_module(f"{__name__}.{config.task}")
  if not hasattr(task, "build"):
    raise UserError(f"config.task={config.task!r}: has no function build")
  known = task.prepare(config) if vocabularies is None else vocabularies
  missing = set(task.VOCABULARIES) - set(known)
  if missing:
    raise UserError(f"vocabulary.json: lacks {', '.join(sorted(missing))}")
  pattern = config.detect.redact
  named = ((n, known[n]) for n in (*task.VOCABULARIES, "terms") if n in known)
  experiment = task.build(
    config, {name: event_vocabulary(v, pattern) for name, v in named}
  )
  if config.data.unit == "log":
    events = experiment.vocabularies["symbols"].symbols
    experiment = experiment._replace(
      remarks=lambda: templates.remarks(events, pattern)
    )
  return experiment
