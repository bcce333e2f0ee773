"""Settings loaded from a picture: adapters are found by name and content, and what is lost is reported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image
from sd_lora.webui.preview_fields import PreviewFields
from sd_lora.webui.site import Site
from sd_lora.webui.tabs import preview as preview_tab

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
    service = SimpleNamespace(sha256=lambda path: path.read_bytes().decode(), limits=PreviewLimits())
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
