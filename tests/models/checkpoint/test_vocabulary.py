"""The vocabulary of CLIP comes from the user's folder, the hub's cache or open_clip_torch, or training is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sd_lora.errors import BaseModelError
from sd_lora.models.checkpoint.vocabulary import clip_tokenizer

TEXT = ["a photo of a café", "it's 2 o'clock — ÿþ", ""]


def write_plain(folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Path:
    """The two files of a vocabulary, and nothing that says how to pad or cut."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", "utf-8")
    return folder


def ids(tokenizer: Any) -> list[list[int]]:
    return tokenizer(TEXT, padding="max_length", truncation=True).input_ids


@pytest.fixture
def expected(tokenizer: Any) -> list[list[int]]:
    return ids(tokenizer)


def test_the_folder_the_user_names_comes_first(
    no_vocabulary: Path,
    tmp_path: Path,
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    expected: list[list[int]],
) -> None:
    write_plain(tmp_path / "mine/tokenizer", vocabulary, merges)
    found = clip_tokenizer(tmp_path / "mine")
    assert (len(found), found.model_max_length, found.pad_token_id) == (49_408, 77, 49_407)
    assert ids(found) == expected


def test_a_folder_of_only_tokenizer_json_will_do(
    no_vocabulary: Path, tmp_path: Path, tokenizer: Any, expected: list[list[int]]
) -> None:
    tokenizer.save_pretrained(tmp_path / "mine/tokenizer")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "mine/tokenizer" / name).unlink(missing_ok=True)
    assert ids(clip_tokenizer(tmp_path / "mine")) == expected


def test_the_second_tokenizer_is_made_of_the_first_and_pads_as_openclip_does(
    no_vocabulary: Path, tmp_path: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]
) -> None:
    write_plain(tmp_path / "mine/tokenizer", vocabulary, merges)
    found = clip_tokenizer(tmp_path / "mine", "tokenizer_2", pad="!")
    assert found.pad_token_id == 0
    assert ids(found)[2] == [49_406, 49_407, *[0] * 75]


@pytest.mark.parametrize(
    "place", ["models--openai--clip-vit-large-patch14/snapshots/abc", "models--o--sd/snapshots/abc/tokenizer"]
)
def test_the_cache_of_the_hub_comes_next(
    no_vocabulary: Path,
    place: str,
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    expected: list[list[int]],
) -> None:
    write_plain(no_vocabulary / "models--a--other/snapshots/abc/tokenizer", {"a": 0}, [])  # of another size
    (no_vocabulary / "models--a--broken/snapshots/abc/tokenizer").mkdir(parents=True)
    for name in ("vocab.json", "merges.txt"):
        (no_vocabulary / "models--a--broken/snapshots/abc/tokenizer" / name).write_text("{")
    write_plain(no_vocabulary / place, vocabulary, merges)
    found = clip_tokenizer()
    assert ids(found) == expected


def test_open_clip_is_read_as_a_file_and_never_run(
    no_vocabulary: Path, open_clip: Callable[..., Path], expected: list[list[int]]
) -> None:
    open_clip()
    found = clip_tokenizer()
    assert len(found) == 49_408
    assert ids(found) == expected
    assert "open_clip" not in sys.modules


def test_a_damaged_list_of_open_clip_is_refused(no_vocabulary: Path, open_clip: Callable[..., Path]) -> None:
    open_clip(b"\x1f\x8b nothing")
    with pytest.raises(BaseModelError, match=r"bpe_simple_vocab_16e6.txt.gz is damaged: .*; install open_clip_torch"):
        clip_tokenizer()


def test_without_any_the_three_ways_are_named(no_vocabulary: Path, tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(
            BaseModelError, match=r"is not on this machine; .*model\.config.*hub's cache.*open_clip_torch"
        ):
            clip_tokenizer(folder)


def test_a_folder_without_the_files_is_refused_though_transformers_takes_it(whole_bases: Any, tmp_path: Path) -> None:
    shutil.copytree(whole_bases["sd1"] / "tokenizer", tmp_path / "tokenizer")
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (tmp_path / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(BaseModelError, match=r"tokenizer has no vocab\.json and no merges\.txt"):
        clip_tokenizer(tmp_path)


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path, bases: dict[str, Path]) -> None:
    with pytest.raises(BaseModelError, match=r"has [\d,]+ words, but the text encoder knows 49,408"):
        clip_tokenizer(bases["sd1"])


def test_another_size_is_taken_where_the_text_encoder_has_it(no_vocabulary: Path, bases: dict[str, Path]) -> None:
    size = json.loads((bases["sd1"] / "text_encoder/config.json").read_text())["vocab_size"]
    found = clip_tokenizer(bases["sd1"], pad="!", size=size, length=16)
    assert (len(found), found.pad_token) == (size, "<|endoftext|>")
    assert found.model_max_length <= 16
    with pytest.raises(BaseModelError, match=f"text encoder of {size} words but no tokenizer"):
        clip_tokenizer(no_vocabulary, size=size)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/tokenizer.json").write_text("{")
    with pytest.raises(BaseModelError, match="tokenizer cannot be read") as caught:
        clip_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
