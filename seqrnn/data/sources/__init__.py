"""Sources of corpora: files, named sets, embedded and made by rules."""
