"""The preview service: what page, command line and programs draw with."""
