"""A made-up vocabulary as large as CLIP's, and the tiny bases with it, also as single checkpoint files."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_bases import UNET_KINDS as KINDS
from small_bases import write_base

SIZE = 49_408


def letters() -> list[str]:
    """The 256 bytes as GPT-2 and CLIP write them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in plain] + [chr(256 + i) for i in range(256 - len(plain))]


@pytest.fixture(scope="session")
def merges() -> list[tuple[str, str]]:
    """48,894 merges of two letters each, in an order of its own: the last letters first."""
    pairs = itertools.product(reversed(letters()), [f"{letter}</w>" for letter in letters()])
    return list(itertools.islice(pairs, SIZE - 2 * 256 - 2))


@pytest.fixture(scope="session")
def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    ends = [f"{letter}</w>" for letter in letters()]
    return {
        word: i for i, word in enumerate([*letters(), *ends, *map("".join, merges), "<|startoftext|>", "<|endoftext|>"])
    }


@pytest.fixture(scope="session")
def tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def whole_bases(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of `bases`, with 49,408 words."""
    home = tmp_path_factory.mktemp("whole")
    return {kind: write_base(kind, home / f"whole-{kind}", tokenizer) for kind in KINDS}


@pytest.fixture(scope="session")
def checkpoints(whole_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each of `whole_bases` as one file in the original layout, float32."""
    import torch

    from sd_lora.models.checkpoint.file import save_single_file
    from sd_lora.models.opening import load_base

    home = tmp_path_factory.mktemp("checkpoints")
    for kind, folder in whole_bases.items():
        save_single_file(load_base(folder)[0], home / f"{kind}-file.safetensors", torch.float32)
    return {kind: home / f"{kind}-file.safetensors" for kind in whole_bases}


@pytest.fixture
def no_vocabulary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any vocabulary: an empty hub cache (returned) and no open_clip_torch."""
    import importlib.util

    from huggingface_hub import constants

    find = importlib.util.find_spec
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def found(name: str, package: str | None = None) -> Any:
        spec = find(name, package)
        return spec if name != "open_clip" or (spec and str(tmp_path) in str(spec.origin)) else None

    monkeypatch.setattr(importlib.util, "find_spec", found)
    return tmp_path / "hub"


@pytest.fixture
def open_clip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, merges: list[tuple[str, str]]
) -> Callable[[bytes | None], Path]:
    """A factory: an importable package `open_clip` that must not be run, with the given list of merges."""

    def install(content: bytes | None = None) -> Path:
        package = tmp_path / "site" / "open_clip"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        lines = ["#version: made up", *map(" ".join, merges), "un used", "un used</w>", ""]
        packed = gzip.compress("\n".join(lines).encode()) if content is None else content
        (package / "bpe_simple_vocab_16e6.txt.gz").write_bytes(packed)
        monkeypatch.syspath_prepend(package.parent)
        return package

    return install
