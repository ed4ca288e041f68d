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
    """SGD's recipe with one step an epoch, by the mean of all block gradients."""
    return with_flags(sgd(), name="fb", regime="full-batch")


def fb_longer() -> Recipe:
    """Ten times fb's steps, at a larger rate; the run ends before the cosine does."""
    return with_flags(fb(), name="fb-longer", steps=3000, lr=0.4, warmup=400, horizon=4000)


def fb_clipped() -> Recipe:
    """The full gradient clipped."""
    return with_flags(fb_longer(), name="fb-clipped", clip=0.25)


def fb_regularized() -> Recipe:
    """SGD's implicit regularisation as an explicit penalty, which allows twice the learning rate."""
    return with_flags(fb_clipped(), name="fb-regularized", lr=0.8, penalty=0.5)


def fb_strong() -> Recipe:
    """Smaller blocks, for both the penalty and batch norm: stronger regularisation."""
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
"""the rows by name, in the order in which tables show them"""

PREDECESSORS: Mapping[str, str] = {"fb": "sgd", "aggregated": "fb"}
"""recipe -> its predecessor, where that is not the one before it in `RECIPES`"""


def aggregated() -> Recipe:
    """Cyclic mini-batches of N / 8 with memory (docs/price.md). Not in the paper, and not full batch.

    An update computes a new gradient of one of eight fixed parts and moves along the mean of the newest gradients of
    all eight, which belong to different points: momentum with a rectangular window of one pass (incremental aggregated
    gradient, Blatt, Hero and Gauchman 2007). Batch norm normalises 8 images together, drawn anew in each pass, which is
    keyed noise. The optimizer is Muon; the head learns faster, weight decay is strong and labels are smoothed.

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
"""all recipes by name: the ladder, and `aggregated`"""

AGGREGATED_STEPS = 60
"""steps of `aggregated` in its small form: the budget of passes at which its setting was chosen"""
STEPS_SCALE = 30
"""the paper's steps, warm-up and horizon, divided by those of the small form"""
BLOCK_SCALE = 4
"""the paper's block sizes, divided by those of the small form: 128 -> 32, 32 -> 8"""


SMALL = {"digits": ("resnet8", 1), "mnist-5k": ("resnet8", 3)}
"""data sets of the small form -> (model, pixels of padding for crops, an eighth of the image's side)"""


def small(recipe: Recipe, data: str = "digits") -> Recipe:
    """A row in its small form: for small embedded data sets, in the paper's proportions.

    Steps, warm-up and horizon are divided by 30 and blocks by 4; learning rates, clip and penalty stay the paper's.
    An image of 8 pixels is padded by 1 before the crop, as one of 32 by 4. No image is flipped, because a mirrored
    digit is not a digit.

    Args:
        recipe: in the paper's form.
        data: the data set; one that is not in `SMALL` gets the model and the padding of digits.

    Returns:
        The recipe, for that data set and a small model.
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
    """A copy with the model and padding for a small data set and without mirror images; steps and blocks are kept."""
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
"""data set -> mean and standard deviation of each channel's pixels in the published code. They differ a little from
those of the training images (CIFAR-10's means from the fourth digit on), which changes a loss by far more than rounding
does"""


def published(recipe: Recipe) -> Recipe:
    """A copy with the arithmetic of the published code (docs/parity.md); a mean and std that are set are kept."""
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
    """The form for a data set: `"small"` for those of `SMALL`, `"paper"` for all others."""
    return "small" if data in SMALL else "paper"


def row(name: str, form: str = "small", data: str | None = None) -> Recipe:
    """A recipe by its name: a row of the ladder, or `aggregated`, whose blocks are the same in both forms.

    Args:
        name: see `RECIPES`.
        form: `"small"`, for data sets like digits, or `"paper"`, for CIFAR-10.
        data: the data set; None: `digits` in the small form, `cifar10` in the paper's.

    Returns:
        The recipe.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    if form not in ("small", "paper"):
        raise UnknownNameError("form", form, ("small", "paper"))
    recipe = RECIPES[name]()
    if form == "paper":
        return with_flags(recipe, data=data) if data else recipe
    data = data or "digits"
    return small(recipe, data) if name in LADDER else with_flags(on_small(recipe, data), steps=AGGREGATED_STEPS)


def differences(recipe: Recipe, before: Recipe | None) -> dict[str, tuple[object, object]]:
    """What a recipe changes in the one before it (None: in the defaults of `Recipe`): flag -> (old, new)."""
    return {flag: pair for flag, pair in differing(before or Recipe(), recipe).items() if flag != "name"}
