"""The Preview tab: settings loaded from a picture, seeds, what was drawn earlier, and how small pictures are shown."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from PIL import Image
from sd_lora.webui.preview_fields import PreviewFields
from sd_lora.webui.preview_progress import enlarged
from sd_lora.webui.site import Site
from sd_lora.webui.tabs import preview as preview_tab
from sd_lora.webui.tabs.earlier import Drawn, Earlier

import sd_lora
from sd_lora import ConfigError
from sd_lora.preview.job import PreviewLimits
from sd_lora.preview.recipe import png_bytes

FACTS = {"negative": "", "seed": 7, "steps": 20, "guidance": 4.5, "width": 64, "height": 64, "base": "tiny",
         "scheduler": "DDIMScheduler", "sd_lora": sd_lora.__version__, "strengths": [0.0, 1.0]}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("runs/ink/adapter", "runs/ink/adapters/step-000100", "runs/wood/adapters/step-000100", "lib/old/ink"):
        file = tmp_path / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    for name in ("ink", "wood"):
        (tmp_path / "runs" / name / "config.toml").touch()
    service = SimpleNamespace(
        sha256=lambda path: path.read_bytes().decode(), limits=PreviewLimits(), scheduler="DDIMScheduler"
    )
    return Site(cast(Any, service), tmp_path / "runs", tmp_path / "data", tmp_path, libraries=(tmp_path / "lib",))


def loaded(site: Site, monkeypatch: pytest.MonkeyPatch, **recipe: Any) -> tuple[list[str], str, str]:
    """Names of the chosen adapters, the prompts, and what is reported as lost."""
    lost: list[str] = []
    monkeypatch.setattr(preview_tab, "warn", lost.append)
    content = png_bytes(Image.new("RGB", (8, 8)), FACTS | recipe)
    ids, prompts, *_ = preview_tab._Tab(site).on_load(content)
    return [site.name_of(site.adapter(identity)) for identity in ids], prompts, "".join(lost)


def acting(name: str, strength: Any = 1.0, sha256: str = "") -> dict[str, Any]:
    return {"name": name, "strength": strength, "sha256": sha256}


def test_an_adapter_with_its_own_strength_becomes_a_tag(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = [acting("ink"), acting("wood/step-000100", 0.3)]
    assert loaded(site, monkeypatch, prompts=["a", "b"], adapters=mix) == (
        ["ink"], "a <lora:wood/step-000100:0.3>\nb <lora:wood/step-000100:0.3>", "",
    )  # fmt: skip


def test_each_prompt_of_a_sheet_gets_its_own_tags(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    by_row = [[acting("ink")], [acting("ink", 0.5)]]
    assert loaded(site, monkeypatch, prompts=["a", "b"], adapters_by_row=by_row) == (
        [], "a <lora:ink:1>\nb <lora:ink:0.5>", "",
    )  # fmt: skip


def test_among_adapters_of_one_name_the_content_decides(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    meant = [acting("step-000100", sha256="runs/wood/adapters/step-000100")]
    assert loaded(site, monkeypatch, prompts=["a"], adapters=meant) == (["wood/step-000100"], "a", "")


def test_missing_adapters_are_reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = [acting("gone"), acting("step-000100", sha256="another"), acting("ink", {"unet": 0.5})]
    ids, prompts, lost = loaded(site, monkeypatch, prompts=["a"], adapters=mix)
    assert (ids, prompts) == ([], "a")
    for part in ("gone was not found", "step-000100 was not found", "ink had strengths by block"):
        assert part in lost


def test_an_ambiguous_name_is_refused_with_what_to_write(site: Site) -> None:
    with pytest.raises(ConfigError, match="step-000100; write ink/step-000100 or wood/step-000100, or"):
        PreviewFields([], "a <lora:step-000100:1>", "1", 0, 1, 1, 64, 64, "").job(site)
    (row,) = PreviewFields([], "a <lora:ink:0.5> <lora:wood_step-000100>", "1", 0, 1, 1, 64, 64, "").job(site).rows
    assert [site.name_of(mixed.path) for mixed in row.mix] == ["ink", "wood/step-000100"]
    with pytest.raises(ConfigError, match='"<lora:odd:name:1>" names no adapter'):
        PreviewFields([], "a <lora:odd:name:1>", "1", 0, 1, 1, 64, 64, "").job(site)


def test_a_prompt_may_say_how_it_is_drawn(site: Site) -> None:
    line = "a cup --n dark --w 128 <lora:ink:0.5>\na house"
    job = PreviewFields([], line, "1", 7, 1, 5, 64, 64, "blurry").job(site)
    first, second = (job.of(row) for row in job.rows)
    assert (first.rows[0].prompt, first.negative, first.width, first.height, first.seed) == (
        "a cup",
        "dark",
        128,
        64,
        7,
    )
    assert (second.rows[0].prompt, second.negative, second.width) == ("a house", "blurry", 64)
    with pytest.raises(ConfigError, match="--ar, which is not read"):
        PreviewFields([], "a cup --ar 3", "1", 7, 1, 5, 64, 64, "").job(site)


def test_several_seeds_are_rows_from_the_first_seed_on(site: Site) -> None:
    job = PreviewFields([], "a cup\na house --d 2", "1", 7, 1, 5, None, None, "", seeds=3, scheduler="Euler").job(site)
    assert [job.of(row).seed for row in job.rows] == [7, 8, 9, 2, 3, 4]
    assert [row.label for row in job.rows][:2] == ["a cup · seed 7", "a cup · seed 8"]
    assert (job.scheduler, job.seed) == ("Euler", 7)
    assert job.rows[1].line == "a cup --d 8"
    plain = PreviewFields([], "a cup", "1", 7, 1, 5, None, None, "").job(site)
    assert (plain.rows[0].label, plain.scheduler) == ("", "")
    for seeds in (0, -1, 65, 1.5, None):
        with pytest.raises(ConfigError, match="seeds"):
            PreviewFields([], "a cup", "1", 7, 1, 5, None, None, "", seeds).job(site)  # type: ignore[arg-type]


def scheduler_of(site: Site, **recipe: Any) -> Any:
    *_, scheduler, enlarging, _ = preview_tab._Tab(site).on_load(png_bytes(Image.new("RGB", (8, 8)), FACTS | recipe))
    assert enlarging == gr.skip()
    return scheduler


def test_the_scheduler_of_a_picture_is_loaded_by_its_name(site: Site) -> None:
    assert scheduler_of(site, prompts=["a"], scheduler="UniPCMultistepScheduler") == "UniPC"
    assert scheduler_of(site, prompts=["a"]) == ""  # the base model's own
    assert scheduler_of(site, prompts=["a"], scheduler="LMSDiscreteScheduler") == ""  # cannot be chosen


@pytest.mark.parametrize("keep", [True, False])
def test_another_seed_is_drawn_and_shown_unless_it_is_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    tab, asked = preview_tab._Tab(site), list[Any]()

    def show(_site: Site, job: Any, _request: Any, _note: str, enlarging: str) -> Any:
        asked.append((job.seed, enlarging))
        yield "status", "gallery", "sheet"

    monkeypatch.setattr(tab.drawings, "show", show)
    monkeypatch.setattr("random.randrange", lambda most: most - 1)
    values = [[], "a cup", "1", 7, 1, 5, None, None, "", 1, "", "pixels"]
    ((*_, seed),) = tab.on_generate(SimpleNamespace(session_hash="v"), keep, *values)
    assert asked == [(7 if keep else 2**32 - 1, "pixels")]
    assert seed == (gr.skip() if keep else 2**32 - 1)


# ---- what was drawn earlier


@pytest.fixture
def strip(site: Site) -> Earlier:
    with gr.Blocks():
        return Earlier(site)


def drawn(site: Site, *names: str) -> list[Drawn]:
    for name in names:
        Image.new("RGB", (8, 8), name).save(site.work / f"{name}.png")
    return [Drawn(str(site.work / f"{name}.png"), name) for name in names]


def labels(updates: tuple[Any, ...]) -> list[str]:
    assert updates[1]["visible"] is bool(updates[0])
    return [label for _, label in updates[2]["value"]]


def test_the_newest_come_first_each_once_and_pinned_ones_stay(strip: Earlier, site: Site) -> None:
    red, blue, green = drawn(site, "red", "blue", "green")
    kept, *_ = first = strip.with_new([], [red, blue])
    assert labels(first) == ["red", "blue"]
    assert labels(strip.with_new(kept, [blue])) == ["blue", "red"]
    *pinned, button = strip.on_pin(kept, blue.file)
    assert (labels(tuple(pinned)), button) == (["pinned · blue", "red"], "Unpin it")
    kept = pinned[0]
    assert labels(strip.with_new(kept, [green])) == ["pinned · blue", "green", "red"]
    *_, button = strip.on_pin(kept, blue.file)
    assert button == "Pin it"


def test_pictures_whose_files_are_gone_leave_the_strip(strip: Earlier, site: Site) -> None:
    red, blue = drawn(site, "red", "blue")
    Path(red.file).unlink()
    assert labels(strip.with_new([red], [blue])) == ["blue"]
    Path(blue.file).unlink()
    assert labels(strip.with_new([], [blue])) == []


def test_all_pictures_are_saved_as_one_file_the_oldest_first(strip: Earlier, site: Site) -> None:
    pictures = drawn(site, "red", "blue")
    (file,) = strip.on_save(pictures)
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["001 blue.png", "002 red.png"]
        assert archive.read("002 red.png") == Path(pictures[0].file).read_bytes()
    with pytest.raises(ConfigError, match="nothing has been drawn yet"):
        strip.on_save([])


@pytest.mark.parametrize("index", [None, -1, 2, "0", [0, 1]])
def test_only_pictures_of_the_strip_are_chosen(strip: Earlier, site: Site, index: Any) -> None:
    pictures = drawn(site, "red", "blue")
    assert strip.on_select(pictures, cast(Any, SimpleNamespace(index=1))) == (pictures[1].file, "Pin it")
    with pytest.raises(ConfigError, match="choose a picture"):
        strip.on_select(pictures, cast(Any, SimpleNamespace(index=index)))
    with pytest.raises(ConfigError, match="choose a picture"):
        strip.on_pin(pictures, "/etc/passwd")


def test_small_pictures_are_enlarged_by_a_whole_factor() -> None:
    image = Image.effect_noise((64, 48), 90)
    pixels, smooth = enlarged(image, "pixels"), enlarged(image, "smooth")
    assert pixels.size == smooth.size == (512, 384)
    assert pixels.resize(image.size, Image.Resampling.NEAREST).tobytes() == image.tobytes()
    assert pixels.tobytes() != smooth.tobytes()
    assert enlarged(image, "") is image
    large = Image.new("RGB", (300, 20))
    assert enlarged(large, "smooth") is large
