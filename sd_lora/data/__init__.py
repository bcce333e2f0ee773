"""Images and captions: from a folder to the batches of a run."""
