"""The parts of --mode=detect."""
