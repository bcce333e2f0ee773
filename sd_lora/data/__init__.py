"""Images and captions: from a folder to the batches of a run."""

from sd_lora.data.encoded import Batch, EncodedSet, Encoders, Framing, encode_examples, generator_for
from sd_lora.data.folder import Example, ignored_files, read_folder, square, triggered, warnings_for

__all__ = [
    "Batch",
    "EncodedSet",
    "Encoders",
    "Example",
    "Framing",
    "encode_examples",
    "generator_for",
    "ignored_files",
    "read_folder",
    "square",
    "triggered",
    "warnings_for",
]
