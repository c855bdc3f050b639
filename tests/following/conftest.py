"""What tests of detection share."""

import os

import pytest


@pytest.fixture
def not_synced(monkeypatch):
  """What nothing but the loss of power shows takes no time."""
  for name in ("fsync", "fdatasync"):
    monkeypatch.setattr(os, name, lambda _: None)
