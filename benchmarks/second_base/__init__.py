"""The second edition of the embedded base while it is trained: its world, its build and snapshots of its weights.

It takes the place of `sd_lora/tinybase` and `benchmarks/tiny_base` once its figures hold (docs/decisions/0016).
"""
