"""Who may reach the page: loopback only unless there is a login, known hosts and origins only, and no guessing."""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from sd_lora.errors import ConfigError

_TRIES, _WINDOW = 10, 60.0
#: the largest body of an upload, of any other request, and of a login
_LARGEST_UPLOAD, _LARGEST_BODY, _LARGEST_LOGIN = 512 * 2**20, 20 * 2**20, 64 * 2**10


def check_address(host: str, auth: str) -> Callable[[str, str], bool] | None:
    """The login that `auth`, "USER:PASSWORD", asks for. ConfigError if others could reach `host` without one."""
    user, _, password = auth.partition(":")
    if auth and not (user and password):
        raise ConfigError("--auth is USER:PASSWORD, with neither of them empty")
    if not auth:
        if not is_loopback(host):
            raise ConfigError(
                f"{host} can be reached from other machines; add --auth USER:PASSWORD, or leave --host out"
            )
        return None
    wanted = (user.encode(), password.encode())

    def login(name: str, word: str) -> bool:
        same = [hmac.compare_digest(a, b.encode()) for a, b in zip(wanted, (name, word), strict=True)]
        return all(same)

    return login


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _TooLarge(Exception):
    """More came than is allowed."""


class Guard:
    """ASGI middleware. A Host that is neither an address, this machine's name nor what was asked for is refused, lest a
    foreign site point its own name here; so is a request that another site's page sends; so are more than ten logins a
    minute from one address, and bodies that are too large."""

    def __init__(self, app: Any, host: str) -> None:
        self._app = app
        self._hosts = {"localhost", host.lower(), socket.gethostname().lower()}
        self._logins: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    @classmethod
    def stack(cls, host: str) -> list[Middleware]:
        """The middleware for a server on `host`."""
        return [Middleware(cls, host=host)]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None:
            await self._limited(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(refused[1], refused[0])(scope, receive, send)

    def _refused(self, scope: Any) -> tuple[int, str] | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._knows(host):
            return 400, "unknown host"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and scope.get("method") != "GET" and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "another site's request"
        if headers.get(b"sec-fetch-site") == b"cross-site" and scope.get("method") not in ("GET", "HEAD"):
            return 403, "another site's request"
        if scope["path"].rstrip("/").endswith("/login") and scope.get("method") == "POST" and self._guesses(scope):
            return 429, "too many logins; wait a minute"
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > _most(scope):
            return 413, "too large"
        return None

    async def _limited(self, scope: Any, receive: Any, send: Any) -> None:
        """Go on, but read no more than is allowed of a body that did not say how long it is."""
        remaining, answered = _most(scope), False

        async def received() -> Any:
            nonlocal remaining
            message = await receive()
            remaining -= len(message.get("body", b""))
            if remaining < 0:
                raise _TooLarge
            return message

        async def sent(message: Any) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, received, sent)
        except _TooLarge:
            if not answered:
                await PlainTextResponse("too large", 413)(scope, receive, send)

    def _knows(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.netloc != host or "@" in host:
            return False
        if name.lower() in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _guesses(self, scope: Any) -> bool:
        """Note a login; whether there were too many."""
        address, now = (scope.get("client") or ("?",))[0], time.monotonic()
        with self._lock:
            tries = self._logins.setdefault(address, deque())
            while tries and now - tries[0] > _WINDOW:
                tries.popleft()
            if len(tries) >= _TRIES:
                return True
            tries.append(now)
            if len(self._logins) > 10_000:
                self._logins = {address: tries}
            return False


def _most(scope: Any) -> int:
    """How many bytes the body of a request may have."""
    path = scope["path"].rstrip("/")
    if path.endswith("/login"):
        return _LARGEST_LOGIN
    return _LARGEST_UPLOAD if path in ("/upload", "/gradio_api/upload") else _LARGEST_BODY
