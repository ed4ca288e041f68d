"""A worker of a test's job: `worker_script` with recipes that evaluate the objective several times a step, or augment.

Arguments: directory of the runs, the value of --data.
"""

import sys
from pathlib import Path

import worker_script
from small_runs import small_recipe

NAMES = ("sharp", "augmented", "wolfe")


def main(directory, data):
    recipes = {
        "sharp": small_recipe(data, "fb-clipped", sam=0.05, agc=0.1),
        "augmented": small_recipe(data, "fb-practice", policy="rand", max_up=2, warmup=0),
        "wolfe": small_recipe(data, "fb-longer", line_search="wolfe", lr=4.0),
    }
    worker_script.recipe = recipes.__getitem__
    worker_script.main(directory, NAMES)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
