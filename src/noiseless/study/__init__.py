"""Questions to many runs at once: how recipes compare over seeds and test images."""
