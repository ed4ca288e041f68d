"""From a recipe to a trained model: the objects of a run, its regimes, the training loop and its record."""
