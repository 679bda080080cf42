"""Output as text: UTF-8 sequences that are split over chunks stay whole.

A sequence belongs to the chunk in which it ends, so a chunk's text depends on what lies before it (at most three
bytes) and on nothing else: whoever reads from whichever sequence on gets the same text. Bytes that are no UTF-8 become
U+FFFD, as in a decoding of the whole stream at once. A sequence that the end of the stream leaves unfinished becomes
U+FFFD in the stream's last chunk, once the execution has ended.
"""

from __future__ import annotations

import codecs

LOOK_BACK = 3
"""Bytes before a chunk that may belong to a sequence ending in it."""

_new_decoder = codecs.getincrementaldecoder("utf-8")


class StreamDecoder:
    """Decodes one stream from some offset on."""

    def __init__(self, offset: int, before: bytes) -> None:
        """Begin at `offset`; `before` is what lies before it, the last LOOK_BACK bytes or all there is.

        A lead byte begins a sequence whatever comes before it, so three bytes tell which sequence is open.
        """
        self.offset = offset
        self._decoder = _new_decoder("replace")
        self._decoder.decode(before)

    def decode(self, data: bytes, *, last: bool = False) -> str:
        """Return the text of the sequences that end in the next bytes; with `last`, also of an unfinished one."""
        self.offset += len(data)
        return self._decoder.decode(data, last)
