"""Model families: light facts and lazy methods."""
