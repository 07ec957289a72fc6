"""The composition of the API: settings in, a WSGI application out."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from threading import BoundedSemaphore
from typing import Any

from flask import Response, jsonify
from flask_smorest import Api

from app.core.crypto import Keyring
from app.core.db import libpq_url, make_engine, make_sessions
from app.core.events import JOB_CHANNEL
from app.core.live import Listener
from app.core.settings import Settings
from app.core.throttle import OneAtATime
from app.http import headers, limits, openapi, problems
from app.http.auth import Door
from app.http.streaming import Streams
from app.http.transaction import TransactionalFlask, outside, public
from app.jobs import agent_api as jobs_for_agents
from app.jobs import api as jobs
from app.jobs import files_api as files
from app.jobs.feeds import Feeds
from app.pipelines import api as pipelines
from app.pipelines.code import needed
from app.queues import api as queues
from app.resources import agent_api as resources_for_agents
from app.resources import api as resources
from app.resources import nodes
from app.scheduling import api as scheduling
from app.scheduling.fits import why_never
from app.storage import api as storage
from app.storage.checkpoints import Place
from app.tenancy import actors
from app.tenancy import api as tenancy
from app.tenancy.sessions import SignIns
from app.tenancy.tokens import AccessTokens

PREFIX = "/api/v1"
# Connections that requests leave to followers of logs, to files on their way, and to the reading of live logs.
KEPT_FREE = 4
# About what a question costs where there are a thousand nodes.
WHAT_IF_RETRY_S = 2.0
BLUEPRINTS = (
    *tenancy.BLUEPRINTS,
    queues.queues,
    resources.blp,
    jobs.blp,
    files.blp,
    *storage.BLUEPRINTS,
    *scheduling.BLUEPRINTS,
    pipelines.blp,
    resources_for_agents.blp,
    jobs_for_agents.blp,
)
StartResponse = Callable[..., Any]


class ShortPrefix:
    """`/v1/...` is the same address as `/api/v1/...`."""

    def __init__(self, app: Callable[[dict[str, Any], StartResponse], Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Rewrite the path, then go on as ever."""
        path = environ.get("PATH_INFO", "")
        if path.startswith("/v1/"):
            environ["PATH_INFO"] = f"/api{path}"
        return self._app(environ, start_response)


def create_app(settings: Settings) -> TransactionalFlask:
    """The application with every blueprint mounted under `/api/v1` (and so `/v1`)."""
    app = TransactionalFlask("trellis", static_folder=None)
    app.config.update(
        API_TITLE="Trellis",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        PROPAGATE_EXCEPTIONS=False,
        TRAP_HTTP_EXCEPTIONS=False,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    keyring = Keyring(settings.secret_key)
    engine = make_engine(settings)
    sessions = make_sessions(engine)
    place = Place.of(settings, keyring)
    app.extensions |= {
        "settings": settings,
        "keyring": keyring,
        "engine": engine,
        "sessions": sessions,
        "door": make_door(keyring),
        "sign_ins": SignIns(keyring),
        "what_if": OneAtATime(WHAT_IF_RETRY_S),
        "store": place.store,
        "checkpoints": place,
        "feeds": Feeds(sessions, Listener(libpq_url(settings.database_url), JOB_CHANNEL)),
        "streams": Streams(settings.streams),
        "turnstile": BoundedSemaphore(max(1, settings.database_pool - KEPT_FREE)),
        # Jobs lie below the scheduler, and ask it what it would say of one through this.
        "why_never": why_never,
        # And code lies below the jobs that run in it.
        "bundles_needed": needed,
    }
    api = Api(app)
    problems.install(app)  # after Api, which would put its own form of errors in place of ours
    limits.install(app, settings.max_body_bytes)
    headers.install(app)
    for blueprint in BLUEPRINTS:
        api.register_blueprint(blueprint, url_prefix=f"{PREFIX}{blueprint.url_prefix}")
    app.add_url_rule("/healthz", "healthz", outside(public(healthz)))
    openapi.install(app, api, PREFIX)
    app.wsgi_app = ShortPrefix(app.wsgi_app)  # type: ignore[method-assign]  # Flask's own way to wrap
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    return app


def make_door(keyring: Keyring) -> Door:
    """Every kind of credential there is, by its prefix; what has none is a JWT."""
    return Door(
        {
            actors.API_KEY_PREFIX: actors.by_api_key(keyring),
            nodes.NODE_PREFIX: partial(nodes.read_node_token, keyring),
            nodes.JOIN_PREFIX: partial(nodes.read_join_token, keyring),
            "": AccessTokens(keyring).authenticate,
        }
    )


def healthz() -> Response:
    """Alive; says nothing of the parts behind."""
    return jsonify(status="ok")
