"""What each command of the program does with its arguments. Step by step: read, call the rooms below, print."""

from noiseless.commands.bench import bench
from noiseless.commands.compare import compare
from noiseless.commands.data import data
from noiseless.commands.interop import export, import_checkpoint
from noiseless.commands.ladder import recipes, reproduce
from noiseless.commands.landscape import flatness, landscape
from noiseless.commands.models import models
from noiseless.commands.noise import noise, weights
from noiseless.commands.plan import plan
from noiseless.commands.race import race
from noiseless.commands.runs import digest, evaluate, report, verify
from noiseless.commands.sharpness import sharpness
from noiseless.commands.training import resume, train
from noiseless.commands.watch import watch

__all__ = [
    "bench",
    "compare",
    "data",
    "digest",
    "evaluate",
    "export",
    "flatness",
    "import_checkpoint",
    "landscape",
    "models",
    "noise",
    "plan",
    "race",
    "recipes",
    "report",
    "reproduce",
    "resume",
    "sharpness",
    "train",
    "verify",
    "watch",
    "weights",
]
