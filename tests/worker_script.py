"""Worker of a test's job: trains short runs of several recipes and writes their digests and rows.

Arguments: the directory of the runs, names of recipes, and NAME=VALUE for the options of `main`.
"""

import json
import sys
import time
from pathlib import Path

from noiseless import data
from noiseless.files import checkpoint
from noiseless.recipes import ladder
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.run import session, team
from noiseless.run.train import Progress, train

STEPS = 3


def recipe(name):
    """A row of the ladder on 128 or 80 images in blocks of 8; two with all of resnet8, the others with its stem."""
    images = 128 if name == "fb-clipped" else 80
    model = "resnet8" if name in ("fb-clipped", "tuned") else "resnet2"
    small = {"steps": STEPS, "images": images, "block": 8, "model": model}
    if name == "parts":
        return with_flags(ladder.row("aggregated"), name=name, parts=2, **small)
    if name == "tuned":
        tuned = {"freeze": ("stem", "layers.0"), "lr_factors": "fc=1,*=0.1", "decay_biases": False}
        return with_flags(ladder.row("fb-clipped"), name=name, warmup=0, **tuned, **small)
    if name != "lbfgs":
        return with_flags(ladder.row(name), warmup=0, **small)
    row = with_flags(ladder.row("fb"), optimizer="LBFGS", lr=1.0, momentum=None, nesterov=None, **small)
    options = "max_iter=2,line_search_fn=strong_wolfe"
    return with_flags(row, name=name, schedule="constant", weight_decay=None, warmup=0, optimizer_options=options)


def main(directory, names, slow=0.0, chunk_of_last=None, spoil=0.0):
    workers = team.join(lambda: False)
    if slow:
        take = data.Images.take

        def slowly(self, index):
            if workers.rank == workers.count - 1:
                time.sleep(slow)
            return take(self, index)

        data.Images.take = slowly
    for name in names:
        last = chunk_of_last is not None and workers.rank == workers.count - 1
        settings = Settings(threads=1, chunk=int(chunk_of_last) if last else 2, evaluate_every=1, check_every=1)
        with session.new(Config(recipe(name), settings), directory / name, [], workers) as running:
            start = time.perf_counter()
            theta = running.experiment.space.theta

            def spoiled(row, theta=theta):  # as a machine that computes wrongly would
                if spoil and row["step"] == 1 and workers.rank == workers.count - 1:
                    theta[0] += spoil

            train(running.experiment, running.directory, Progress(on_row=spoiled))
            if workers.rank == 0:
                rows = [{k: v for k, v in row.items() if k != "seconds"} for row in running.directory.rows()]
                result = {"digest": checkpoint.digest(running.directory.state()), "rows": rows}
                result["seconds"] = time.perf_counter() - start
                (directory / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    options = dict(word.split("=") for word in sys.argv[2:] if "=" in word)
    recipes = [word for word in sys.argv[2:] if "=" not in word]
    main(Path(sys.argv[1]), recipes, **{key: float(value) for key, value in options.items()})
