"""Files that are written completely or not at all, and the header of a safetensors file."""
