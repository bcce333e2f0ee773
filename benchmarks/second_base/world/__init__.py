"""The world of the second edition: words, scenes, renderer and judge."""
