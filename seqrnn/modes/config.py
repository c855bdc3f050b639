"""config: prints the resolved config, as JSON, and its changed fields."""

from pathlib import Path

from seqrnn.config import read as config_lib
from seqrnn.config.read import Config
from seqrnn.errors import report
from seqrnn.experiment import Build


def run(_build: Build | None, config: Config, workdir: Path):
  """Prints the config on stdout, and what differs on stderr.

  The output is a file for --config. The differences are those from the
  defaults, each as `field: default -> value`.
  """
  print(config_lib.encoded(config, recorded=False).decode(), end="", flush=True)
  changed = config_lib.differences(config_lib.defaults(), config)
  head = f"{workdir}: {len(changed)} fields differ from the defaults"
  for line in (head, *(f"  {line}" for line in changed)):
    report(line)
