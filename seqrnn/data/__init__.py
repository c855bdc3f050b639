"""From files to batches of symbols: corpora, splits, windows, streams."""
