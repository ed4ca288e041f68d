"""What a recipe is: all that changes the results of a run, as one frozen value.

Its fields are the flags of `noiseless train`, and the string under a field is its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """The mathematics of a run: which function is minimised, and how."""

    name: str = "fb-regularized"
    """name in the record and of the run directory"""

    # what is learned
    data: str = "digits"
    """data set, see noiseless data list: digits, mnist-5k, cifar10, ..., npz:FILE or folder:PATH"""
    pixels: int | None = None
    """images are resized and cropped to this size; none: as they are"""
    validation: float = 0.0
    """share of the training images, drawn by the seed, that is left out and evaluated in the test images' place"""
    images: int | None = None
    """training images that are used, drawn by the seed from those that are not left out; none: all"""
    model: str = "resnet8"
    """model: resnet18, densenet121, vgg16, ..., torchvision:NAME, timm:NAME or package.module:function"""
    norm: Literal["batch", "group", "none", "skipinit"] = "batch"
    """normalisation layers of the model; skipinit: none, and a learned scale from 0 on each residual branch"""
    stem: Literal["small", "standard", "efficient"] = "small"
    """first layers: one 3x3 convolution, 7x7 with stride and pool, or three 3x3 with stride and pool"""
    shortcut: Literal["A", "B", "C"] = "C"
    """of a ResNet, where shapes change: 1x1 convolution; with norm; average pool, 1x1 convolution and norm"""
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"
    """what convolutions see beyond the image's edge"""
    convolution: Literal["standard", "weight-standardized"] = "standard"
    """kind of the convolutions"""
    zero_init: bool = False
    """residual branches begin at zero"""
    model_options: str = ""
    """further arguments of the model, as in a call: NAME=VALUE,NAME=VALUE"""
    init: str | None = None
    """file with initial parameters and buffers: safetensors, torch.save or published; none: drawn from the seed"""
    seed: int = 0
    """keys every random draw"""
    mean: tuple[float, ...] | None = None
    """pixel mean a channel in units of 255; none: of the training images"""
    std: tuple[float, ...] | None = None
    """pixel standard deviation a channel in units of 255; none: of the training images"""
    dtype: Literal["float32", "float64"] = "float32"
    """of parameters, activations and gradients"""
    autocast: Literal["none", "bfloat16"] = "none"
    """convolutions and matrix products in bfloat16 while training; parameters, gradients and sums stay as they are"""

    # the sequence of objectives
    regime: Literal["full-batch", "stochastic", "switch"] = "full-batch"
    """full-batch: one update a step, or one a part; stochastic: one a block; switch: the second, then the first"""
    switch: int = 0
    """first step with the full batch, in the regime switch"""
    steps: int = 3000
    """steps of the run; a stochastic step, or one with parts, is one pass over the data with several updates"""
    parts: int = 1
    """updates of a full-batch step: each renews the gradient of one of so many fixed parts of the examples, and goes
    along the mean of all parts' newest"""
    stop_perfect: int = 0
    """the run ends after this many steps in a row with all training examples correct; 0: never before its steps"""
    block: int = 128
    """examples a block: for the penalty, and for an update of the stochastic regime"""
    norm_block: int | None = None
    """examples that batch norm normalises together, divides the block; none: the block"""
    drop_last: bool = False
    """a short last block is left out"""
    shuffle: bool | None = None
    """blocks are cut anew from a shuffled order at each step; none: in the stochastic regime, not for the full batch"""
    replacement: bool = False
    """the stochastic regime draws examples with replacement"""
    augment: Literal["none", "crop-flip"] = "crop-flip"
    """random crop and mirror image, or none"""
    padding: int = 4
    """pixels of zeros around the image that is cropped"""
    flip: float = 0.5
    """probability of the mirror image"""
    policy: Literal["none", "rand", "auto", "trivial", "augmix"] = "none"
    """RandAugment, AutoAugment, TrivialAugment or AugMix, before the crop"""
    policy_options: str = ""
    """arguments of the policy, as in a call: num_ops=2,magnitude=9"""
    copies: int = 0
    """0: augmentations are drawn anew at each step; N: a fixed set of N copies; a stochastic step visits one"""
    first_clean: bool = False
    """the first of the copies is left as it is"""
    statistics: Literal["average", "ema"] = "average"
    """batch norm's running statistics: average over the sweep, or exponential; stochastic updates use the second"""

    # the loss, and what is added to it
    loss: Literal["cross-entropy", "incorrect"] = "cross-entropy"
    """incorrect: cross entropy of the examples that are classified wrongly, 0 for the others"""
    label_smoothing: float = 0.0
    """share of the target that is spread evenly over all classes"""
    max_up: int = 1
    """augmented draws of each example, of which the one with the largest loss counts"""
    sam: float = 0.0
    """radius of sharpness-aware minimisation over the whole objective; 0: off"""
    penalty: float = 0.0
    """strength of the penalty on the block gradients' norms: adds (lr / 8) * penalty * mean ||g_b||^2"""
    full_penalty: float = 0.0
    """strength of the penalty on the full gradient's norm"""
    penalty_method: Literal["forward", "central", "exact"] = "forward"
    """Hessian products by forward or central differences, or exact by double backward"""
    penalty_eps: float = 1e-2
    """length of the finite-difference probe"""

    # what is done to the gradient, in this order
    block_clip: float | None = None
    """L2 norm to which each block's gradient is clipped; none: not"""
    norm_bias: float = 0.0
    """strength of the pull of the parameters' norm towards norm-target"""
    norm_target: float = 0.0
    """target of the norm bias"""
    norm_bias_type: Literal["l1", "l2"] = "l2"
    """norm of the norm bias"""
    agc: float | None = None
    """adaptive clipping: largest ratio of a unit's gradient norm to its weights' norm; none: not"""
    clip: float | None = None
    """norm to which the full gradient is clipped; none: not"""
    clip_type: Literal["l2", "max"] = "l2"
    """norm of the clip: Euclidean, or the largest element"""
    additive_noise: float = 0.0
    """standard deviation of noise added to each element of the gradient"""
    multiplicative_noise: float = 0.0
    """standard deviation of noise that multiplies each element of the gradient"""
    layer_rate: Literal["none", "lars", "larc"] = "none"
    """a learning rate for each layer from its norms: LARS scales, LARC only lowers"""
    trust: float = 0.02
    """trust coefficient of LARS and LARC"""

    # how it moves
    optimizer: str = "SGD"
    """any optimizer of torch.optim, Muon for convolutions too; FISTA; DampedLBFGS"""
    lr: float = 0.1
    """peak learning rate"""
    momentum: float | None = 0.9
    """momentum, for optimizers that take it"""
    nesterov: bool | None = True
    """Nesterov momentum, for optimizers that take it"""
    weight_decay: float | None = 5e-4
    """weight decay on all parameters, for optimizers that take it"""
    decay_biases: bool = True
    """weight decay acts on biases and on normalisations' parameters, too"""
    optimizer_options: str = ""
    """further arguments of the optimizer, as in a call: NAME=VALUE,NAME=VALUE"""
    line_search: str = "none"
    """how far to go along the optimizer's direction: none (lr), armijo, wolfe, non-monotone or restarting, with lr as
    the first trial"""
    line_search_options: str = ""
    """arguments of the line search, as in a call: NAME=VALUE,NAME=VALUE"""
    schedule: Literal["cosine", "cosine-floor", "multi-step", "exponential", "constant"] = "cosine"
    """learning rate after the warm-up; cosine-floor ends at lr / 25, multi-step falls to a tenth at 3/8, 5/8, 7/8"""
    rate_by: Literal["step", "update"] = "step"
    """when the learning rate moves: once a step, or at each of a step's updates"""
    warmup: int = 0
    """steps of linear warm-up from 0"""
    horizon: int | None = None
    """steps in which the cosine falls to 0 or its floor; none: the run's steps"""
    decay: float = 0.99
    """factor a step of the exponential schedule"""

    # what is evaluated
    ema: float = 0.0
    """momentum of an exponential average of parameters and buffers, which is evaluated in their place; 0: off"""
    test_flips: bool = False
    """class probabilities of a test image are averaged with those of its mirror image"""

    compat: Literal["none", "published"] = "none"
    """published: the arithmetic of the paper's published code where ours differs, see docs/parity.md"""

    def divided(self, images: int) -> tuple[int, int]:
        """How many training images are used, and how many `validation` leaves out, `round(validation N)`.

        Args:
            images: N, of the training set.

        Returns:
            Both numbers; without validation the second is 0.

        Raises:
            ValueError: if nothing would be left to train on, or to evaluate, or more is asked for than there is.
        """
        held_out = round(self.validation * images)
        if self.validation and not 0 < held_out < images:
            raise ValueError(
                f"--validation {self.validation:g} of {images} training images would hold out {held_out}: both parts"
                " need images"
            )
        left = images - held_out
        if self.images is not None and self.images > left:
            raise ValueError(f"--images {self.images} is more than the {left} training images that there are")
        return self.images or left, held_out
