"""What a request may weigh and how it may be packed."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Flask, Request, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from app.http import strict_json

V = TypeVar("V", bound=Callable[..., Any])


class StrictRequest(Request):
    """A request whose JSON is read strictly, whoever reads it."""

    json_module: Any = strict_json

    def get_data(self, *args: Any, **options: Any) -> Any:
        """The body. Raises RequestEntityTooLarge where it would go on beyond the limit."""
        body = super().get_data(*args, **options)
        # Of a chunked body that is too long, Werkzeug hands out the part within the limit as if it were the whole.
        if self.content_length is None and self.max_content_length is not None and len(body) >= self.max_content_length:
            raise RequestEntityTooLarge
        return body


def install(app: Flask, most_bytes: int) -> None:
    """Refuse bodies over `most_bytes`, chunked ones too (413), and packed ones (415).

    A view that takes more sets `request.max_content_length` before it reads.
    """
    app.request_class = StrictRequest
    app.config["MAX_CONTENT_LENGTH"] = most_bytes
    app.before_request(_refuse_packed)


def _refuse_packed() -> None:
    # A kilobyte can unpack to gigabytes, and no client of ours packs its requests.
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without a Content-Encoding")


def takes(most_bytes: int) -> Callable[[V], V]:
    """For a view whose body may be larger than others'. Goes above whatever reads it."""

    def decorate(view: V) -> V:
        @wraps(view)
        def with_room(*arguments: Any, **named: Any) -> Any:
            request.max_content_length = most_bytes
            return view(*arguments, **named)

        return cast("V", with_room)

    return decorate
