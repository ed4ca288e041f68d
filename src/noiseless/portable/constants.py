"""Coefficients of the portable functions, from exact arithmetic in software: the same numbers on every machine."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from math import factorial

DIGITS = 80
"""decimal digits of the arithmetic; the cancellation in a value of erf takes at most 32 of them"""
ERF_END = 6
"""from here on, erf is 1 in float64: 1 - erf(6) = 2e-17"""


def inverse_factorials(first: int, last: int) -> list[float]:
    """`1 / k!` for k = first ... last, each rounded once."""
    return [float(Fraction(1, factorial(k))) for k in range(first, last + 1)]


@cache
def split_log2() -> tuple[float, float]:
    """The logarithm of 2 as a sum of two floats, the first of 32 bits: its products with small integers are exact."""
    with localcontext() as context:
        context.prec = DIGITS
        exact = Decimal(2).ln()
        high = float(int(exact * 2**32)) / 2**32
        return high, float(exact - Decimal(high))


@cache
def pi() -> Decimal:
    """Pi, by Machin's formula `16 arctan(1/5) - 4 arctan(1/239)`."""
    with localcontext() as context:
        context.prec = DIGITS

        def arctan_of_inverse(n: int) -> Decimal:
            total, power, k = Decimal(0), Decimal(1) / n, 0
            while abs(power) > Decimal(10) ** -DIGITS:
                total += power / (2 * k + 1) * (-1) ** k
                power /= n * n
                k += 1
            return total

        return 16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)


@cache
def split_half_pi() -> tuple[float, float, float]:
    """Half of pi as a sum of three floats, the first two of 32 bits."""
    with localcontext() as context:
        context.prec = DIGITS
        exact = pi() / 2
        high = float(int(exact * 2**31)) / 2**31
        middle = float(int((exact - Decimal(high)) * 2**63)) / 2**63
        return high, middle, float(exact - Decimal(high) - Decimal(middle))


@cache
def erf_expansions(cells: int, degree: int) -> list[list[float]]:
    """Taylor coefficients of erf at k / cells, k = 0 ... 6 cells: rows of the powers of h.

    The derivatives are `erf^(n+1)(c) = 2 / sqrt(pi) (-1)^n H_n(c) exp(-c^2)` with Hermite polynomials H_n.
    The next term is below 1e-17 with 8 cells and degree 13, and with 64 cells and degree 6.

    Args:
        cells: expansions in a unit; |h| is at most half of its inverse.
        degree: of the polynomials.

    Returns:
        Rows of `degree + 1` numbers, each rounded once.
    """
    with localcontext() as context:
        context.prec = DIGITS
        factor, rows = 2 / pi().sqrt(), []
        for k in range(ERF_END * cells + 1):
            c = Decimal(k) / cells
            hermite = [Decimal(1), 2 * c]
            for n in range(1, degree):
                hermite.append(2 * c * hermite[n] - 2 * n * hermite[n - 1])
            slope = factor * (-c * c).exp()
            terms = [slope * (-1) ** n * hermite[n] / factorial(n + 1) for n in range(degree)]
            rows.append([float(t) for t in (factor * _integral(c), *terms)])
        return rows


def _integral(c: Decimal) -> Decimal:
    """The integral of `exp(-t^2)` from 0 to c, by its power series."""
    total, power, n = Decimal(0), c, 0
    while abs(power) > Decimal(10) ** -60:
        total += power / (2 * n + 1)
        n += 1
        power *= -c * c / n
    return total


def cosine(x: float) -> float:
    """The cosine of a number within [-4, 4], correctly rounded but for one case in 10^20 or so, on every machine."""
    with localcontext() as context:
        context.prec = DIGITS
        total, term, k, square = Decimal(0), Decimal(1), 0, Decimal(x) ** 2
        while abs(term) > Decimal(10) ** -50:
            total += term
            k += 2
            term *= -square / (k * (k - 1))
        return float(total)


def power(base: float, exponent: float) -> float:
    """`base**exponent` for a base of at least 0, rounded as `cosine` is; square roots are `math.sqrt`'s bits."""
    if base == 0 or exponent == 0:
        return 1.0 if exponent == 0 else 0.0
    with localcontext() as context:
        context.prec = DIGITS
        exact = Decimal(base).sqrt() if exponent == 0.5 else Decimal(base) ** Decimal(exponent)
        return float(exact)
