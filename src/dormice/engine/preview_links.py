"""Signed links to previews: who holds one is let in until it expires, as if by the key that it was made with."""

from __future__ import annotations

from dormice.domain.execution import Micros
from dormice.domain.preview import Preview
from dormice.engine.tokens import Tokens

_PURPOSE = "preview"
_SECOND_US = 1_000_000


class PreviewLinks:
    """Makes and reads the tokens in them: `KEY.TOKEN`, the id of the key and a token (tokens.py) for it and the preview."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def make(self, preview: Preview, key_id: str, seconds: int) -> str:
        """Return a token that counts for so long. A secret."""
        return f"{key_id}.{self._tokens.issue(_PURPOSE, _subject(preview, key_id), seconds=seconds)}"

    def read(self, preview: Preview, token: str) -> tuple[str, Micros] | None:
        """Return which key a token was made with and until when it counts; None for one of another preview, or that is over."""
        key_id, _, rest = token.partition(".")
        if not self._tokens.good(_PURPOSE, _subject(preview, key_id), rest):
            return None
        return key_id, int(rest.partition(".")[0]) * _SECOND_US


def _subject(preview: Preview, key_id: str) -> str:
    return f"{preview.id} {key_id}"
