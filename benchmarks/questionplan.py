"""Runs and questions of docs/questions.md, as data: what benchmarks/questions.py executes, in this order."""

from __future__ import annotations

from dataclasses import dataclass

_PLAIN = "--weight-decay 0 --schedule constant --warmup 0 --augment none"
_TANH = f"--model tanhnet:mlp --loss tanhnet:half_squared_error --trust tanhnet {_PLAIN} --momentum 0"
_ADAM = (
    f"--model tanhnet:mlp --loss tanhnet:half_squared_error --trust tanhnet {_PLAIN} --optimizer Adam --keep-every 100"
)
_CIFAR_TANH = "--data cifar10 --pixels 16 --images 1000 --block 250 --model-options width=64,pixels=256"
SPEEDNET = (
    "--data cifar10 --pixels 16 --images 250 --block 50 --model speednet128 --norm group --augment none "
    "--label-smoothing 0.2 --optimizer Muon --momentum 0.6 --nesterov True --weight-decay 0.15 "
    "--optimizer-options inner_lr_ratio=0.1,last_lr_ratio=2 --warmup 0"
)
"""the full batch of experiment A of docs/cifar.md with group norm, on few images of half the side"""
RUNS: dict[str, str] = {
    "digits-gd-0.2": f"fb {_TANH} --block 128 --lr 0.2 --steps 800 --keep-every 100",
    "digits-gd-0.1": f"fb {_TANH} --block 128 --lr 0.1 --steps 800 --keep-every 100",
    "digits-gd-0.15": f"fb {_TANH} --block 128 --lr 0.15 --steps 800 --keep-every 100",
    "digits-adam-0.003": f"fb {_ADAM} --block 128 --lr 0.003 --steps 800",
    "digits-adam-0.001": f"fb {_ADAM} --block 128 --lr 0.001 --steps 800",
    "digits-sgd-resnet": "sgd --steps 20 --keep-every 1",
    "digits-sgd-tanh": "sgd --model tanhnet:mlp --trust tanhnet --steps 20 --keep-every 1",
    "cifar-gd-0.07": f"fb {_CIFAR_TANH} {_TANH} --lr 0.07 --steps 600 --keep-every 100",
    "cifar-gd-0.035": f"fb {_CIFAR_TANH} {_TANH} --lr 0.035 --steps 600 --keep-every 100",
    "cifar-speednet": f"fb {SPEEDNET} --lr 0.2 --steps 30 --keep-every 10",
}
"""run -> arguments of `noiseless train`"""


@dataclass(frozen=True)
class Question:
    """One command, asked of one run."""

    name: str
    """subject/question"""
    command: str
    """arguments of `noiseless`"""
    runs: tuple[str, ...] = ()
    """runs that it needs; the answer is with the first"""
    folder: str | None = None
    """where the answer is, for a command that makes runs of its own"""
    data: bool = False
    """whether the command needs the directory of CIFAR-10"""


def _of(run: str, name: str, command: str, rest: str = "") -> Question:
    at = run.split("@")[0]
    trust = " --trust tanhnet" if "tanhnet" in RUNS[at] else ""
    return Question(name, f"{command} {run} {rest}".strip() + trust, (at,))


def _state(subject: str, run: str, batches: str, small: bool) -> list[Question]:
    """The questions that a single state answers."""
    several = "--largest 2 --tolerance 0.01" if small else "--largest 3"
    few = "--most 10 --tolerance 0" if small else ""
    return [
        _of(run, f"{subject}/noise", "noise", "--block 10" if small else "--block 16"),
        _of(run, f"{subject}/landscape", "landscape", "--points 11"),
        _of(run, f"{subject}/flatness", "flatness", few),
        _of(run, f"{subject}/sharpness", "sharpness", several),
        _of(run, f"{subject}/ggn", "sharpness", f"{several} --curvature ggn"),
        _of(run, f"{subject}/decompose", "decompose", batches),
        _of(run, f"{subject}/layers", "sharpness", "--of layer --trace 10 --tolerance 0.01"),
    ]


SUBJECTS = ("digits", "cifar", "speednet")
NETWORKS = ("resnet", "tanh")
"""networks of the forks"""
_FORKS = [
    _of(f"digits-sgd-{network}@{step}", f"digits/fork-{network}-{step}-{seed}", "fork", f"--change seed={seed}")
    for seed in (1, 2)
    for network in NETWORKS
    for step in (0, 8, 2, 1, 4)
]
QUESTIONS: list[Question] = [
    _of("digits-gd-0.2", "digits/edge-gd-0.2", "edge", "--every 10 --batch 0"),
    _of("digits-gd-0.1", "digits/edge-gd-0.1", "edge", "--every 10 --batch 0"),
    _of("digits-gd-0.15", "digits/edge-gd-0.15", "edge", "--every 10 --batch 0"),
    _of("digits-adam-0.003", "digits/edge-adam-0.003", "edge", "--every 10 --batch 0 --pairs 1"),
    _FORKS[0],
    *_state("digits", "digits-gd-0.2", "--batches 128 32 --orders 8", small=False),
    _of("digits-gd-0.15@400", "digits/sharpen", "sharpen", "--steps 10"),
    _of("digits-gd-0.15@200", "digits/flow", "flow", "--steps 120 --flows central stable"),
    Question(
        "digits/dial",
        "dial fb --steps 16 --images 128 --norm-block 8 --batches 32 --seeds 1 --draws 4 --copies 2 --jobs 1 "
        "--run-dir digits-dial",
        (),
        "digits-dial",
    ),
    *_FORKS[1:],
    _of("digits-adam-0.001", "digits/edge-adam-0.001", "edge", "--every 10 --batch 0 --pairs 1"),
    _of("cifar-gd-0.07@500", "cifar/edge-gd-0.07", "edge", "--every 10 --pairs 1 --batch 0"),
    *_state("cifar", "cifar-gd-0.07", "--batches 250 --orders 3 --no-replacement", small=False),
    _of("cifar-gd-0.07@500", "cifar/sharpen", "sharpen", "--steps 2"),
    _of("cifar-gd-0.07@500", "cifar/flow", "flow", "--steps 4 --flows central stable"),
    *_state("speednet", "cifar-speednet", "--batches 50 --orders 3 --no-replacement", small=True)[:-1],
    _of("cifar-speednet@20", "speednet/fork", "fork", "--flip-bit head.weight[0,0]:0 --points 5"),
    _of("cifar-speednet@20", "speednet/edge-muon", "edge", "--every 5 --pairs 1 --batch 0"),
    Question(
        "speednet/dial",
        f"dial fb {SPEEDNET} --lr 0.2 --steps 20 --batches 50 --seeds 1 --draws 4 --copies 2 --jobs 1 "
        "--run-dir speednet-dial",
        (),
        "speednet-dial",
        data=True,
    ),
    _of("cifar-speednet", "speednet/layers", "sharpness", "--of layer --trace 6 --tolerance 0.05 --most 20"),
    _of("cifar-gd-0.035", "cifar/edge-gd-0.035", "edge", "--every 12 --pairs 1 --batch 0"),
]
"""in the order in which they are asked"""
