"""Arithmetic with the same bits on every machine that keeps IEEE 754, for any number of threads.

`arithmetic()` is a context in which torch's operations are replaced by compositions of correctly rounded ones, at every
order of derivatives; what has no such form is refused by name. See docs/portable.md.
"""

from noiseless.portable.mode import NotPortableError, active, arithmetic

__all__ = ["NotPortableError", "active", "arithmetic"]
