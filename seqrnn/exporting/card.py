"""The model card beside an exported model, in Markdown."""

import json
from pathlib import Path

import jax
import jinja2

from seqrnn import catalogue
from seqrnn.config import read as config_lib
from seqrnn.config.field import nested
from seqrnn.config.read import TRAINING, Config
from seqrnn.data.sources.corpora import SPLITS
from seqrnn.experiment import Experiment, shapes
from seqrnn.reporting import gathering
from seqrnn.training import transfer

_PYTHON = "the licence of Python (PSF)"
# data.source -> what it is, and its terms.
_BUILT_IN = {
  "stdlib": ("the sources of the Python standard library", _PYTHON),
  "opcodes": ("opcodes of the Python standard library", _PYTHON),
  "topics": ("the topics of Python's help", _PYTHON),
  "packages": ("modules of installed packages", "those of each package"),
  "names": ("surnames that the package faker draws", "MIT"),
  "chords": ("synthetic four-part music, made by rules", "none"),
}
_OTHER = "files of the user", "not known to this program, add them"


def card(experiment: Experiment, config: Config, workdir: Path) -> str:
  """The text of the card.

  Args:
    experiment: the task.
    config: of the run; `checkpoint.step` is the step of the checkpoint.
    workdir: of the run.
  """
  public = catalogue.sets().get(config.data.source)
  about, terms = _BUILT_IN.get(config.data.source, _OTHER)
  cite = ""
  if public is not None:
    about, terms, cite = public.what, public.terms, public.cite
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
  )
  _, figures = gathering.best_evaluation(workdir)
  same = figures.get("step") == config.checkpoint.step
  return environment.get_template("card.md.jinja").render(
    name=workdir.absolute().name,
    config=config,
    count=sum(leaf.size for leaf in jax.tree.leaves(shapes(experiment))),
    about=about,
    terms=terms,
    cite=cite,
    start=transfer.read_record(workdir),
    figures={
      name: value
      for name, value in figures.items()
      if same and name.startswith(SPLITS)
    },
    settings=config_lib.differences(config_lib.defaults(), config, TRAINING),
  )


def encoded_config(config: Config) -> bytes:
  """The fields of the training, as a config in JSON."""
  fields = {
    name: value
    for name, value in config_lib.flat(config).items()
    if name.startswith((*TRAINING, "checkpoint.step"))
  }
  text = json.dumps(nested(fields), indent=2) + "\n"
  return text.encode()
