"""run.py, with a signal sent to itself at one exact place.

FAULT="KILL steps 17" in the environment: SIGKILL, as the 17th step of this
life ends, however fast or slow the machine is. FAULT_FILE names a file; that
it exists proves that the signal was sent.
FILL instead of a signal takes the room of the disk where FILLER will be, but
for LEAVE bytes. HEARTBEAT=10: so many seconds a peer may give
no sign of life.

Places, of which the second word of FAULT names one:

  restore     a checkpoint is about to be looked for
  replace-X   the file X is written beside its place and not yet in it
  steps       a step was started
  evaluation  a batch of an evaluation is about to be read
  header      metrics.csv is there and empty
  title       half of the first line of metrics.csv is on disk
  row         half of a row of metrics.csv is on disk
  rows        metrics.csv has its row, timing.csv does not
  timing      and half of a row of timing.csv is on disk
  save        both have it, the checkpoint is not begun
  room        the one before is in its place, nothing is written
  orbax       Orbax has written the arrays, without checksums
  sums        half of the checksums are on disk
  rename      the checkpoint is in its place, older ones are still there
  remove      half of an older checkpoint is gone
"""

import os
import shutil
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
_seen: Counter[str] = Counter()


def here(place: str) -> bool:
  """Whether this is the place, and the time has come."""
  _, wanted, count = os.environ["FAULT"].split()
  _seen[place] += 1
  return place == wanted and _seen[place] == int(count)


def strike():
  """Tells that it comes to this, and does it."""
  name, _, _ = os.environ["FAULT"].split()
  Path(os.environ["FAULT_FILE"]).touch()
  if name == "FILL":
    filler = Path(os.environ["FILLER"])
    free = shutil.disk_usage(filler.parent).free
    with suppress(OSError):  # A checkpoint in the making took it just now.
      filler.write_bytes(bytes(max(free - int(os.environ["LEAVE"]), 0)))
  else:
    os.kill(os.getpid(), signal.Signals[f"SIG{name}"])


def at(place: str):
  if here(place):
    strike()


def wrap(module, name: str, before=None, after=None):
  """Calls `before` with the arguments first, or `after` with them last."""
  original = getattr(module, name)

  def wrapped(*args, **kwargs):
    if before is not None:
      before(*args)
    result = original(*args, **kwargs)
    if after is not None:
      after(*args)
    return result

  setattr(module, name, wrapped)


def arm(*_):
  """Puts the places into the product, once its modules may be imported."""
  from orbax.checkpoint._src.path.deleter import StandardCheckpointDeleter

  from seqrnn.runtime import files
  from seqrnn.training import history, setup, train
  from seqrnn.training.checkpoint_writer import Checkpoints
  from seqrnn.training.progress import Progress

  wrap(setup, "restore", before=lambda *_: at("restore"))
  wrap(os, "replace", before=lambda _, new: at(f"replace-{Path(new).name}"))
  wrap(Progress, "step", after=lambda *_: at("steps"))
  examiner = train.examiner

  def watched(*args):
    examine = examiner(*args)

    def run(params, batches, stop):
      def asked():
        at("evaluation")
        return stop()

      return examine(params, batches, asked)

    return run

  train.examiner = watched
  add_row = history.add_row

  def torn(path, row):
    if path.name == "timing.csv":
      at("rows")
    before = path.stat().st_size if path.exists() else 0
    add_row(path, row)
    after = path.stat().st_size
    for place, name, size in (
      ("header", "metrics.csv", 0),
      ("title", "metrics.csv", 10),
      ("row", "metrics.csv", (before + after) // 2),
      ("timing", "timing.csv", (before + after) // 2),
    ):
      first = before == 0 or place in ("row", "timing")
      if path.name == name and first and here(place):
        os.truncate(path, size)
        strike()

  history.add_row = torn
  wrap(train, "save", before=lambda *_: at("save"))

  save = Checkpoints.save

  def saving(checkpoints, *args):
    checkpoints.wait()
    at("room")
    save(checkpoints, *args)

  Checkpoints.save = saving
  wrap(Checkpoints, "_commit", before=lambda *_: at("orbax"))

  def listed(folder, *_):
    path = folder / files.SUMS
    if "orbax" in folder.name and here("sums"):
      os.truncate(path, path.stat().st_size // 2)
      strike()

  wrap(files, "write_sums", after=listed)

  def removing(deleter, step):
    if here("remove"):
      folder = Path(deleter._directory) / str(step)
      paths = sorted(p for p in folder.rglob("*") if p.is_file())
      for path in paths[::2]:
        path.unlink()
      strike()

  wrap(StandardCheckpointDeleter, "delete", before=removing)
  wrap(
    StandardCheckpointDeleter, "delete_steps", before=lambda *_: at("rename")
  )


def compile_as_tests(*_):
  """Has steps compiled at the level of the tests' process."""
  from seqrnn.training import step

  step._compiler_options = lambda _: {}


if __name__ == "__main__":
  sys.path[0] = str(ROOT)
  from seqrnn import cli

  if "SEQRNN_TESTS_OPTIMIZED" not in os.environ:
    wrap(cli.devices, "start", after=compile_as_tests)
  if "HEARTBEAT" in os.environ:
    cli.processes._HEARTBEAT_SECONDS = int(os.environ["HEARTBEAT"])
  if "FAULT" in os.environ:
    wrap(cli.devices, "start", after=arm)
  cli.launch.prepare()
  cli.launch.end(cli.main(sys.argv))
