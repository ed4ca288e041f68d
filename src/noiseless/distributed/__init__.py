"""The exact sum in a training loop of your own: FSDP2, DistributedDataParallel, gradient norms of sharded parameters.

The mean gradient of a step, its norm and the clip have the same bits for any number of ranks.
"""

from noiseless.distributed.exact import exact_gradients
from noiseless.distributed.gradients import ExactGradients
from noiseless.distributed.norm import clip_grad_norm_, get_total_norm
from noiseless.objective.exactsum import ExactSum

__all__ = ["ExactGradients", "ExactSum", "clip_grad_norm_", "exact_gradients", "get_total_norm"]
