"""The bound on the work of a schema: it is there for what ordinary models are, and missing where work multiplies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, Field, create_model

from dormice.engine.runs.schema_cost import steps


class Tree(BaseModel):
    """Recursive, by name and by list."""

    name: Annotated[str, Field(pattern="^[a-z]+$", max_length=9)]
    children: list[Tree] = []
    other: Tree | None = None
    marks: dict[str, int] = {}


class Leaf(BaseModel):
    """One of two."""

    kind: Literal["leaf"]


class Node(BaseModel):
    """The other one, with more of both."""

    kind: Literal["node"]
    left: Annotated[Node | Leaf, Field(discriminator="kind")]
    right: Annotated[Node | Leaf, Field(discriminator="kind")]


WIDE = create_model("Wide", **dict.fromkeys((f"field_{one}" for one in range(60)), (str | int | None, None)))  # type: ignore[call-overload]


@pytest.mark.parametrize("model", [Tree, Node, WIDE])
def test_ordinary_models_cost_little_at_every_value(model: type[BaseModel]) -> None:
    found = steps(msgspec.json.encode(model.model_json_schema()))
    assert found is not None
    assert found < 100


FAN: dict[str, Any] = {
    "$defs": {
        **{f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(20)},
        "d20": {},
    },
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(FAN, id="more with each reference"),
        pytest.param({"allOf": [{"items": {"$ref": "#"}}] * 2}, id="more with each level of the document"),
        pytest.param(
            {"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"additionalProperties": {"$ref": "#"}}]}, id="by two ways"
        ),
        pytest.param({"not": {"$ref": "#"}}, id="a circle"),
        pytest.param({"$anchor": "a", "items": {"$ref": "#a"}}, id="a name"),
        pytest.param({"$dynamicRef": "#a"}, id="a dynamic reference"),
        pytest.param({"items": {"unevaluatedProperties": False}}, id="what others have left"),
        pytest.param({"pattern": "(a{100}){100}"}, id="a repetition"),
        pytest.param({"$defs": {"a": {"pattern": "a{1001}"}}}, id="a repetition that nobody refers to"),
        pytest.param({"properties": []}, id="no schema"),
        pytest.param({"description": "x" * 20_000}, id="a long one"),
    ],
)
def test_there_is_no_bound_where_work_multiplies(schema: object) -> None:
    assert steps(msgspec.json.encode(schema)) is None
