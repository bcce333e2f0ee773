"""Captioning models: every kind describes images offline and always alike; what is not safe or whole is refused."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_captioners import KINDS, WORDS, write_captioner

from sd_lora.errors import BaseModelError
from sd_lora.models import captioner as captioner_module
from sd_lora.models.captioner import Captioner


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("captioners")
    return {kind: write_captioner(kind, home / kind) for kind in KINDS}


@pytest.fixture
def model(models: dict[str, Path], tmp_path: Path) -> Path:
    """A BLIP of the test's own."""
    return shutil.copytree(models["blip"], tmp_path / "model")


def opened(folder: Path | str, revision: str = "") -> Captioner:
    return Captioner.open(str(folder), revision, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_describes_images_offline_and_always_alike(
    kind: str, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a folder needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    captioner = opened(models[kind])
    images = [Image.new("RGB", (50, 20), "red"), Image.linear_gradient("L").convert("RGB")]
    torch.manual_seed(1)
    said = captioner.describe(images)
    assert len(said) == 2
    for text in said:
        words = text.replace(".", "").replace(",", "").replace("?", "").split()
        assert words
        assert set(words) <= set(WORDS.split()[5:]) | {"image"}
    torch.manual_seed(2)
    assert said[0] != said[1]
    assert opened(models[kind]).describe(images) == said
    assert [captioner.describe([image])[0] for image in images] == said


def test_florence_is_asked_for_a_detailed_caption(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = opened(models["florence2"])
    seen: list[Any] = []
    generate = captioner._model.generate

    def watched(**inputs: Any) -> Any:
        seen.append(inputs)
        return generate(**inputs)

    monkeypatch.setattr(captioner._model, "generate", watched)
    captioner.describe([Image.new("RGB", (32, 32))])
    asked = captioner._tokenizer.decode(seen[0]["input_ids"][0], skip_special_tokens=True)
    assert asked.startswith("describe in detail what is shown in the image")
    assert seen[0]["do_sample"] is False


def _to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _edit(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")

    return edit


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _fewer_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("vision_model.encoder.layers.0.mlp.fc1.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _damage(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(b"{")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_to_pickle, "pickles can run code and are never loaded"),
        (_edit(auto_map={"AutoModel": "own.Model"}), "its own code, which is never run"),
        (_edit(model_type="llava"), "of the kind llava, which is not supported"),
        (_edit(model_type=None), "of the kind \\(none given\\)"),
        (_without("config.json"), "has no config.json"),
        (_damage("config.json"), "unreadable config.json"),
        (_fewer_weights, "lacks 1 of its weights, such as vision_model.encoder.layers.0.mlp.fc1.weight"),
        (_damage("model.safetensors"), "cannot be loaded"),
        (_without("tokenizer.json"), "has 5 words in its tokenizer but knows 30"),
        (_without("processor_config.json"), "cannot be loaded"),
    ],
)
def test_a_model_that_is_not_whole_or_not_safe_is_refused(
    spoil: Callable[[Path], None], said: str, model: Path
) -> None:
    spoil(model)
    (model / "own.py").write_text("raise SystemExit('ran')", "utf-8")
    with pytest.raises(BaseModelError, match=said) as caught:
        opened(model)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"), [("nowhere", "does not exist"), ("a/b/c", "does not exist"), ("file", "is a file")]
)
def test_what_is_no_model(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BaseModelError, match=said):
        opened(name)


def test_a_revision_of_a_folder_has_no_effect(model: Path) -> None:
    with pytest.raises(BaseModelError, match='"v1" has no effect'):
        opened(model, "v1")


def test_a_hub_model_is_fetched_without_pickles_and_only_if_it_is_supported(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[tuple[str, str, list[str]]] = []

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.append((repo, revision or "", allow_patterns))
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert opened("owner/name", "v1").describe([Image.new("RGB", (32, 32))])
    assert fetched[0] == ("owner/name", "v1", ["config.json"])
    assert fetched[1][:2] == ("owner/name", model.name)
    assert not any(pattern.endswith((".bin", ".py", "*", ".pt")) for pattern in fetched[1][2])
    _edit(model_type="llava")(model)
    with pytest.raises(BaseModelError, match="llava"):
        opened("owner/name")
    assert len(fetched) == 3


def test_a_hub_model_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repo, **options: real(repo, **options, cache_dir=tmp_path, local_files_only=True),
    )
    with pytest.raises(BaseModelError, match="is not in the local cache, and the hub cannot be reached"):
        opened("owner/name")


def test_nothing_but_safetensors_is_fetched() -> None:
    assert {Path(pattern).suffix for pattern in captioner_module._FILES} == {".json", ".txt", ".model", ".safetensors"}
