"""Text as other programs write it: what describes a picture in it, and what is meant for the program itself."""
