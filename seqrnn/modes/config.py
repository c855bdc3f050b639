"""config: prints the resolved config, as JSON, and its changed fields."""

from pathlib import Path

from seqrnn.config.read import Config, defaults, differences, encoded
from seqrnn.errors import report
from seqrnn.experiment import Build


def run(_build: Build | None, config: Config, workdir: Path):
  """Prints the config on stdout, and what differs on stderr.

  The output is a file for --config. The differences are those from the
  defaults, each as `field: default -> value`.
  """
  print(encoded(config, recorded=False).decode(), end="", flush=True)
  changed = differences(defaults(), config)
  head = f"{workdir}: {len(changed)} fields differ from the defaults"
  for line in (head, *(f"  {line}" for line in changed)):
    report(line)
