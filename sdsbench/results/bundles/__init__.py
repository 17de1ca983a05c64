"""Runs to be exchanged: one zip file that tables read as it stands and that names what was changed in it."""
