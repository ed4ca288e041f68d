"""Studies of many runs: tables of the paper, races of optimizers, comparisons over seeds and test images."""
