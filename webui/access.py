"""Who may reach the page: without a login this machine only, known hosts and origins only, and no guessing."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

from sd_lora.errors import ConfigError

_TRIES, _WINDOW = 10, 60.0
#: the largest body of an upload, of any other request, and of a login
_LARGEST_UPLOAD, _LARGEST_BODY, _LARGEST_LOGIN = 512 * 2**20, 20 * 2**20, 64 * 2**10


def check_address(host: str, auth: str) -> Callable[[str, str], bool] | None:
    """The check of logins by `auth`, "USER:PASSWORD". ConfigError if other machines could reach `host` without one."""
    user, _, password = auth.partition(":")
    if auth and not (user and password):
        raise ConfigError("--auth is USER:PASSWORD, with neither of them empty")
    if not auth:
        if not is_loopback(host):
            raise ConfigError(
                f"{host} can be reached from other machines; add --auth USER:PASSWORD, or leave --host out"
            )
        return None
    expected = (user.encode(), password.encode())

    def login(name: str, word: str) -> bool:
        same = [hmac.compare_digest(a, b.encode()) for a, b in zip(expected, (name, word), strict=True)]
        return all(same)

    return login


def check_port(host: str, port: int) -> None:
    """ConfigError if the page cannot listen on `port` of `host`; 0 is any free port."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            if os.name == "posix":  # a port that a page has just left is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is taken by another program, perhaps by another page; choose one with --port, such as "
                f"--port {port + 1 if port < 65535 else 7861}, or any free one with --port 0"
            ) from error
        raise ConfigError(
            f"the page cannot listen on {host}, port {port} ({error.strerror or error}); choose others with --host and "
            "--port"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _TooLarge(Exception):
    """A body is larger than allowed."""


class Guard:
    """ASGI middleware that refuses: a Host that is neither an address, this machine's name nor `host`, since a foreign
    site could point its name here; requests from other sites' pages; more than ten logins per minute from one address;
    and bodies that are too large."""

    def __init__(self, app: Any, host: str) -> None:
        self._app = app
        self._hosts = {"localhost", host.lower(), socket.gethostname().lower()}
        self._logins: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None:
            await self._with_limit(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(refused[1], refused[0])(scope, receive, send)

    def _refused(self, scope: Any) -> tuple[int, str] | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_known(host):
            return 400, "unknown host"
        origin = headers.get(b"origin", b"").decode("latin-1")
        method = scope.get("method")
        is_foreign = origin and method != "GET" and urlsplit(origin).netloc.lower() != host.lower()
        if is_foreign or (headers.get(b"sec-fetch-site") == b"cross-site" and method not in ("GET", "HEAD")):
            return 403, "request of another site"
        if scope["path"].rstrip("/").endswith("/login") and method == "POST" and self._has_tried_too_often(scope):
            return 429, "too many logins; wait a minute"
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > _largest(scope):
            return 413, "too large"
        return None

    async def _with_limit(self, scope: Any, receive: Any, send: Any) -> None:
        """Continue, but read no more than is allowed from a body of unknown length."""
        remaining, answered = _largest(scope), False

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

    def _is_known(self, host: str) -> bool:
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

    def _has_tried_too_often(self, scope: Any) -> bool:
        """Count a login; whether there were too many from its address."""
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


def _largest(scope: Any) -> int:
    """How many bytes the body of a request can have."""
    path = scope["path"].rstrip("/")
    if path.endswith("/login"):
        return _LARGEST_LOGIN
    return _LARGEST_UPLOAD if path in ("/upload", "/gradio_api/upload") else _LARGEST_BODY
