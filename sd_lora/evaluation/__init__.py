"""Measures on pictures: how near they are to a style, and how much of the style's distance an adapter closed."""
