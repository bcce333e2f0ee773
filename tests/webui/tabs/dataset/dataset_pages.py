"""What the tests of the Dataset tab share: uploads, what is shown, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sd_lora.webui.tabs.dataset import upload as dataset_upload
from sd_lora.webui.tabs.dataset.drafts import Visit

import sd_lora

SCRIPT, HOSTILE = '<script>alert(1)</script> & "x"', "<img src=x onerror=alert(1)>.png"
Write = Callable[..., Path]


def count(text: str) -> tuple[int, int]:
    return len(text.split()) + 2, 8


def opened(tab: Any, name: str = "ink") -> tuple[str, Visit, dict[Any, Any]]:
    """A dataset is chosen, and so checked: its id, the visit and the last updates."""
    identity, visit = dict(tab.site.dataset_choices())[name], Visit()
    return identity, visit, chosen(tab, identity, visit)


def chosen(tab: Any, identity: str, visit: Visit, name: str = "", text: str = "") -> dict[Any, Any]:
    """All updates when a dataset is chosen while `text` is in the field of another's picture called `name`."""
    updates: dict[Any, Any] = {}
    for update in tab.on_choose(identity, visit, name, text, ""):
        updates |= update
    return updates


def value(update: Any) -> Any:
    return update["value"] if isinstance(update, dict) else update


def png(path: Path, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize(size).save(path, "PNG")
    return path


def uploads(tmp_path: Path, *names: str | tuple[str, bytes]) -> list[str]:
    """Uploaded files, each in its own folder, as Gradio keeps them."""
    files = []
    for number, given in enumerate(names):
        name, content = given if isinstance(given, tuple) else (given, None)
        path = tmp_path / "uploads" / str(number) / name
        png(path)
        if content is not None or path.suffix in dataset_upload.TEXTS:
            path.write_bytes(b"a cat" if content is None else content)
        files.append(str(path))
    return files


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(updates: Callable[[], Any]) -> str:
    with pytest.raises(sd_lora.SdLoraError) as caught:
        list(updates() or ())
    assert str(caught.value).isprintable()
    return str(caught.value)
