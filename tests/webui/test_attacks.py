"""What a hostile visitor tries: private files, foreign hosts, routes without a login, uploads with odd names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from rows import every_row
from serving import Served, served

pytestmark = pytest.mark.slow
MARK = "the-secret-of-this-machine"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A secret beside the runs, and one inside a run, which no visitor may read there."""
    home = tmp_path_factory.mktemp("attacked")
    for place in ("secret.txt", "runs/ink/config.toml", "runs/ink/log.jsonl", "data/photos/01.txt"):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_text(f"# {MARK}\n")
    return home


@pytest.fixture(scope="module")
def page(home: Path, random_sd_folder: Path) -> Iterator[Served]:
    with served(home / "runs", "--data", str(home / "data"), base=str(random_sd_folder)) as running:
        yield running


@pytest.fixture(scope="module")
def locked(home: Path, random_sd_folder: Path) -> Iterator[Served]:
    with served(home / "runs", "--auth", "ann:secret-word", base=str(random_sd_folder)) as running:
        yield running


@pytest.fixture
def client(page: Served) -> Iterator[httpx.Client]:
    with page.client() as opened:
        yield opened
    assert page.process.poll() is None
    ours = [line for line in page.printed if "File " in line and ("/webui/" in line or "/service/" in line)]
    assert ours == []  # Gradio's own refusals leave tracebacks in its log


def leaks(answer: httpx.Response) -> bool:
    return MARK in answer.text or "root:" in answer.text


# ---- reading files


def spellings(path: str) -> list[str]:
    """One path in the spellings that have bypassed guards."""
    return [
        path, quote(path, safe=""), quote(quote(path, safe=""), safe=""), f"/.{path}", f"//{path.lstrip('/')}",
        f"file://{path}", f"{path}%00.png", f"{path}/.", path.replace("/", "\\"), f"/tmp/../..{path}",
        f"..%2f..%2f..%2f..{quote(path, safe='')}", f"%2e%2e/%2e%2e/%2e%2e/%2e%2e{path}", f"/proc/self/root{path}",
    ]  # fmt: skip


PLACES = ("secret.txt", "runs/ink/config.toml", "data/photos/01.txt", "/etc/passwd")
ROUTES = ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/", "/custom_component/x/server/y/")


@every_row("route, number, place", product(ROUTES, range(13), PLACES[:2]))
def test_no_file_is_read_in_place(client: httpx.Client, home: Path, route: str, number: int, place: str) -> None:
    answer = client.get(route + spellings(str(home / place))[number])
    assert answer.status_code >= 400 or not leaks(answer)
    assert not leaks(answer)


@every_row("place, shape", product(PLACES, ["data", "nested", "url", "stream"]))
def test_no_event_reads_a_file_that_a_visitor_names(client: httpx.Client, home: Path, place: str, shape: str) -> None:
    path = place if place.startswith("/") else str(home / place)
    file: Any = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    file = {
        "data": file, "nested": [file], "url": file | {"url": f"file://{path}", "path": "x"},
        "stream": file | {"is_stream": True},
    }[shape]  # fmt: skip
    config = client.get("/config").json()
    for event in config["dependencies"]:
        body = {"data": [file] * len(event["inputs"]), "fn_index": event["id"], "session_hash": "attack"}
        direct = client.post(f"/gradio_api/run/{event['api_name'] or event['id']}", json=body)
        assert not leaks(direct)
    for name in ("preview", "adapters"):
        answer = client.post(f"/gradio_api/run/{name}", json={"data": [[file], [path], "1", 0, 1, 1.0, 0, 0, ""]})
        assert not leaks(answer)


@every_row("identity", ["../secret.txt", "/etc/passwd", "ink", "..", ".", "", "\0", "%2e%2e", "a" * 10_000, "<script>"])
def test_a_path_is_not_an_id(client: httpx.Client, identity: str) -> None:
    data = [["a boat"], [identity], "1", 0, 1, 1.0, 0, 0, ""]
    answer = client.post("/gradio_api/run/preview", json={"data": data})
    assert answer.status_code >= 400
    assert "no longer exists" in answer.text


# ---- other sites


HOSTS = ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80"]


@every_row("path, host", product(["/", "/config", "/gradio_api/info", "/gradio_api/run/adapters"], HOSTS))
def test_a_foreign_name_for_this_machine_is_refused(client: httpx.Client, path: str, host: str) -> None:
    assert client.get(path, headers={"host": host}).status_code == 400


ORIGINS = ["https://evil.example", "null", "http://127.0.0.1:1"]


@every_row("origin, path", product(ORIGINS, [f"/gradio_api/{end}" for end in ("run/adapters", "queue/join", "upload")]))
def test_another_sites_page_cannot_post(client: httpx.Client, origin: str, path: str) -> None:
    assert client.post(path, json={"data": []}, headers={"origin": origin}).status_code == 403


# ---- uploads


@every_row(
    "name", ["../../evil.png", "/etc/cron.d/evil", "..\\evil.png", ".hidden", "a" * 400 + ".png", "con.png", "a\nb.png"]
)
def test_an_upload_stays_in_the_private_folder(client: httpx.Client, home: Path, name: str) -> None:
    before = set(home.rglob("*"))
    answer = client.post("/gradio_api/upload", files={"files": (name, b"x", "image/png")})
    assert set(home.rglob("*")) == before
    if answer.status_code < 400:
        (path,) = answer.json()
        assert "sd-lora-page-" in path
        assert ".." not in Path(path).parts


def test_a_large_upload_is_refused(client: httpx.Client) -> None:
    answer = client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * (51 * 2**20), "image/png")})
    assert answer.status_code >= 400


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.xhtml", "a.js"])
def test_an_uploaded_page_is_not_shown_as_one(client: httpx.Client, name: str) -> None:
    answer = client.post("/gradio_api/upload", files={"files": (name, b"<script>1</script>", "text/html")})
    (path,) = answer.json()
    shown = client.get(f"/gradio_api/file={path}")
    inline = "attachment" not in shown.headers.get("content-disposition", "")
    kind = shown.headers.get("content-type", "")
    assert shown.status_code >= 400 or not (inline and ("html" in kind or "svg" in kind or "javascript" in kind))


# ---- without a login


@every_row(
    "method, path",
    [("GET", "/config"), ("GET", "/gradio_api/info"), ("GET", "/gradio_api/queue/data?session_hash=x"),
     ("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/run/adapters"), ("POST", "/gradio_api/run/preview"),
     ("POST", "/gradio_api/call/preview"), ("POST", "/gradio_api/upload"), ("GET", "/gradio_api/file=/etc/passwd"),
     ("POST", "/gradio_api/reset"), ("POST", "/gradio_api/cancel"), ("POST", "/gradio_api/component_server"),
     ("GET", "/monitoring"), ("GET", "/gradio_api/queue/status"),
     ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/gradio_api/dev/reload")],
)  # fmt: skip
def test_no_route_answers_without_a_login(locked: Served, method: str, path: str) -> None:
    with locked.client() as client:
        answer = client.request(method, path, **({"json": {"data": []}} if method == "POST" else {}))
    assert answer.status_code in (401, 403, 404, 405, 422), (path, answer.status_code, answer.text[:200])
    assert "adapters" not in answer.text.lower()


def test_the_login_lets_in_and_wrong_passwords_do_not(locked: Served) -> None:
    with locked.client() as client:
        wrong = client.post("/login", data={"username": "ann", "password": "guess"})
        assert wrong.status_code == 400
        assert client.get("/config").status_code == 401
        assert client.post("/login", data={"username": "ann", "password": "secret-word"}).status_code == 200
        assert client.get("/config").status_code == 200


# ---- nonsense


@every_row(
    "body", [b"", b"{", b"[]", b"null", b'{"data": null}', b'{"data": {}}', b'{"data": [[[[]]]]}', b"\xff" * 100,
             json.dumps({"data": [["a"] * 100_000, [], "1", 0, 1, 1.0, 0, 0, ""]}).encode(),
             json.dumps({"data": [["a"], [], "9" * 100_000, 0, 1, 1.0, 0, 0, ""]}).encode(),
             json.dumps({"data": [["a"], [], "1", 1e400, 1, 1.0, 0, 0, ""]}).encode(),
             json.dumps({"data": [["a"], [], "1", 0, 1, "x", 0, 0, {}]}).encode()],
)  # fmt: skip
def test_nonsense_is_refused_and_the_next_call_works(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/gradio_api/run/preview", content=body, headers={"content-type": "application/json"})
    assert answer.status_code >= 400
    fine = client.post("/gradio_api/run/preview", json={"data": [["a boat"], [], "1", 0, 1, 1.0, 0, 0, ""]})
    assert fine.status_code == 200
