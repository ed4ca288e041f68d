"""Import and export of checkpoints and models."""
