"""The layouts of folders that people bring."""
