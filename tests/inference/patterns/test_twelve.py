"""Twelve patterns, as benchmarks/patterns.py draws them: some of each."""

import pytest

from benchmarks import patterns

pytest.importorskip("jsonschema")


def test_all_texts_match():
  run = patterns.untrained(size=4)
  drawn = [*patterns.draw(run, samples=25, length=90)]
  assert len(drawn) == 12
  for one in drawn:
    assert not one.wrong, (one.name, one.wrong[0])
    assert len({*one.texts}) > 15, one.name
