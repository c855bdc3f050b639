"""The modes, one module each. The first line of each explains the mode."""
