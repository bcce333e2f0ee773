"""Single-file checkpoints: what they are, their keys, and the models built from them."""
