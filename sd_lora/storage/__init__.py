"""Files that are written whole or not at all, and the header of a safetensors file."""
