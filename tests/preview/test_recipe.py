"""Recipes in PNGs: what was drawn can be drawn again, and foreign or hostile pictures do no harm."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rows import every_row

from sd_lora import DataError
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.recipe import a1111_line, png_bytes, read_recipe, recipe_of, sheet_recipe

PICTURE = Image.new("RGB", (8, 8), "red")
INK = MixedAdapter(Path("runs/ink/adapter.safetensors"), 0.5)
JOB = PreviewJob((PreviewRow("a red house, day", (INK,)),), (0, 0.8), "blurry", 7, 20, 4.5, 64, 128)
FACTS = {"base": "tiny", "scheduler": "DDIMScheduler", "sha256": {str(INK.path): "ab" * 32}}


def carrying(**texts: str) -> bytes:
    content, info = io.BytesIO(), PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    PICTURE.save(content, "PNG", pnginfo=info)
    return content.getvalue()


def test_a_picture_carries_all_that_made_it() -> None:
    said = read_recipe(png_bytes(PICTURE, recipe_of(JOB, JOB.rows[0], 0.8, FACTS)))
    assert said == {
        "prompts": ["a red house, day"], "negative": "blurry", "strengths": [0.8], "seed": 7, "steps": 20,
        "guidance": 4.5, "width": 64, "height": 128, "scheduler": "DDIMScheduler",
        "adapters": [{"name": "ink", "strength": 0.5, "sha256": "ab" * 32}],
    }  # fmt: skip


def test_a_picture_saved_by_many_at_once_carries_for_each_its_own() -> None:
    image = Image.effect_noise((256, 256), 90)

    def saved(number: int) -> object:
        job = replace(JOB, seed=number)
        return read_recipe(png_bytes(image, recipe_of(job, job.rows[0], 0.8, FACTS)))["seed"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(saved, range(200))) == list(range(200))


def test_a_line_that_never_ends_is_read() -> None:
    """In linear time: with backtracking this would take hours."""
    assert read_recipe(carrying(parameters='a house\nSteps: 1, A: "' + "\\" * 5000))["prompts"] == ["a house"]
    assert read_recipe(carrying(parameters="a house\nSteps: 1, " + "a " * 40_000))["steps"] == 1


def test_strengths_by_block_appear_in_the_line_as_the_commonest() -> None:
    by_block = {"unet": {"down": 0.2, "mid": 0.7, "up": {"block_1": 0.7}}}
    ink = MixedAdapter(Path("runs/old ink/adapter.safetensors"), by_block)
    job = replace(JOB, rows=(PreviewRow("a house", (ink,)),))
    assert "<lora:old_ink:0.35>" in a1111_line(recipe_of(job, job.rows[0], 0.5, FACTS))


def test_numbers_beyond_all_reason_are_left_out() -> None:
    huge = 10**400
    said = {"prompt": "a", "seed": huge, "strengths": [huge], "adapters": [{"name": "ink", "strength": huge}]}
    assert read_recipe(carrying(sd_lora=json.dumps(said))) == {
        "prompts": ["a"], "adapters": [{"name": "ink", "strength": 1.0, "sha256": ""}],
    }  # fmt: skip
    assert "seed" not in read_recipe(carrying(parameters=f"a\nSteps: 3, Seed: {10**20}"))


def test_a_sheet_of_several_mixes_carries_each() -> None:
    job = replace(JOB, rows=(JOB.rows[0], PreviewRow("a cup")))
    said = read_recipe(png_bytes(PICTURE, sheet_recipe(job, FACTS)))
    assert "adapters" not in said
    assert [[adapter["name"] for adapter in mix] for mix in said["adapters_by_row"]] == [["ink"], []]


def test_a_picture_of_too_many_pixels_is_not_opened() -> None:
    content = io.BytesIO()
    Image.new("1", (9000, 9000)).save(content, "PNG")
    with pytest.raises(DataError, match="too many"):
        read_recipe(content.getvalue())


def test_a_sheet_carries_all_prompts_and_strengths() -> None:
    said = read_recipe(png_bytes(PICTURE, sheet_recipe(JOB, FACTS)))
    assert said["prompts"] == ["a red house, day"]
    assert said["strengths"] == [0, 0.8]


def test_the_line_is_that_of_a1111_and_is_read_back() -> None:
    line = a1111_line(recipe_of(JOB, JOB.rows[0], 0.8, FACTS))
    assert line.splitlines()[0] == "a red house, day <lora:ink:0.4>"
    assert line.splitlines()[1] == "Negative prompt: blurry"
    assert "Steps: 20, Sampler: DDIM, CFG scale: 4.5, Seed: 7, Size: 64x128" in line
    assert 'Lora hashes: "ink: abababababab"' in line
    said = read_recipe(carrying(parameters=line))
    assert said["prompts"] == ["a red house, day"]
    assert (said["seed"], said["steps"], said["guidance"], said["width"], said["height"]) == (7, 20, 4.5, 64, 128)
    assert said["adapters"] == [{"name": "ink", "strength": 0.4, "sha256": ""}]


def test_a_picture_of_another_program_is_read() -> None:
    text = (
        "masterpiece, (cat:1.2)\nsecond line\nNegative prompt: ugly\nSteps: 30, Sampler: Euler a, CFG scale: 7, Seed: 5"
    )
    said = read_recipe(carrying(parameters=text))
    assert said["prompts"] == ["masterpiece, (cat:1.2) second line"]
    assert (said["negative"], said["steps"], said["seed"], said["guidance"]) == ("ugly", 30, 5, 7.0)
    assert said["scheduler"] == "EulerAncestralDiscreteScheduler"
    assert "scheduler" not in read_recipe(carrying(parameters=text.replace("Euler a", "Restart")))


@every_row(
    "said",
    ["[]", "null", "{", "{}", '{"prompts": 3, "seed": "x", "steps": true, "strengths": ["a"]}', "[" * 20_000,
     '{"adapters": [1, {"name": 2}, {}], "guidance": "high"}', '{"scheduler": "os"}', '{"scheduler": [1]}'],
)  # fmt: skip
def test_hostile_settings_are_left_out(said: str) -> None:
    if "adapters" in said:
        assert read_recipe(carrying(sd_lora=said)) == {"adapters": []}
        return
    with pytest.raises(DataError, match="carries no settings"):
        read_recipe(carrying(sd_lora=said))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", carrying()[:-20], b"<svg/>", carrying()])
def test_what_carries_nothing_is_told(content: bytes) -> None:
    with pytest.raises(DataError, match="choose a"):
        read_recipe(content)


def test_recipes_are_json_whatever_the_prompt_says() -> None:
    odd = PreviewJob((PreviewRow('"quoted", \\ <b>ü</b> 漢', (INK,)),))
    png = png_bytes(PICTURE, recipe_of(odd, odd.rows[0], 1.0, FACTS))
    assert read_recipe(png)["prompts"] == ['"quoted", \\ <b>ü</b> 漢']
    with Image.open(io.BytesIO(png)) as image:
        assert json.loads(image.text["sd_lora"])["adapters"][0]["sha256"] == "ab" * 32  # type: ignore[attr-defined]


def test_a_picture_carries_its_own_settings_and_a_sheet_the_prompts_with_theirs() -> None:
    own = PreviewRow.of("a cup --n dark --w 256 --d 3", (INK,))
    job = replace(JOB, rows=(JOB.rows[0], own))
    picture = read_recipe(png_bytes(PICTURE, recipe_of(job, own, 0.8, FACTS)))
    assert (picture["prompts"], picture["negative"], picture["width"], picture["seed"]) == (["a cup"], "dark", 256, 3)
    sheet = read_recipe(png_bytes(PICTURE, sheet_recipe(job, FACTS)))
    assert sheet["prompts"] == ["a red house, day", "a cup --n dark --w 256 --d 3"]
    assert (sheet["negative"], sheet["width"], sheet["seed"]) == ("blurry", 64, 7)


def test_the_text_of_a1111_is_read_as_captions_are() -> None:
    text = "a house,\non a hill\nNegative prompt: dark,\nblurry\nSteps: 20, Sampler: Euler, CFG scale: 7, Size: 64x128"
    assert read_recipe(carrying(parameters=text)) == {
        "prompts": ["a house, on a hill"], "negative": "dark,\nblurry", "steps": 20, "guidance": 7.0, "width": 64,
        "height": 128, "scheduler": "EulerDiscreteScheduler", "adapters": [],
    }  # fmt: skip
