"""Flower behind the platform's accounts: `celery -A tasks.flower flower --port 8421`.

Importing this module sets Flower's options: who is not signed in as a platform administrator sees nothing.
A session is a row in this process's memory, asked about again every RENEW_S; ending the process ends all.
"""

import json
import os
import secrets
from html import escape
from typing import Any, ClassVar

from flower.options import options
from flower.urls import handlers
from flower.views import BaseHandler
from flower.views.auth import get_next_url
from flower.views.monitor import Metrics
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse
from tornado.ioloop import IOLoop
from tornado.web import authenticated

from app.core.crypto import Keyring
from tasks.app import make_app
from tasks.settings import FlowerSettings
from trellis.settings import load

RENEW_S = 300.0
MOST_SESSIONS = 100
# Flower lets in whoever's name stands in `options.auth`, a list parted by bars; this name nobody can have.
NOBODY = "nobody@"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Trellis tasks: sign in</title>
<style>body{{font:16px system-ui;max-width:20em;margin:15vh auto}}label,input,button{{display:block;width:100%;
box-sizing:border-box;margin:.4em 0;padding:.4em;font:inherit}}label{{padding:0}}</style></head><body>
<h1>Trellis tasks</h1><p role="alert">{message}</p>
<form method="post">{xsrf}<input type="hidden" name="next" value="{next}">
<label>Username<input name="username" autocomplete="username" required autofocus></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button></form></body></html>"""


class Refused(Exception):
    """The API does not let this person in here; the text says why."""


class Accounts:
    """Asks the API who somebody is."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/auth"

    async def enter(self, username: str, password: str) -> str:
        """Sign in; the refresh token. Raises Refused for anybody but a platform administrator."""
        return await self._admitted("token", {"username": username, "password": password})

    async def renew(self, refresh_token: str) -> str:
        """Ask again whether they are one; the next refresh token. Raises Refused."""
        return await self._admitted("refresh", {"refresh_token": refresh_token})

    async def _admitted(self, path: str, body: dict[str, str]) -> str:
        session = _read(await self._fetch(path, method="POST", body=json.dumps(body)))
        headers = {"Authorization": f"Bearer {session['access_token']}"}
        if not _read(await self._fetch("whoami", headers=headers))["platform_admin"]:
            raise Refused("this page is for platform administrators")
        return str(session["refresh_token"])

    async def _fetch(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> HTTPResponse:
        try:
            return await AsyncHTTPClient().fetch(
                f"{self._url}/{path}", headers={"Content-Type": "application/json"} | (headers or {}),
                raise_error=False, follow_redirects=False, request_timeout=10, **options,
            )  # fmt: skip
        except (OSError, HTTPClientError) as error:  # refused, or no answer in time
            raise ApiSilent from error


class ApiSilent(Exception):
    """The API does not answer now."""


def _read(response: HTTPResponse) -> dict[str, Any]:
    if response.code in (502, 503):
        raise ApiSilent
    body: dict[str, Any] = json.loads(response.body or b"{}")
    if response.code != 200:
        raise Refused(str(body.get("detail", "the API refused")))
    return body


class Sessions:
    """Who is signed in here, kept in Flower's own `auth` option so that Flower itself checks it at each request."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._tokens: dict[str, str] = {}

    def open(self, username: str, refresh_token: str) -> str:
        """A new session; the value of its cookie."""
        name = f"{username}@{secrets.token_hex(16)}"
        self._tokens[name] = refresh_token
        while len(self._tokens) > MOST_SESSIONS:
            self._tokens.pop(next(iter(self._tokens)))
        self._tell_flower()
        IOLoop.current().call_later(RENEW_S, self._renew, name)
        return name

    async def _renew(self, name: str) -> None:
        if (token := self._tokens.get(name)) is None:
            return
        try:
            self._tokens[name] = await self._accounts.renew(token)
        except Refused:
            self._tokens.pop(name, None)
        except ApiSilent:
            pass  # asked again when it is back; what Flower shows comes from the broker alone
        self._tell_flower()
        IOLoop.current().call_later(RENEW_S, self._renew, name)

    def _tell_flower(self) -> None:
        options.auth = "|".join([NOBODY, *self._tokens])


class SignIn(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """The sign-in page, in place of those of other services."""

    sessions: ClassVar[Sessions]
    accounts: ClassVar[Accounts]

    def get(self) -> None:
        """Show the form."""
        self._show("")

    async def post(self) -> None:
        """Let in whom the API knows as a platform administrator."""
        username = self.get_body_argument("username", "")[:63]
        try:
            token = await self.accounts.enter(username, self.get_body_argument("password", "", strip=False))
        except Refused as refused:
            self.set_status(401)
            self._show(str(refused))
        except ApiSilent:
            self.set_status(503)
            self._show("the API does not answer: try again in a moment")
        else:
            self.set_secure_cookie("user", self.sessions.open(username, token), expires_days=None, samesite="Strict")
            self.redirect(get_next_url(self))

    def _show(self, message: str) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")
        target = escape(get_next_url(self), quote=True)
        self.finish(PAGE.format(message=escape(message), xsrf=self.xsrf_form_html(), next=target))


class ClosedMetrics(Metrics):  # type: ignore[misc]  # Flower has no types
    """Flower shows its metrics to anybody; the names of tasks and workers are nobody's business."""

    @authenticated
    async def get(self) -> None:
        """Show the metrics."""
        await super().get()


def _install(settings: FlowerSettings) -> None:
    keyring = Keyring(settings.secret_key)
    SignIn.accounts = Accounts(settings.public_url)
    SignIn.sessions = Sessions(SignIn.accounts)
    options.address = "127.0.0.1"
    options.cookie_secret = keyring.key("flower").hex()
    options.auth = NOBODY
    options.auth_provider = "tasks.flower.SignIn"
    handlers[handlers.index(("/metrics", Metrics))] = ("/metrics", ClosedMetrics)


_settings = load(FlowerSettings, os.environ)
app = make_app(_settings.broker_url)
_install(_settings)
