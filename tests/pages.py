"""The code blocks of the documentation."""

from __future__ import annotations

import re


def blocks(language: str, page: str) -> list[str]:
    """The code blocks of a language in the text of a page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
