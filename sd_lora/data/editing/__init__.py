"""Editing captions: the files they are written to."""
