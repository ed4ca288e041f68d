"""benchmarks/cifar.py with one small experiment. Arguments: the directory of benchmarks, data, ledger, runs, steps."""

import sys

from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe


def main(benchmarks, data, ledger, runs, steps):
    sys.path.insert(0, benchmarks)
    import cifar
    import cifararms

    recipe = with_flags(Recipe(), data=data, model="linear", block=12, steps=int(steps), augment="none")
    arm = cifararms.Arm("tiny", recipe, {"images": 20}, (0.1,), (5e-4,), seeds=(0,))
    cifar.EXPERIMENTS = cifararms.EXPERIMENTS = (cifararms.Experiment("tiny", (arm,)),)
    cifar.POLL_SECONDS = 0.02  # a signal is passed on before a run of a few seconds can end
    sys.argv[1:] = ["--data-dir", ".", "--ledger", ledger, "--runs", runs]
    cifar.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
