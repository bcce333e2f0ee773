"""Settings that cannot act on the images at hand are errors of a check, and so are those that ask too much."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sd_lora.check.idle_settings import excessive_repeats
from sd_lora.commands.app import app
from sd_lora.config.schema import DataConfig
from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.listing import list_folder


def checked(folder: Path, *overrides: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["check", str(folder), "--base", "tiny", "--json", *overrides])
    return done.exit_code, json.loads(done.stdout)


def codes(found: dict[str, Any], severity: str = "") -> set[str]:
    return {f["code"] for f in found["findings"] if not severity or f["severity"] == severity}


def tagged(folder: Path, *captions: str) -> None:
    for i, caption in enumerate(captions):
        (folder / f"{i:02}.txt").write_text(caption)


@pytest.mark.parametrize(
    ("captions", "overrides", "idle"),
    [
        ((), ["data.prior_weight=5"], "data.prior_weight"), ((), ["data.shuffle_tags=true"], "data.shuffle_tags"),
        ((), ["data.tag_dropout=0.5"], "data.tag_dropout"),
        ((), ["data.more_resolutions=128"], "data.more_resolutions"),
        ((), ["data.caption_variants=3"], "data.caption_variants"), ((), ["data.more_resolutions=96"], ""),
        (("a, b, c",), ["data.shuffle_tags=true", "data.caption_variants=3"], ""),
        (("a, b, c",), ["data.tag_dropout=0.5", "data.keep_tags=3"], "data.tag_dropout"),
        (("a, b, c",), ["data.tag_dropout=0.5", "data.keep_tags=2"], ""),
        (("a, b, c",), ["data.shuffle_tags=true", "data.keep_tags=2"], "data.shuffle_tags"),
        (("a, b, c",), ["data.shuffle_tags=true", "data.keep_tags=1"], ""),
        (("a, b, c",), ["data.shuffle_tags=true", 'data.tag_separator=";"'], "data.shuffle_tags"),
        (("zwq, a",) * 4, ["data.shuffle_tags=true", "data.trigger=zwq"], "data.shuffle_tags"),
        (("zwq, a, b",) * 4, ["data.shuffle_tags=true", "data.trigger=zwq"], ""),
        (("a boat, in zwq style",) * 4, ["data.tag_dropout=0.5", "data.trigger=zwq", "data.keep_tags=1"],
            "data.tag_dropout"),
        (("a\nNegative prompt: x, y\nSteps: 20, Sampler: Euler",) * 4, ["data.shuffle_tags=true"], "data.shuffle_tags"),
        (("a, b ||| c",) * 4, ["data.shuffle_tags=true"], "data.shuffle_tags"),
        ((), ["data.keep_tags=2"], "data.keep_tags"), ((), ['data.tag_separator=";"'], "data.tag_separator"),
        (("a; b",) * 4, ["data.shuffle_tags=true", 'data.tag_separator=";"'], ""),
    ],
)  # fmt: skip
def test_settings_that_cannot_act_are_errors(
    captions: tuple[str, ...], overrides: list[str], idle: str, image_folder: Path
) -> None:
    tagged(image_folder, *captions)
    code, found = checked(image_folder, *overrides)
    said = [f["message"] for f in found["findings"] if f["code"] == "setting-idle"]
    assert [message.partition(" ")[0] for message in said] == [idle] * bool(idle)
    assert code == (2 if idle else 0)


@pytest.mark.parametrize("override", ["data.caption_lines=joined", 'data.caption_suffixes=[".md"]'])
def test_settings_of_caption_files_cannot_act_on_a_table(override: str, image_folder: Path) -> None:
    rows = "".join(json.dumps({"file_name": f"{i:02}.png", "text": f"caption {i}"}) + "\n" for i in range(4))
    (image_folder / "metadata.jsonl").write_text(rows)
    assert "setting-idle" not in codes(checked(image_folder)[1])
    assert "setting-idle" in codes(checked(image_folder, override)[1], "error")


def test_repeats_that_make_an_epoch_of_hundreds_of_thousands_are_refused(image_folder: Path) -> None:
    settings = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = '.'\nnum_repeats = 9999\n"
    (image_folder / "one").mkdir()
    for name in ("03.png", "03.txt"):
        (image_folder / name).rename(image_folder / "one" / name)
    (image_folder / "set.toml").write_text(f"{settings}[[datasets.subsets]]\nimage_dir = 'one'\n")
    assert "repeats-large" not in codes(checked(image_folder)[1])
    entries = [Entry(Path(f"{i}.png"), f"{i}.png", repeats=9999 if i else 1) for i in range(32)]
    assert [f.code for f in excessive_repeats(entries)] == ["repeats-large"]
    assert "309,970 exposures" in excessive_repeats(entries)[0].message
    assert excessive_repeats([replace(entry, repeats=9999) for entry in entries]) == []
    assert excessive_repeats([replace(entry, prior=True) for entry in entries])


def test_a_plan_of_the_most_that_may_be_asked_for_is_there_at_once(image_folder: Path) -> None:
    code, found = checked(image_folder, "training.steps=10000000", "training.batch_size=4096")
    assert code == 0
    assert sum(row["exposures"] for row in found["plan"]["buckets"]) == 4096 * 10**7


SUBSET = "[[datasets]]\n[[datasets.subsets]]\nimage_dir='.'\n"


@pytest.mark.parametrize(
    ("given", "captions", "idle"),
    [
        ("shuffle_caption=true", ("a boat", "a cat"), "shuffle_caption = true"),
        ("shuffle_caption=true", ("a boat, zwq", "zwq, a cat"), "shuffle_caption = true"),
        ("shuffle_caption=true", ("a, b", "c"), ""),
        ("caption_tag_dropout_rate=0.5", ("zwq", "a cat"), "caption_tag_dropout_rate = 0.5"),
        ("caption_tag_dropout_rate=0.5", ("a, b", "a cat"), ""),
        ("keep_tokens=1", ("a, b", "c, d"), "keep_tokens = 1"),
        ("keep_tokens=1\nshuffle_caption=true", ("a, b, c", "c, d"), ""),
        ("keep_tokens_separator='+++'", ("a, b", "c, d"), "keep_tokens_separator = +++"),
        ("keep_tokens_separator='+++'", ("a +++ b", "c, d"), ""),
    ],
)
def test_settings_of_a_dataset_file_that_cannot_act_are_named(
    given: str, captions: tuple[str, ...], idle: str, image_folder: Path
) -> None:
    tagged(image_folder, *(captions * 4)[:8])
    (image_folder / "set.toml").write_text(f"{SUBSET}{given}\n")
    found = list_folder(DataConfig(folder=str(image_folder), trigger="zwq")).findings
    said = [finding.detail for finding in found if finding.code == "setting-unknown"]
    assert [message.partition(" has no effect")[0] for message in said] == [idle] * bool(idle)


@pytest.mark.parametrize("override", ["data.keep_tags=1", 'data.tag_separator=";"'])
def test_settings_act_on_tags_that_a_dataset_file_shuffles(override: str, image_folder: Path) -> None:
    tagged(image_folder, *["a; b, c; d, e"] * 8)
    (image_folder / "set.toml").write_text(f"{SUBSET}shuffle_caption=true\n")
    assert checked(image_folder, override)[0] == 0
