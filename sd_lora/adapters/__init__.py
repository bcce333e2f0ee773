"""Adapters: the object, its file and keys, and what programs make of it."""
