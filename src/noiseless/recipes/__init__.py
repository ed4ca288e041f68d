"""What a run is: the recipe, its parts and checks, the paper's ladder and tables."""
