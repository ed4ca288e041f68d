"""What is averaged over: examples, their selection for a sweep, and its partition into blocks."""

from noiseless.examples.blocks import Batch, Blocks, Examples, TensorExamples
from noiseless.examples.dataset import DatasetExamples
from noiseless.examples.selection import Selection

__all__ = ["Batch", "Blocks", "DatasetExamples", "Examples", "Selection", "TensorExamples"]
