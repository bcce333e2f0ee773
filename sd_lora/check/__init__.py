"""The dataset doctor: what is wrong with a folder of images, and what a run on it will be."""
