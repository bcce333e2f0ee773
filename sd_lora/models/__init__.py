"""Base models: where they come from, how they are opened, and their families."""
