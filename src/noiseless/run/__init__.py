"""Recipes, regimes, the training loop and its record."""
