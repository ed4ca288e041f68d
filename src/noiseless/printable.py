"""Texts where they are printed: those of other people's runs control no terminal, and mark up no page."""

from __future__ import annotations

import re

# control characters but tab and line feed; marks that turn the direction of a line; line separators; lone surrogates,
# which stand for bytes of a path that are not UTF-8
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text with escapes, as `\x1b`, in place of characters that control a terminal or the direction of a line."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def markdown(text: object) -> str:
    """A text as part of a line of Markdown, with escapes in place of line ends, of markup and of HTML."""
    line = " ".join(printable(str(text)).split())
    return re.sub(r"[\\`*|\[\]<>]", lambda found: f"&#{ord(found[0])};", line)
