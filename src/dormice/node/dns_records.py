"""As much of DNS messages (RFC 1035) as it takes to read which addresses a name stands for."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

HEADER = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHIH")
"""Type, class, TTL and length of a record."""
_A, _CNAME, _SVCB, _HTTPS = 1, 5, 64, 65
_INTERNET = 1
_POINTER, _LABEL_MASK = 0xC0, 0x3F
_MOST_NAME = 255
_MOST_HOPS = 32
_MOST_ALIASES = 16
"""One after the other: as many as nameservers follow themselves."""
_MOST_TTL = 0x7FFF_FFFF

ANSWER, RECURSION_DESIRED, RECURSION_AVAILABLE, NO_SUCH_NAME = 0x8000, 0x0100, 0x0080, 3


class BadMessage(ValueError):
    """The message is cut short or contradicts itself."""


def name_of(question: bytes) -> str:
    """The name in a question section, in lower case. Raises BadMessage."""
    return _name(question, 0)[0]


def names_addresses_aside(question: bytes) -> bool:
    """Whether the question is for records that carry addresses as hints (RFC 9460), which nothing else needs."""
    kind: int = struct.unpack_from(">H", question, len(question) - 4)[0]
    return kind in (_SVCB, _HTTPS)


def without_records(message: bytes, question: bytes, code: int) -> bytes:
    """The answer to a question that has none."""
    message_id, flags = struct.unpack_from(">HH", message)
    return (
        HEADER.pack(message_id, ANSWER | (flags & RECURSION_DESIRED) | RECURSION_AVAILABLE | code, 1, 0, 0, 0)
        + question
    )


def addresses(answer: bytes) -> dict[IPv4Address, int]:
    """The addresses that the name asked for stands for, itself or by its aliases, with their TTL in seconds. Raises BadMessage."""
    try:
        _, _, questions, records, _, _ = HEADER.unpack_from(answer)
        offset = HEADER.size
        names: set[str] = set()
        for _ in range(questions):
            name, offset = _name(answer, offset)
            names.add(name)
            offset += 4
        found: list[tuple[str, IPv4Address, int]] = []
        aliases: dict[str, str] = {}
        for _ in range(records):
            owner, offset = _name(answer, offset)
            kind, family, ttl, length = _FIXED.unpack_from(answer, offset)
            offset += _FIXED.size
            if (kind, family, length) == (_A, _INTERNET, 4):
                address = IPv4Address(answer[offset : offset + 4])
                found.append((owner, address, ttl if ttl <= _MOST_TTL else 0))
            elif (kind, family) == (_CNAME, _INTERNET):
                aliases[owner] = _name(answer, offset)[0]
            offset += length
    except (struct.error, IndexError, ValueError) as error:
        raise BadMessage(str(error)) from None
    for asked in tuple(names):
        name = asked
        for _ in range(_MOST_ALIASES):
            name = aliases.get(name, name)
            names.add(name)
    return {address: ttl for owner, address, ttl in found if owner in names}


def _name(message: bytes, offset: int) -> tuple[str, int]:
    """The name at an offset, its compression undone, and where what follows it begins. Raises BadMessage, IndexError."""
    labels: list[bytes] = []
    size, hops, behind, first = 0, 0, -1, offset
    while length := message[offset]:
        if length & _POINTER == _POINTER:
            target = (length & _LABEL_MASK) << 8 | message[offset + 1]
            behind = offset + 2 if behind < 0 else behind
            hops += 1
            if target >= first or hops > _MOST_HOPS:  # only ever backwards, so that it ends
                raise BadMessage("a name points ahead, or too often")
            offset = first = target
            continue
        if length & _POINTER:
            raise BadMessage("no label is so long")
        label = message[offset + 1 : offset + 1 + length]
        size += length + 1
        if len(label) < length or size > _MOST_NAME or b"." in label:
            raise BadMessage("no such name can be")
        labels.append(label)
        offset += 1 + length
    return b".".join(labels).decode("latin-1").lower(), (behind if behind >= 0 else offset + 1)
