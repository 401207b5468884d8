"""Merge fine-tuned language models into one model that keeps each expert's skill and stays safe."""

__version__ = "0.1.0"
