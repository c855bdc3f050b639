"""What a user can ask for: a module a mode."""
