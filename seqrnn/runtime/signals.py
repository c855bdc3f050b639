"""Collects signals, so that a run can save before it ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Signals(list[int]):
  """The numbers of the signals received so far.

  Attributes:
    at_once: whether the next signal raises KeyboardInterrupt at once.
  """

  at_once = False


def reinstall():
  """Installs Python's handlers again, where C code has replaced them.

  libtpu handles SIGTERM from the start of its backend on, and Python does not
  know of it: SIGTERM would end a run that wants to save.
  """
  if threading.current_thread() is threading.main_thread():
    for number in (signal.SIGINT, signal.SIGTERM):
      handler = signal.getsignal(number)
      if handler is not None:  # None: set before Python started.
        signal.signal(number, handler)


@contextmanager
def catch_signals() -> Iterator[Signals]:
  """Collects SIGINT and SIGTERM instead of ending the process.

  A second SIGINT raises KeyboardInterrupt. Contexts may be nested: the inner
  one begins with the signals that the outer one has collected. Python delivers
  signals to the main thread only, so the list stays empty in any other thread.
  """
  received = Signals()
  if threading.current_thread() is not threading.main_thread():
    yield received
    return

  def handler(number, _):
    again = bool(received) and number == signal.SIGINT
    received.append(number)
    if again or received.at_once:
      raise KeyboardInterrupt

  handler.received = received
  received += getattr(signal.getsignal(signal.SIGTERM), "received", ())
  numbers = signal.SIGINT, signal.SIGTERM
  before = {number: signal.signal(number, handler) for number in numbers}
  try:
    yield received
  finally:
    for number, previous in before.items():
      signal.signal(number, previous)
