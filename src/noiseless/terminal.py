"""Texts where they are printed: those of other people's runs control no terminal, and mark up no page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# control characters but tab and line feed; marks that turn the direction of a line; line separators; lone surrogates,
# which stand for bytes of a path that are not UTF-8
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text with escapes, as `\x1b`, in place of characters that control a terminal or the direction of a line."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def markdown(text: object) -> str:
    """A text as part of a line of Markdown, with escapes in place of line ends, of markup and of HTML."""
    line = " ".join(printable(str(text)).split())
    return re.sub(r"[\\`*|\[\]<>]", lambda found: f"&#{ord(found[0])};", line)


class Terminal(Console):
    """A console of rich that prints texts as they are: without markup, emoji codes, colours by guess, or control.

    Each text passes `printable` where it is laid out, and each segment once more where it is drawn. Only rich's own
    segments move the cursor.

    Args:
        settings: of rich's console, such as `stderr`.
    """

    def __init__(self, **settings: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Rich's layout of a text."""
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Rich's layout of anything."""
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROLS.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
