"""Lists at the edge: the parameters every list takes, and the shape of its answer."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from flask import current_app, request
from marshmallow import Schema, fields

from app.core.paging import LARGEST_PAGE, PageRequest, Sort
from app.http.schema import QueryInteger, Strict, Text
from app.http.transaction import current_uow
from trellis.errors import Field, Invalid

DEFAULT_PAGE = 50
_OF_THE_PAGE = ("limit", "cursor", "sort")


class PageQuery(Strict):
    """Parameters of every list; one with filters adds its own."""

    limit = QueryInteger(
        least=1, most=LARGEST_PAGE, metadata={"description": f"rows a page, {DEFAULT_PAGE} if not said"}
    )
    cursor = Text(longest=1000, metadata={"description": "next_cursor of the page before"})
    sort = Text(longest=40, metadata={"description": "a field; with - before it from the largest down"})


def page_request(query: Mapping[str, Any], sorts: Mapping[str, Sort], default: str) -> PageRequest:
    """Which page the loaded `query` asks for. The cursor is tied to the path, the filters, the order and the actor.

    Raises: Invalid for an order that is not in `sorts`.
    """
    order = query.get("sort", default)
    if order not in sorts:
        raise Invalid(Field("/sort", f"must be one of {', '.join(sorts)}"))
    filters = {name: value for name, value in query.items() if name not in _OF_THE_PAGE}
    actor_id = current_uow().actor.id
    scope = json.dumps([request.endpoint, request.view_args, order, filters, actor_id], default=str, sort_keys=True)
    key = current_app.extensions["keyring"].key("cursor")
    return PageRequest(query.get("limit", DEFAULT_PAGE), query.get("cursor"), sorts[order], scope, key)


@cache
def page_of(item: type[Schema]) -> type[Schema]:
    """The schema of a list's answer: `{"items": [...], "next_cursor": ...}`."""
    name = f"{item.__name__.removesuffix('Schema')}PageSchema"
    return Schema.from_dict({"items": fields.List(fields.Nested(item)), "next_cursor": fields.String()}, name=name)
