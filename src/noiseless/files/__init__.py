"""A run's directory, and everything that is read from or written to disk."""
