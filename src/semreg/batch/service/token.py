"""Who may ask: a token in a file that its owner alone reads, compared in constant time. Knows no HTTP."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from semreg.errors import ConfigError, OutputError
from semreg.runtime.texts import read_text

logger = logging.getLogger("semreg")

FEWEST_LETTERS = 16
"""Of a token."""
TOKEN_BYTES = 32
"""Of a token that is made here."""


@dataclass(frozen=True)
class Token:
    """The secret. It is never shown, not even where this object is."""

    _secret: bytes = field(repr=False)

    def allows(self, header: bytes | None) -> bool:
        """Whether the value of ``Authorization`` has it; takes as long whatever is wrong with it."""
        kind, _, given = (header or b"").partition(b" ")
        same = secrets.compare_digest(given.strip(), self._secret)
        return same and kind.lower() == b"bearer"


def read_token(path: Path) -> Token:
    """The token in a file (ConfigError where it is missing, too short, or none that a header holds)."""
    text = read_text(path, "a file with the token").strip()
    if len(text) < FEWEST_LETTERS or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"expected a token of at least {FEWEST_LETTERS} letters and digits in one line in {path}, got another: "
            "write one, such as openssl rand -hex 32 prints"
        )
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        logger.warning("others on this machine may read the token in %s: chmod 600 keeps it from them", path)
    return Token(text.encode())


def made_token(path: Path) -> Token:
    """The token in the file at ``path``, which is made for its owner alone where there is none (OutputError)."""
    if not path.exists():
        try:
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(number, "w", encoding="ascii") as file:
                file.write(f"{secrets.token_urlsafe(TOKEN_BYTES)}\n")
        except OSError as error:
            raise OutputError(f"expected to write the token to {path}, got: {error.strerror or error}") from error
    return read_token(path)
