"""Importing results of other tools as external records: shown separately, never averaged with our runs."""
