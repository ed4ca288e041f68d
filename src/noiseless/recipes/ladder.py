"""The paper's ladder: each row is its predecessor with something replaced (arXiv 2109.14119; CIFAR-10, ResNet-18).

The file reads as the paper's argument. Accuracy is reached by SGD; the same number of noise-free steps does not reach
it; more steps, a clipped gradient and an explicit penalty do. One row is not the paper's: `sgd-longer`, which has as
many passes as the last rows, so that the ladder can also be read at equal cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from noiseless.errors import UnknownNameError
from noiseless.recipes import parts
from noiseless.recipes.flags import differing, with_flags
from noiseless.recipes.recipe import Recipe


def sgd() -> Recipe:
    """Mini-batches of 128 in a new order each epoch; momentum, weight decay, warm-up and cosine as usual."""
    return Recipe(
        name="sgd",
        data=parts.Data("cifar10"),
        model=parts.Model("resnet18"),
        objective=parts.Objective(regime="stochastic"),
        optimizer=parts.Optimizer(lr=0.1),
        schedule=parts.Schedule(steps=300, warmup=5, horizon=300),
    )


def sgd_longer() -> Recipe:
    """SGD with as many passes as the longest row: twenty times the steps, warm-up and horizon. Not in the paper."""
    return with_flags(sgd(), name="sgd-longer", steps=6000, warmup=100, horizon=6000)


def fb() -> Recipe:
    """SGD's recipe with one step an epoch: the mean over all block gradients."""
    return with_flags(sgd(), name="fb", regime="full-batch")


def fb_longer() -> Recipe:
    """Ten times fb's steps, at a larger rate; the run ends before the cosine does."""
    return with_flags(fb(), name="fb-longer", steps=3000, lr=0.4, warmup=400, horizon=4000)


def fb_clipped() -> Recipe:
    """The full gradient clipped."""
    return with_flags(fb_longer(), name="fb-clipped", clip=0.25)


def fb_regularized() -> Recipe:
    """SGD's implicit regularisation made explicit, which bears twice the rate."""
    return with_flags(fb_clipped(), name="fb-regularized", lr=0.8, penalty=0.5)


def fb_strong() -> Recipe:
    """Smaller blocks, for the penalty and batch norm both: stronger regularisation."""
    return with_flags(fb_regularized(), name="fb-strong", block=32)


def fb_practice() -> Recipe:
    """Blocks cut anew from a shuffled order at each step."""
    return with_flags(fb_strong(), name="fb-practice", shuffle=True)


LADDER: Mapping[str, Callable[[], Recipe]] = {
    "sgd": sgd,
    "sgd-longer": sgd_longer,
    "fb": fb,
    "fb-longer": fb_longer,
    "fb-clipped": fb_clipped,
    "fb-regularized": fb_regularized,
    "fb-strong": fb_strong,
    "fb-practice": fb_practice,
}
"""the rows in the order of their tables"""

PREDECESSORS: Mapping[str, str] = {"fb": "sgd", "aggregated": "fb"}
"""recipe -> the one in which it replaces something, where that is not the one before it in `RECIPES`"""


def aggregated() -> Recipe:
    """No row of the paper's and not the full batch: cyclic mini-batches of N / 8 with memory (docs/price.md).

    An update renews the gradient of one of eight fixed parts and follows the mean of the newest gradients of all eight,
    each taken at another point: momentum with a rectangular window of one pass (incremental aggregated gradient, Blatt,
    Hero and Gauchman 2007). Batch norm sees 8 images, which are drawn anew at each pass: a keyed noise. Muon, a head
    that learns faster, strong weight decay, smoothed labels.

    Returns:
        The recipe, with as many steps as the paper's SGD has passes.
    """
    return with_flags(
        fb(), name="aggregated", parts=8, block=64, norm_block=8, shuffle=True, warmup=0, horizon=None,
        optimizer="Muon", lr=0.03, momentum=0.0, weight_decay=1.0, label_smoothing=0.1,
        optimizer_options="inner_lr_ratio=0.1,last_lr_ratio=4",
    )  # fmt: skip


RECIPES: Mapping[str, Callable[[], Recipe]] = {
    **LADDER,
    "aggregated": aggregated,
}
"""all that have a name: the ladder, which is the paper's, and ours"""

AGGREGATED_STEPS = 60
"""steps of `aggregated` in its small form: the budget of passes at which its setting was chosen"""
STEPS_SCALE = 30
"""the small form takes a 30th of the paper's steps, warm-up and horizon"""
BLOCK_SCALE = 4
"""and a 4th of its blocks: 128 -> 32, 32 -> 8"""


SMALL = {"digits": ("resnet8", 1), "mnist-5k": ("resnet8", 3)}
"""sets that the small form is for: model, and pixels of the border for crops, an eighth of the image's side"""


def small(recipe: Recipe, data: str = "digits") -> Recipe:
    """A row in the scaled form for small embedded sets, in the paper's proportions.

    Steps, warm-up and horizon are divided by 30 and blocks by 4; learning rates, clip and penalty stay the paper's.
    An image of 8 pixels is cropped from a border of 1, as one of 32 from 4; a mirrored digit is no digit, so none is
    flipped.

    Args:
        recipe: in the paper's form.
        data: the set; of others than those of `SMALL`, images are taken to be as small as digits.

    Returns:
        The recipe, for that set and a small model.
    """
    schedule = recipe.schedule
    return with_flags(
        on_small(recipe, data),
        steps=schedule.steps // STEPS_SCALE,
        warmup=schedule.warmup // STEPS_SCALE,
        horizon=(schedule.horizon or schedule.steps) // STEPS_SCALE,
        block=recipe.objective.block // BLOCK_SCALE,
    )


def on_small(recipe: Recipe, data: str) -> Recipe:
    """A recipe on a small set: its model and border, and no mirror images; steps and blocks as they are."""
    model, padding = SMALL.get(data, SMALL["digits"])
    return with_flags(recipe, data=data, model=model, padding=padding, flip=0.0)


PUBLISHED_PIXELS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": (
        (0.4914672374725342, 0.4822617471218109, 0.4467701315879822),
        (0.24703224003314972, 0.24348513782024384, 0.26158785820007324),
    ),
    "cifar100": (
        (0.5071598291397095, 0.4866936206817627, 0.44120192527770996),
        (0.2673342823982239, 0.2564384639263153, 0.2761504650115967),
    ),
    "tinyimagenet": (
        (0.4789886474609375, 0.4457630515098572, 0.3944724500179291),
        (0.27698642015457153, 0.2690644860267639, 0.2820819020271301),
    ),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""mean and deviation of a channel's pixels as the published code states them. They are not quite those of the training
images (CIFAR-10's means differ from the fourth digit on), which moves a loss by far more than rounding does"""


def published(recipe: Recipe) -> Recipe:
    """A recipe with the arithmetic of the published code, as docs/parity.md lists it; given mean and std stay."""
    mean, std = PUBLISHED_PIXELS.get(recipe.data.name, (None, None))
    return with_flags(
        recipe,
        compat="published",
        drop_last=True,
        statistics="ema",
        mean=recipe.data.mean or mean,
        std=recipe.data.std or std,
    )


def default_form(data: str) -> str:
    """The form of a set: `"small"` for those of `SMALL`, `"paper"` for all others."""
    return "small" if data in SMALL else "paper"


def row(name: str, form: str = "small", data: str | None = None) -> Recipe:
    """A recipe by its name: a row of the ladder, or one of ours, whose blocks are the same in both forms.

    Args:
        name: see `RECIPES`.
        form: `"small"`, for digits and their like, or `"paper"`, for CIFAR-10.
        data: the set; None: `digits` in the small form, `cifar10` in the paper's.

    Returns:
        The recipe.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    if form not in ("small", "paper"):
        raise UnknownNameError("form", form, ("small", "paper"))
    made = RECIPES[name]()
    if form == "paper":
        return with_flags(made, data=data) if data else made
    data = data or "digits"
    return small(made, data) if name in LADDER else with_flags(on_small(made, data), steps=AGGREGATED_STEPS)


def differences(recipe: Recipe, before: Recipe | None) -> dict[str, tuple[object, object]]:
    """What a row replaces in the one before it (in the defaults of `Recipe`, for the first): flag -> (was, is)."""
    return {flag: pair for flag, pair in differing(before or Recipe(), recipe).items() if flag != "name"}
