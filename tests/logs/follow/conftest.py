"""What tests of a follower share."""

import pytest

from seqrnn.logs.follow import novel


@pytest.fixture(autouse=True)
def no_new_event_is_common(monkeypatch):
  """Random sessions have the same unknown event again and again."""
  monkeypatch.setattr(novel, "MANY", 10**9)
