"""Checks that every method and task must pass, this project's own and those of plugins."""
