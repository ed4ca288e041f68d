"""benchmarks/cifar.py with one small experiment.

Arguments: the directory of benchmarks, data, ledger, runs, steps, and `copies` if its runs are to be copies of the
prepared process, which begin seconds sooner than the interpreters that it starts.
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from programs import Copy

from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe


def copy(words, *, stdout, env, **rest):
    """Starts what `subprocess.Popen` would: `python -m MODULE` with arguments."""
    folder = Path(f"{stdout.name}-of-copy")
    folder.mkdir(exist_ok=True)
    return Copy(folder, *words[3:], program=words[2], **env)


def main(benchmarks, data, ledger, runs, steps, start="interpreters"):
    sys.path.insert(0, benchmarks)
    import cifar
    import cifararms

    recipe = with_flags(Recipe(), data=data, model="linear", block=12, steps=int(steps), augment="none")
    arm = cifararms.Arm("tiny", recipe, {"images": 20}, (0.1,), (5e-4,), seeds=(0,))
    cifar.EXPERIMENTS = cifararms.EXPERIMENTS = (cifararms.Experiment("tiny", (arm,)),)
    if start == "copies":
        cifar.subprocess = SimpleNamespace(Popen=copy, DEVNULL=subprocess.DEVNULL)
    cifar.POLL_SECONDS = 0.02  # a signal is passed on before a run of a few seconds can end
    sys.argv[1:] = ["--data-dir", ".", "--ledger", ledger, "--runs", runs]
    cifar.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
