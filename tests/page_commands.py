"""The command lines of README and docs, and how each runs in a test: what is replaced, and what does not run.

A line runs on the reader's files that `prepare` writes, for 3 steps. In `make test` the model is `linear` where the
line does not name one, and there are no workers. `make soak` keeps models, workers and grids, and trains small studies.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import published_files
from safetensors.torch import save_file
from small_runs import arrays, call, small_recipe
from small_runs import run as train

from noiseless import models

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))} | {
    "README": ROOT / "README.md"
}
FENCE = re.compile(r"^(<!-- (?:not run|run smaller): [^\n]+ -->\n)?```(\w*)\n(.*?)^```", re.M | re.S)
ELSEWHERE = {
    "make": "test_readme.py: every target exists; `make` runs these tests",
    "pip": "installed.py installs the package, in `make dist`",
    "git": "test_cifar_runs.py runs benchmarks/cifar.py with one small experiment",
    "nice": "as git",
    ".venv/bin/python benchmarks/gallery.py": "minutes of training; report/test_contents.py draws the same figures",
    ".venv/bin/python benchmarks/questions.py": "needs CIFAR-10; test_questions_page.py asks a small run",
    ".venv/bin/python benchmarks/questionpage.py": "test_questions_page.py compares the page with the file of results",
    "sbatch": "needs Slurm; clusters/on_slurm.py runs the script there",
    "torchrun --nproc-per-node 2 examples/fsdp.py": "distributed/test_example.py runs it on one and two ranks",
    "torchrun --nnodes": "needs two machines; run/test_nodes.py has a job of two nodes on this one",
    "noiseless data fetch cifar10": "downloads 170 MB; data/test_download.py downloads from a server on loopback",
    "noiseless data pack imagenet": "needs ImageNet; data/test_packed.py packs a folder",
    "noiseless data info imagenet": "as `data pack imagenet`",
    "noiseless train fb --data imagenet": "as `data pack imagenet`",
    "noiseless train fb-practice --tensorboard": "test_cli_track.py, in a process of its own",
    "noiseless train fb-practice --wandb": "as `--tensorboard`",
    "noiseless reproduce --tensorboard": "as `--tensorboard`",
}
"""which test stands for a line that does not run, by the line's beginning"""
STUDIES = {
    "noiseless reproduce --quick": "--rows sgd fb",
    "noiseless reproduce --seeds 5": "--seeds 2 --rows fb",
    "noiseless reproduce --rows": "--seeds 2",
    "noiseless race --data digits --contenders": "--budgets 2",
    "noiseless race --data digits": "--contenders sgd,fb --budgets 2,4 --seeds 2 --rates 2 --tuning-seeds 1",
}
"""lines that train many runs, by their beginning, and what makes them small; in `make soak` only"""
LONG = dict.fromkeys(
    ("noiseless verify", "noiseless bench", "noiseless report runs/race-digits",
     "noiseless train fb-clipped --model timm:vit_tiny_patch16_224",
     "noiseless train fb-practice --data folder:photos", "noiseless plan fb-regularized --form paper",
     "noiseless train fb-clipped --model resnet20"), "",
)  # fmt: skip
"""beginnings of the lines that start workers or need large models; in `make soak` only"""
READERS = {
    "RUN [RUN ...] --against RUN [RUN ...]": "run --against ladder/sgd-1",
    "[--margin 0.5] [--confidence 0.95] [--label LABEL ...] [--json FILE]":
        "--margin 0.5 --confidence 0.95 --label A B --json FILE",
    "RUN [RUN ...]": "run other-run", "RUN": "run", "FILE.npz": "small.npz", "PATH": "photos",
    "/local/run": "local/run", "/bucket/run": "bucket/run", "package.module:": "reader:", "mymodels:": "reader:",
    "my_models.small:": "reader:", "my_models.small": "reader", "--data cifar10": "--data npz:cifar-like.npz",
    "npz:cifar10.npz": "npz:cifar-like.npz", "layers.2.*": "*bias",
}  # fmt: skip
"""what stands in a line for files that readers have, and what they are in the test"""
CODE = """
import numpy as np
from torch import nn

def net(channels, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, classes))

small_net = net

def function():
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (count, 8, 8), dtype=np.uint8) for count in (40, 20)]
    return {"x_train": images[0], "y_train": np.arange(40) % 10, "x_test": images[1], "y_test": np.arange(20) % 10}
"""


def lines(page: str, marked: bool = False) -> list[str]:
    """The command lines in the blocks of shell of a page, in order, without comments, prompts and printed output.

    Args:
        page: its name below docs, or README.
        marked: only those of blocks that are marked `run smaller`.
    """
    commands = []
    for mark, language, code in FENCE.findall(PAGES[page].read_text()):
        if language not in ("sh", "console") or mark.startswith("<!-- not run") or (marked and not mark):
            continue
        for line in re.sub(r"\\\n\s*", " ", code).splitlines():
            if language == "console" and not line.startswith("$ "):
                continue
            text = re.sub(r"(^|\s)#.*", "", line.removeprefix("$ "))
            commands += [part.strip() for part in text.split(";") if part.strip()]
    return commands


def beginning(line: str, table: dict[str, str]) -> str | None:
    """The longest key of a table with which a line begins."""
    text = re.sub(r"^(\w+=\S+ )+", "", line)  # variables of the environment
    return max((key for key in table if f"{text} ".startswith(f"{key} ")), key=len, default=None)


def smaller(line: str, soak: bool) -> list[str]:
    """The words after the program's name that a test runs."""
    for name, value in READERS.items():
        line = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])" if name.isupper() else re.escape(name), value, line)
    study = beginning(line, STUDIES)
    if study:
        line += f" {STUDIES[study]}"
    line = re.sub(r"@(?!0\b)\d+", "@2", line)
    line = re.sub(r"(--[a-z]+-every) \d+", r"\1 1", line)
    words = shlex.split(line)[1:]
    trains = words[0] in ("train", "import") and "--help" not in words
    if trains:
        words += ["--steps", "3", "--keep-every", "1"]
        words += ["--block", "8"] if "--data" in words and "--block" not in words else []
    if not soak:
        if trains and words[0] == "train" and not {"--model", "--stem"} & {*words}:
            words += ["--model", "linear"]
        line = re.sub(
            r"--points \d+(x\d+)?", lambda size: "--points 3x3" if size[1] else "--points 3", shlex.join(words)
        )
        line = line.replace("--model resnet18", "--model resnet8")
        line = re.sub(r"--(workers|largest|smallest) \d+", r"--\1 1", line)
        words = shlex.split(line)
    return [name for word in words for name in (("*" in word and sorted(map(str, Path().glob(word)))) or [word])]


def prepare(place: Path) -> None:
    """Writes what readers have: data as arrays and photos, checkpoints, code, and finished runs."""
    from PIL import Image

    np.savez(place / "small.npz", **arrays())
    np.savez(place / "other.npz", **arrays(1))
    draw = np.random.default_rng(0)
    colours = {f"x_{part}": draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8) for part, count in PARTS.items()}
    labels = {f"y_{part}": np.arange(count) % 10 for part, count in PARTS.items()}
    np.savez(place / "cifar-like.npz", **colours, **labels)
    for part, kind, number in ((p, k, n) for p in ("train", "test") for k in ("cats", "dogs") for n in range(4)):
        path = place / "photos" / part / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(path)
    for name in ("cat.png", "dog.jpg"):
        Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(place / name)
    (place / "reader.py").write_text(CODE)
    for name, (recipe, seed) in RUNS.items():
        made = small_recipe(f"npz:{place / 'small.npz'}", recipe, model="linear", seed=seed)
        train(place / name, made, keep_every=1)


RUNS = {
    "run": ("fb", 0), "other-run": ("fb", 1), "digits-run": ("fb-clipped", 0), "runs/fb": ("fb", 0),
    "runs/fb-1": ("fb", 1), "runs/fb-2": ("fb", 2), "ladder/sgd-1": ("sgd", 1),
    "ladder/fb-practice-1": ("fb-practice", 1), "ladder/fb-longer-1": ("fb-longer", 1),
}  # fmt: skip
"""finished runs that pages take for granted: recipe and seed by name"""
PARTS = {"train": 200, "test": 40}
"""images of the colour set"""


def resnet(place: Path, name: str) -> None:
    """Writes a checkpoint of the paper's published code, and parameters for two classes, of a model by name."""
    model = models.build(name, 3, 10)
    published_files.write(place / "resnet18.pth", published_files.parts(model=model, channels=3, classes=10))
    save_file(models.build(name, 3, 2).state_dict(), place / "resnet18.safetensors")


def failures(page: str, soak: bool, marked: bool = False) -> list[str]:
    """Runs the lines of a page in the working directory; returns what went wrong, by line."""
    failed = []
    for line in lines(page, marked):
        if beginning(line, ELSEWHERE) or (beginning(line, STUDIES | LONG) and not soak):
            continue
        if line.startswith("torchrun"):
            continue  # test_page_commands.py has a test for them
        words = smaller(line, soak)
        if "--run-dir" in words and words[0] != "reproduce" and "--again" not in words:
            shutil.rmtree(words[words.index("--run-dir") + 1], ignore_errors=True)
        with contextlib.redirect_stdout(io.StringIO()):
            answer = call(*words)
        if answer.code != (5 if words[0] == "diff" else 0):  # the reader's two runs differ
            failed.append(f"{line}\n  as {shlex.join(words)}\n  {answer.code}: {(answer.err or answer.out)[-600:]}")
    return failed
