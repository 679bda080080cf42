"""How much work it is at most to compare a document with a JSON Schema, told from the schema alone.

The bound is a number of small steps for each value in the document. It exists if schemas only multiply within one value (`allOf`, `$ref`, ...)
and not again with every level of nesting, and if nothing but plain references lead from one to the next. No bound is no fault: such a
schema is compared where its time is limited.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Struct, field

SCHEMA_BYTES = 16 << 10
"""A larger schema is not looked at: it has no bound."""
_STEPS = 10_000
_LEVELS = 32
_VISITS = 20_000
"""Of subschemas, on all levels: what finding the bound may cost."""
_PATTERN_CHARS = 1_000
"""Of all regular expressions of a schema together, each with its counted repetitions written out."""
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_ALL_OF = ("allOf", "anyOf", "oneOf")
_ONE_OF = ("not", "if", "then", "else")
_LEFT_OPEN = frozenset(
    [
        "$id",
        "$anchor",
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveRef",
        "$vocabulary",
        "id",
        "dependencies",
        "additionalItems",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_REPEATED = re.compile(r"\{(\d*),?(\d*)\}")

_UNREADABLE = (ValueError, RecursionError, TypeError, AttributeError, LookupError)
"""What is no schema is looked at as if it were one."""

Steps = int | None


class _Unbounded(Exception):
    """There is no bound."""


class _Node(Struct):
    """What one subschema does with a value."""

    steps: int = 1
    here: list[_Node] = field(default_factory=list)
    """Subschemas for the same value."""
    below: list[list[_Node]] = field(default_factory=list)
    """For values in it: of each list, one at most is for the same one of them."""
    level: int = 0
    """Steps for one value on the level that is looked at."""


def steps(schema: bytes) -> Steps:
    """Return how many steps each value in a document costs at most; None: there is no bound, or a high one."""
    if len(schema) > SCHEMA_BYTES:
        return None
    try:
        return _Survey(msgspec.json.decode(schema)).steps()
    except (_Unbounded, *_UNREADABLE):
        return None


class _Survey:
    def __init__(self, document: Any) -> None:
        self._document = document
        self._nodes: dict[int, _Node] = {}
        self._unread: list[tuple[_Node, dict[str, Any]]] = []
        self._pattern_chars = 0
        self._node(document)
        while self._unread:
            self._read(*self._unread.pop())

    def steps(self) -> Steps:
        """Follow the schema down level by level, until the levels below are like one that was there."""
        order, seen = self._order(), set[tuple[int, ...]]()
        for node in order:
            node.level = node.steps + sum(one.level for one in node.here)
            _check(node.level)
        most = max(node.level for node in order)
        for _ in range(min(_LEVELS, _VISITS // len(order))):
            costs = _next_level(order)
            if costs in seen:
                return most
            seen.add(costs)
            most = max(most, *costs)
        return None

    def _order(self) -> list[_Node]:
        """Return all nodes, each after those that it has `here`."""
        order, entered, left = list[_Node](), set[int](), set[int]()

        def visit(node: _Node) -> None:
            if id(node) in left:
                return
            if id(node) in entered:  # a circle within one value is endless
                raise _Unbounded
            entered.add(id(node))
            for one in node.here:
                visit(one)
            left.add(id(node))
            order.append(node)

        for node in self._nodes.values():
            visit(node)
        return order

    def _node(self, schema: Any) -> _Node:
        node = self._nodes.get(id(schema))
        if node is None:
            node = self._nodes[id(schema)] = _Node()
            if isinstance(schema, dict):
                self._unread.append((node, schema))
        return node

    def _read(self, node: _Node, schema: dict[str, Any]) -> None:
        if _LEFT_OPEN & schema.keys() or schema.get("$schema", _DRAFT).rstrip("#") != _DRAFT:
            raise _Unbounded
        here = [one for name in _ALL_OF for one in schema.get(name, ())]
        here += [schema[name] for name in _ONE_OF if name in schema]
        here += _values(schema, "dependentSchemas")
        if "$ref" in schema:
            here.append(self._resolve(schema["$ref"]))
        node.here = [self._node(one) for one in here]
        node.steps += len(schema) + self._pattern(schema.get("pattern", ""))
        node.steps += 100 * ("multipleOf" in schema)
        node.steps += sum(len(msgspec.json.encode(schema[name])) // 4 for name in ("enum", "const") if name in schema)
        self._descend(node, schema)

    def _descend(self, node: _Node, schema: dict[str, Any]) -> None:
        named = [self._node(one) for one in _values(schema, "properties")]
        placed = [self._node(one) for one in schema.get("prefixItems", ())]
        for group, rest in ((named, "additionalProperties"), (placed, "items")):
            if rest in schema:
                group.append(self._node(schema[rest]))
            if group:
                node.below.append(group)
        node.below += [[self._node(schema[name])] for name in ("contains", "propertyNames") if name in schema]
        for pattern, one in schema.get("patternProperties", {}).items():
            node.below += [[self._node(one)], [_Node(level=1 + self._pattern(pattern))]]
        node.below += [[_Node(level=4)] for name in ("required", "dependentRequired", "uniqueItems") if name in schema]
        for name in ("$defs", "definitions"):  # what nobody refers to is compiled, too
            for one in _values(schema, name):
                self._node(one)

    def _pattern(self, pattern: str) -> int:
        chars = len(pattern)
        for least, most in _REPEATED.findall(pattern):
            chars *= max(int(least or 1), int(most or 1), 1)
        self._pattern_chars += chars
        if self._pattern_chars > _PATTERN_CHARS:
            raise _Unbounded
        return chars

    def _resolve(self, reference: str) -> Any:
        if reference != "#" and not reference.startswith("#/"):
            raise _Unbounded
        found = self._document
        for part in unquote(reference[1:]).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found.get(name)
        if not isinstance(found, (dict, bool)):
            raise _Unbounded
        return found


def _next_level(order: Sequence[_Node]) -> tuple[int, ...]:
    """Have each node know what it costs for a value that is one level further down, and return all of that."""
    costs = dict[int, int]()
    for node in order:
        below = sum(max(one.level for one in group) for group in node.below)
        costs[id(node)] = below + sum(costs[id(one)] for one in node.here)
        _check(costs[id(node)])
    for node in order:
        node.level = costs[id(node)]
        for group in node.below:
            for one in group:
                one.level = costs.get(id(one), 0)
    return tuple(costs.values())


def _check(count: int) -> None:
    if count > _STEPS:
        raise _Unbounded


def _values(schema: dict[str, Any], name: str) -> list[Any]:
    return list(schema.get(name, {}).values())
