"""Who may reach the page: addresses, logins, hosts, origins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rows import every_row
from sd_lora.webui.access import Guard, check_address, is_loopback

from sd_lora import ConfigError

ME = ("127.0.0.1", 5000)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_loopback_addresses_need_no_login(host: str) -> None:
    assert is_loopback(host)
    assert check_address(host, "") is None


@every_row("host", ["0.0.0.0", "::", "192.168.1.4", "example.com", "", "127.0.0.1.example.com", "localhost."])
def test_every_other_address_needs_a_login(host: str) -> None:
    with pytest.raises(ConfigError, match="add --auth USER:PASSWORD"):
        check_address(host, "")
    login = check_address(host, "ann:secret:word")
    assert login is not None
    assert login("ann", "secret:word")
    assert not any(
        login(*words) for words in (("ann", "secret"), ("Ann", "secret:word"), ("", ""), ("ann", ""), ("ä", "ö"))
    )


@pytest.mark.parametrize("auth", ["ann", ":", "ann:", ":word"])
def test_a_login_without_name_or_password_is_refused(auth: str) -> None:
    with pytest.raises(ConfigError, match="USER:PASSWORD"):
        check_address("127.0.0.1", auth)


class Server:
    """A guard before an app that answers 200 to everything."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.guard = Guard(self.answer, host)

    @staticmethod
    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def ask(self, method: str = "GET", path: str = "/", client: tuple[str, int] = ME, **headers: str) -> int:
        given = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http", "method": method, "path": path, "client": client,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, None, send))
        return int(sent[0]["status"]) if sent[0]["type"] == "http.response.start" else 0


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860", "192.168.1.4:80"])
def test_addresses_and_this_machines_names_are_known(host: str) -> None:
    assert Server().ask(host=host) == 200


@every_row(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "a b",
     "127.0.0.1@evil.example:80x", "evil.example#127.0.0.1", "127.0.0.1:80:evil", "0x7f000001.evil", "%31", "\xff"],
)  # fmt: skip
def test_other_hosts_are_refused(host: str) -> None:
    assert Server().ask(host=host) == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1:7860", 200), ("http://localhost:7860", 403), ("https://evil.example", 403), ("null", 403),
     ("http://127.0.0.1:7860.evil.example", 403), ("http://127.0.0.1:9", 403)],
)  # fmt: skip
def test_only_the_pages_own_origin_may_post(origin: str, status: int) -> None:
    assert Server().ask("POST", "/gradio_api/run/preview", origin=origin) == status
    assert Server().ask("GET", "/", origin=origin) == 200


def test_a_cross_site_post_without_an_origin_is_refused() -> None:
    assert Server().ask("POST", "/gradio_api/upload", sec_fetch_site="cross-site") == 403
    assert Server().ask("POST", "/gradio_api/upload", sec_fetch_site="same-origin") == 200


def test_passwords_cannot_be_tried_for_long() -> None:
    server = Server()
    assert [server.ask("POST", "/login") for _ in range(12)] == [200] * 10 + [429] * 2
    assert server.ask("POST", "/login", client=("10.0.0.9", 1)) == 200
    assert server.ask("GET", "/") == 200
    assert server.ask("POST", "/login/") == 429


def test_large_bodies_are_for_uploads_only() -> None:
    assert Server().ask("POST", "/gradio_api/run/preview", content_length=str(21 * 2**20)) == 413
    assert Server().ask("POST", "/gradio_api/upload", content_length=str(21 * 2**20)) == 200


def test_a_websocket_of_a_foreign_host_is_closed() -> None:
    guard, sent = Guard(Server.answer, "127.0.0.1"), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"evil.example")], "client": ME}
    asyncio.run(guard(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(("path", "most"), [("/gradio_api/run/preview", 20 * 2**20), ("/login", 64 * 2**10)])
def test_a_body_of_unknown_length_is_read_only_up_to_the_limit(path: str, most: int) -> None:
    read, sent = 0, list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    async def receive() -> Any:
        nonlocal read
        read += 2**16
        return {"type": "http.request", "body": b"x" * 2**16, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"host", b"127.0.0.1")], "client": ME}
    asyncio.run(Guard(app, "127.0.0.1")(scope, receive, send))
    assert sent[0]["status"] == 413
    assert read <= most + 2**16
