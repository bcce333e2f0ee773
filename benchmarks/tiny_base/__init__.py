"""Rebuilds the embedded base model from nothing; `build.py` is the command."""
