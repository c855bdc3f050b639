"""The settings: fields, configs, flags, and the command line's words."""
