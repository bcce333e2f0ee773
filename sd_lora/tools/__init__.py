"""Tools for adapter files, one verb a file."""
