"""Questions to an objective: how sharp it is, and where the edge of stability lies. Nothing here moves a parameter."""

from noiseless.analysis.density import Density, Trace, density, trace
from noiseless.analysis.edge import edge, preconditioned
from noiseless.analysis.operator import Hessian, Operator, Preconditioned, as_linear_operator
from noiseless.analysis.spectrum import Eigenpairs, Ends, ends

__all__ = [
    "Density",
    "Eigenpairs",
    "Ends",
    "Hessian",
    "Operator",
    "Preconditioned",
    "Trace",
    "as_linear_operator",
    "density",
    "edge",
    "ends",
    "preconditioned",
    "trace",
]
