"""The experiments of docs/cifar.md as data: arms, their pilots, and how a pilot chooses an arm's rate and decay.

An arm is a recipe that lacks its learning rate and weight decay. Its pilot tries them with one seed on a small part of
the training images and evaluates on 5,000 others; its runs then use the test images, once each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe

SEEDS = (0, 1, 2)
"""of the runs"""
PILOT_SEED = 1000
"""of the pilots; no run has it"""
HELD_OUT = 0.1
"""share of the 50,000 training images on which pilots are evaluated"""


@dataclass(frozen=True)
class Run:
    """One training run: a pilot's trial, or a run whose model is asked for the test images."""

    name: str
    """of its file in the ledger"""
    arm: str
    recipe: Recipe
    trial: bool


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    recipe: Recipe
    """all but rate, decay and seed"""
    pilot: Mapping[str, int]
    """fields that the pilot's recipe replaces: images, and steps where the number of updates is to stay"""
    rates: tuple[float, ...]
    """learning rates of the first trials, all with the decay `decays[0]`"""
    decays: tuple[float, ...]
    """weight decays: the first, and those that are tried with the best rate"""
    like: str | None = None
    """arm whose pilot chooses for this one, too; None: its own"""
    seeds: tuple[int, ...] = SEEDS

    def trials(self, results: Mapping[str, float]) -> list[Run]:
        """The trials that can be named by now: those of rates, and once these are known, those of decays.

        Args:
            results: accuracy by run name.

        Returns:
            The trials, finished ones included.
        """
        first = [self._trial(rate, self.decays[0]) for rate in self.rates]
        if any(run.name not in results for run in first):
            return first
        rate = max(self.rates, key=lambda r: results[self._trial(r, self.decays[0]).name])
        return first + [self._trial(rate, decay) for decay in self.decays[1:]]

    def chosen(self, results: Mapping[str, float]) -> tuple[float, float] | None:
        """Rate and decay of the best trial; None until all are known.

        Args:
            results: accuracy by run name.

        Returns:
            Both; of equal accuracies the trial that came first.
        """
        trials = self.trials(results)
        if len(trials) < self.count or any(run.name not in results for run in trials):
            return None
        best = max(trials, key=lambda run: results[run.name])
        assert best.recipe.optimizer.weight_decay is not None
        return best.recipe.optimizer.lr, best.recipe.optimizer.weight_decay

    @property
    def count(self) -> int:
        """Number of trials."""
        return len(self.rates) + len(self.decays) - 1

    def runs(self, rate: float, decay: float) -> list[Run]:
        """The runs with a chosen rate and decay, one a seed."""
        return [
            Run(
                f"{self.name}-seed{seed}",
                self.name,
                with_flags(self.recipe, name=self.name, lr=rate, weight_decay=decay, seed=seed),
                trial=False,
            )
            for seed in self.seeds
        ]

    def _trial(self, rate: float, decay: float) -> Run:
        name = f"{self.name}-trial-lr{rate:g}-wd{decay:g}"
        recipe = with_flags(self.recipe, name=name, lr=rate, weight_decay=decay, seed=PILOT_SEED, validation=HELD_OUT)
        return Run(
            name,
            self.name,
            with_flags(recipe, images=self.pilot.get("images"), steps=self.pilot.get("steps", recipe.schedule.steps)),
            trial=True,
        )


@dataclass(frozen=True)
class Experiment:
    """Arms that are compared with each other."""

    name: str
    arms: tuple[Arm, ...]

    def ready(self, results: Mapping[str, float]) -> list[Run]:
        """Runs that can be started by now and have no result: all trials first.

        Args:
            results: accuracy by run name.

        Returns:
            The runs, in order.
        """
        by_name = {arm.name: arm for arm in self.arms}
        trials = [run for arm in self.arms if arm.like is None for run in arm.trials(results)]
        left = [run for run in trials if run.name not in results]
        if left:
            return left
        runs: list[tuple[bool, int, Run]] = []
        for arm in self.arms:
            chosen = by_name[arm.like or arm.name].chosen(results)
            if chosen is not None:
                runs += [(arm.like is not None, run.recipe.seed, run) for run in arm.runs(*chosen)]
        # all arms with a seed before the next seed: what is cut short is still a comparison; further arms come last
        ordered = sorted(runs, key=lambda entry: entry[:2])
        return [run for *_, run in ordered if run.name not in results]


MUON = with_flags(
    Recipe(), data="cifar10", model="speednet128", regime="full-batch", norm_block=100, shuffle=False, augment="none",
    label_smoothing=0.2, optimizer="Muon", momentum=0.6, nesterov=True,
    optimizer_options="inner_lr_ratio=0.1,last_lr_ratio=2", schedule="cosine", rate_by="update",
)  # fmt: skip
"""what the arms of A, B and D have in common"""


def _by_sgd(recipe: Recipe) -> Recipe:
    """A recipe with SGD in Muon's place."""
    return with_flags(recipe, optimizer="SGD", momentum=0.9, optimizer_options="")


def noise_at_equal_updates(prefix: str, data: str) -> Experiment:
    """A: mini-batches of 400 against the full batch, 200 updates each, 10,000 images without augmentation."""
    full = with_flags(MUON, data=data, images=10_000, block=400, steps=200)
    mini = with_flags(full, regime="stochastic", shuffle=True, steps=8)
    few = {"images": 1_600}
    same_updates = {"images": 1_600, "steps": 50}  # 4 updates a pass instead of 25
    return Experiment(
        prefix,
        tuple(
            Arm(f"{prefix}-{name}", recipe, pilot, (0.4, 0.2, 0.8), (0.15, 0.05, 0.45))
            for name, recipe, pilot in (
                ("mini", mini, same_updates),
                ("mini-group", with_flags(mini, norm="group"), same_updates),
                ("full", full, few),
                ("full-recut", with_flags(full, shuffle=True), few),
                ("full-group", with_flags(full, norm="group"), few),
            )
        ),
    )


def flagship() -> Experiment:
    """B: 50,000 images with fresh crop and flip; the full batch against mini-batches of 2,000."""
    full = with_flags(MUON, augment="crop-flip", block=2_000, steps=200)
    mini = with_flags(full, regime="stochastic", shuffle=True)
    rates, decays = (0.2, 0.1, 0.4), (0.15, 0.05, 0.45)
    few, same_updates = {"images": 4_000}, {"images": 4_000, "steps": 100}  # 2 updates a pass instead of 25
    arms = [
        Arm("B-full-200", full, few, rates, decays),
        Arm("B-mini-200-updates", with_flags(mini, steps=8), same_updates, rates, decays),
        Arm("B-mini-200-passes", with_flags(mini, steps=200), few, rates, decays),
    ]
    for updates in (100, 400):
        arms += [
            Arm(f"B-full-{updates}", with_flags(full, steps=updates), {}, (), (), like="B-full-200"),
            Arm(
                f"B-mini-{updates}-updates",
                with_flags(mini, steps=updates // 25),
                {},
                (),
                (),
                like="B-mini-200-updates",
            ),
            Arm(f"B-mini-{updates}-passes", with_flags(mini, steps=updates), {}, (), (), like="B-mini-200-passes"),
        ]
    return Experiment("B", tuple(arms))


def price() -> Experiment:
    """D: 16 passes over 50,000 images with fresh crop and flip; only the source of the gradients differs."""
    full = with_flags(MUON, augment="crop-flip", block=2_000, steps=16)
    mini = with_flags(full, regime="stochastic", shuffle=True)
    muon, decay = (0.1, 0.05, 0.2), (0.15,)
    return Experiment(
        "D",
        (
            Arm("D-sgd", _by_sgd(mini), {}, (1.0, 0.5, 2.0), (5e-4,)),
            Arm("D-muon", mini, {}, muon, decay),
            Arm("D-aggregated-8", with_flags(full, parts=8, momentum=0.0, nesterov=False), {}, muon, decay),
            Arm("D-aggregated-25", with_flags(full, parts=25, momentum=0.0, nesterov=False), {}, muon, decay),
            Arm("D-full", full, {}, muon, decay),
        ),
    )


def mechanism() -> Experiment:
    """C: 5,000 images without augmentation; does the penalty on blocks, and not just any, close the gap?"""
    few, decay = {"images": 1_000}, (5e-4,)
    sgd = with_flags(
        _by_sgd(MUON),
        images=5_000,
        block=32,
        norm_block=32,
        label_smoothing=0.0,
        regime="stochastic",
        shuffle=True,
        steps=25,
    )
    full = with_flags(sgd, regime="full-batch", shuffle=False, steps=500, warmup=67, horizon=667)
    clipped = with_flags(full, clip=0.25)
    slow, fast = (0.1, 0.05, 0.2), (0.8, 0.4, 1.6)
    return Experiment(
        "C",
        (
            Arm("C-sgd-25", sgd, few, slow, decay),
            Arm("C-sgd-500", with_flags(sgd, steps=500), few, slow, decay),
            Arm("C-full-longer", full, few, fast, decay),
            Arm("C-full-clipped", clipped, few, fast, decay),
            Arm("C-full-block-penalty", with_flags(clipped, penalty=0.5), few, fast, decay),
            Arm("C-full-full-penalty", with_flags(clipped, full_penalty=0.5), few, fast, decay),
        ),
    )


def network() -> Experiment:
    """N: what the two networks reach on held-out images with mini-batches of 2,000; no run asks for test images."""
    mini = with_flags(MUON, augment="crop-flip", block=2_000, regime="stochastic", shuffle=True)
    return Experiment(
        "N",
        tuple(
            Arm(f"N-{model}-{passes}", with_flags(mini, model=model, steps=passes), {}, (0.1,), (0.15,), seeds=())
            for model, passes in (("speednet128", 8), ("speednet128", 16), ("speednet256", 8), ("speednet256", 16))
        ),
    )


EXPERIMENTS = (
    noise_at_equal_updates("A", "cifar10"),
    flagship(),
    price(),
    mechanism(),
    noise_at_equal_updates("A100", "cifar100"),
    network(),
)
"""in the order in which they run"""
