"""Reading: from files to symbols, labels, tags, notes and vectors."""
