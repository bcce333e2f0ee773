"""The page in its own process, as users start it, and callers that use it like browsers and programs."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

_READY = re.compile(r"sd_lora is at (http://\S+)")
PATIENCE = 180.0


@dataclass
class Served:
    """A running page: its `address`, its process, and what it has printed."""

    address: str
    process: subprocess.Popen[str]
    printed: list[str] = field(default_factory=list)

    def client(self, **settings: Any) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=PATIENCE, **settings)


@contextmanager
def served(runs: Path, *options: str, base: str = "tiny", env: dict[str, str] | None = None) -> Iterator[Served]:
    """``sd-lora webui`` on any free port, for the length of a ``with`` block."""
    command = [sys.executable, "-P", "-m", "sd_lora", "webui", "--base", base, "--runs", str(runs), "--port", "0"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {}),
    )  # fmt: skip
    page, ready = Served("", process), threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            page.printed.append(line)
            match = _READY.search(line)
            if match:
                page.address = match[1].rstrip("/")
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert ready.wait(PATIENCE), "the page did not start"
        assert page.address, "".join(page.printed)
        yield page
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def post(client: httpx.Client, name: str, data: Sequence[Any]) -> Any:
    """Call an endpoint directly; returns its result."""
    answer = client.post(f"/gradio_api/run/{name}", json={"data": list(data)})
    answer.raise_for_status()
    return answer.json()["data"][0]


class Visitor:
    """An open page: it joins the queue as a browser's button does."""

    def __init__(self, client: httpx.Client) -> None:
        self.client, self.session = client, uuid.uuid4().hex[:12]
        config = client.get("/config").json()
        self._ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
        self._events = config["dependencies"]

    def press(self, button: str, outputs: int, data: Sequence[Any], event: str = "click") -> list[Any]:
        """The last output of the `event` of `button` that has that many `outputs`."""
        mine = [
            each for each in self._events
            if [self._ids[button], event] in each["targets"] and len(each["outputs"]) == outputs
        ]  # fmt: skip
        assert len(mine) == 1
        body = {"data": list(data), "fn_index": mine[0]["id"], "session_hash": self.session}
        joined = self.client.post("/gradio_api/queue/join", json=body)
        joined.raise_for_status()
        answered, last = joined.json()["event_id"], list[Any]()
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message.get("event_id") == answered and message["msg"] == "process_completed":
                    assert message["success"], message["output"]
                    return message["output"]["data"] or last
                if message.get("event_id") == answered and message["msg"] == "process_generating":
                    last = _patched(last, message["output"]["data"])
        raise AssertionError("the queue ended without an answer")

    def picture(self, shown: Any) -> bytes:
        """The pixels of a picture that is shown."""
        file = shown.get("image", shown)
        return pixels(self.client.get(f"/gradio_api/file={file['path']}").content)


def _patched(last: list[Any], change: list[Any]) -> list[Any]:
    """Outputs after applying the differences that the queue sends from the second update on."""
    if not last:
        return change
    from gradio_client.utils import apply_diff

    return [apply_diff(old, new) if isinstance(new, list) else new for old, new in zip(last, change, strict=True)]


def pixels(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGB").tobytes()


def until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
