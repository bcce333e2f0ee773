"""Training: from a config to a run folder with an adapter in it."""
