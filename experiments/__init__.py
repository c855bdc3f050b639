"""The tasks, one module each."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType

from seqrnn.config import suggestions
from seqrnn.config.read import Config
from seqrnn.data.logs import templates
from seqrnn.data.logs.sessions import event_vocabulary
from seqrnn.data.vocabulary import Vocabulary
from seqrnn.errors import UserError
from seqrnn.experiment import Experiment


def find_tasks() -> dict[str, ModuleType]:
  """The modules of this package that build an experiment, by name."""
  names = [module.name for module in pkgutil.iter_modules(__path__)]
  modules = (importlib.import_module(f"{__name__}.{name}") for name in names)
  named = zip(names, modules, strict=True)
  return {name: module for name, module in named if hasattr(module, "build")}


TASKS = find_tasks()


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
  task = TASKS[config.task]
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
