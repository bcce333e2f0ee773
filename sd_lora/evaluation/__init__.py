"""Measures on pictures: how near they are to a style, and how much of the style's distance an adapter closed."""

from sd_lora.evaluation.style_distance import share_closed, style_distance

__all__ = ["share_closed", "style_distance"]
