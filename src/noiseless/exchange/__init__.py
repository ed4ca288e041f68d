"""Checkpoints and models in and out."""
