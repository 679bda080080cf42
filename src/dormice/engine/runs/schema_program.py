"""The process that compares documents with schemas where that may take long: one after the other, from standard input.

The kernel ends it when one of them takes more processor time than it may.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys

from dormice.engine.runs.schemas import fits, misfit, problem

QUESTION = struct.Struct(">IIQ")
"""Milliseconds of processor time, and the lengths of the schema and of the document, which follow. No document: is it a schema?"""
YES, NO = b"\1", b"\0"
"""Sent as soon as it is known. After NO comes what is wrong, with its length before it; that may take too long by itself."""
LENGTH = struct.Struct(">I")
MEMORY_BYTES = 2 << 30
TOO_LONG = signal.SIGPROF


def main() -> None:
    """Answer until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server
    signal.signal(TOO_LONG, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := asked.read(QUESTION.size):
        milliseconds, schema_bytes, document_bytes = QUESTION.unpack(head)
        schema, document = asked.read(schema_bytes), asked.read(document_bytes)
        signal.setitimer(signal.ITIMER_PROF, milliseconds / 1000)
        said = None if document else problem(schema)
        good = fits(schema, document) if document else said is None
        answers.write(YES if good else NO)
        answers.flush()
        if not good:
            text = (said or misfit(schema, document)).encode(errors="replace")
            answers.write(LENGTH.pack(len(text)) + text)
            answers.flush()
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    try:
        main()
    except MemoryError:
        os.abort()
