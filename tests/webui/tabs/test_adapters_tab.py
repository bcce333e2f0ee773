"""The LoRAs tab: what it lists, shows and sends, for trusted and untrusted files."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image
from sd_lora.webui.adapter_files import picture
from sd_lora.webui.installing import Program, program_at
from sd_lora.webui.site import Site
from sd_lora.webui.tabs import adapters as adapters_tab
from sd_lora.webui.tabs.preview import PreviewInputs
from small_weights import weights_of

from sd_lora import Adapter, ConfigError, SdLoraError, read_summary
from sd_lora.preview.service import PreviewService

SCRIPT, IMAGE = "<script>alert(1)</script>", '<img src=x onerror="alert(2)">'
ODD_IDS = ["", "nope", "../../etc/passwd", "/etc/passwd", "__class__", "0" * 12, "*"]


@pytest.fixture
def site(service: PreviewService, pipe: Any, tmp_path: Path, trained_adapter: Callable[..., Any]) -> Site:
    """A run's adapter that fits, an untrusted one that fits too, one that does not, and one that is damaged."""
    for folder in ("runs/mine", "lib", "work"):
        (tmp_path / folder).mkdir(parents=True)
    adapter = trained_adapter(pipe, "attn")
    adapter.metadata |= {"sdlora.base": service.base, "modelspec.trigger_phrase": "in ink style", "sdlora.steps": "40"}
    adapter.metadata["ss_network_alpha"] = "2"
    adapter.save(tmp_path / "runs/mine/adapter.safetensors")
    (tmp_path / "runs/mine/config.toml").touch()
    adapter.metadata |= {"sdlora.base": SCRIPT, "sdlora.trigger": IMAGE, "modelspec.trigger_phrase": IMAGE}
    adapter.metadata |= {SCRIPT: IMAGE, "a long one": "x" * 100_000} | {f"k{i}": "" for i in range(300)}
    adapter.save(tmp_path / "lib" / f"{IMAGE.replace('/', '')}.safetensors")
    wide = {name: weights_of(torch.ones(2, 77), torch.ones(77, 2), 2.0) for name in adapter.weights}
    Adapter(wide, {"ss_sd_model_name": "other"}).save(tmp_path / "lib/wide.safetensors")
    (tmp_path / "lib/damaged.safetensors").write_bytes(b"\x80\x04pickle" * 9)
    return Site(service, tmp_path / "runs", tmp_path / "data", tmp_path / "work", libraries=(tmp_path / "lib",))


@pytest.fixture
def tab(site: Site) -> Any:
    return adapters_tab._Tab(site, None)


def id_of(site: Site, name: str) -> str:
    return next(identity for identity, path in site.adapters().items() if name in str(path))


def shown(tab: Any, identity: str) -> list[tuple[Any, ...]]:
    return list(tab.on_show(identity))


def picked(tab: Any, identity: Any) -> list[tuple[Any, ...]]:
    return shown(tab, tab.on_pick(SimpleNamespace(id=identity)))


class Cards(HTMLParser):
    """The cards of a list: text and whether it is chosen, by id; and every tag in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.chosen: list[str] = []
        self.pictures = 0
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.tags.add(tag)
        self.pictures += tag == "img" and str(facts["src"]).startswith("data:image/webp;base64,")
        if tag == "button":
            self.texts[str(facts["data-id"])] = []
            self.chosen += [str(facts["data-id"])] if facts["aria-pressed"] == "true" else []

    def handle_data(self, data: str) -> None:
        list(self.texts.values())[-1].append(data)


def listed(tab: Any, chosen: str = "", every: bool = False) -> Cards:
    html, *_ = tab.on_list(chosen, every)
    return Cards(html)


# ---- the list


def test_every_adapter_has_a_card_with_its_facts(tab: Any, site: Site) -> None:
    cards = listed(tab)
    assert set(cards.texts) == set(site.adapters())
    base = site.service.base
    assert cards.texts[id_of(site, "mine")][-3:] == ["mine", f"for {base}", "trigger word in ink style"]
    assert cards.texts[id_of(site, "wide")][-3:] == ["wide", "for other", "no trigger word"]
    assert cards.texts[id_of(site, "damaged")][-1] == "cannot be used"


def test_the_newest_comes_first_and_is_chosen_until_another_is(tab: Any, site: Site) -> None:
    mine, wide = id_of(site, "mine"), id_of(site, "wide")
    os.utime(site.adapter(wide), (time.time() + 60,) * 2)
    html, hint, chosen = tab.on_list("", False)
    assert (chosen, hint) == (wide, "")
    assert Cards(html).chosen == [wide]
    assert next(iter(Cards(html).texts)) == wide
    assert tab.on_list(mine, False)[2] == mine
    assert tab.on_list("gone", False)[2] == wide


def test_checkpoints_of_a_finished_run_are_shown_on_request(tab: Any, site: Site) -> None:
    final = site.adapter(id_of(site, "mine"))
    (final.parent / "adapters").mkdir()
    shutil.copy(final, final.parent / "adapters" / "step-000020.safetensors")
    checkpoint = id_of(site, "step-000020")
    assert checkpoint not in listed(tab).texts
    assert "mine/step-000020" in listed(tab, every=True).texts[checkpoint]
    final.unlink()  # the run has not ended
    assert checkpoint in listed(tab).texts


def test_a_card_has_the_picture_of_its_adapter(tab: Any, site: Site) -> None:
    assert listed(tab).pictures == 0
    beside = site.adapter(id_of(site, "wide")).with_suffix(".png")
    Image.new("RGB", (300, 200), "teal").save(beside)
    assert listed(tab).pictures == 1


def test_text_from_files_is_shown_as_text(tab: Any, site: Site) -> None:
    cards = listed(tab)
    assert cards.tags <= {"ul", "li", "button", "span", "b"}
    assert f"trigger word {IMAGE}" in cards.texts[id_of(site, "<img")]


def test_an_empty_list_says_so(service: PreviewService, tmp_path: Path) -> None:
    html, hint, chosen = adapters_tab._Tab(Site(service, tmp_path, tmp_path, tmp_path), None).on_list("", False)
    assert (html, chosen) == ("", "")
    assert "no LoRAs yet" in hint


def test_a_changed_file_is_read_again(tab: Any, site: Site) -> None:
    assert "for other" in listed(tab).texts[id_of(site, "wide")]
    adapter = Adapter.load(site.adapter(id_of(site, "wide")))
    adapter.metadata["ss_sd_model_name"] = "another one"
    adapter.save(site.adapter(id_of(site, "wide")))
    assert "for another one" in listed(tab).texts[id_of(site, "wide")]


# ---- one adapter


def test_a_card_shows_the_facts_at_once_and_then_whether_it_fits(tab: Any, site: Site) -> None:
    path = site.adapter(id_of(site, "mine"))
    first, last = picked(tab, id_of(site, "mine"))
    assert first[0]["visible"] is True
    assert "Checking whether it fits" in first[1]
    assert f"It fits {site.service.base}." in last[1]
    assert "trigger word in ink style" in last[1]
    assert last[3] == "in ink style <lora:mine:1>"
    assert site.service.sha256(path) in last[4]
    assert last[5]["sdlora.base"] == site.service.base


def test_without_a_choice_nothing_is_shown(tab: Any) -> None:
    ((details, *rest),) = shown(tab, "")
    assert details["visible"] is False
    assert rest == [gr.skip()] * 7


@pytest.mark.parametrize("name", ["wide", "damaged"])
def test_an_adapter_that_does_not_fit_is_reported_and_not_sent_on(tab: Any, site: Site, name: str) -> None:
    description = picked(tab, id_of(site, name))[-1][1]
    assert f"cannot be used on {site.service.base}: " in description
    assert str(site.runs.parent) not in description
    with pytest.raises(ConfigError, match="cannot be used"):
        tab.on_use(id_of(site, name), [])


def test_markup_in_metadata_and_names_is_shown_as_text(tab: Any, site: Site) -> None:
    for each in picked(tab, id_of(site, "<img")):
        assert "<script" not in each[1] + each[4]
        assert "<img" not in each[1] + each[4]
        assert "&lt;script&gt;" in each[1]
        assert each[3].startswith(f"{IMAGE} <lora:img_src")  # a text field
        assert isinstance(each[5], dict)
        assert len(json.dumps(each[5])) < 30_000
        metadata = each[5]
    assert metadata[SCRIPT] == IMAGE
    assert metadata["a long one"].endswith("(100000 characters)")
    assert metadata["…"].endswith(" more")


@pytest.mark.parametrize("identity", ODD_IDS)
def test_only_listed_ids_are_accepted(tab: Any, site: Site, identity: str) -> None:
    calls = [
        lambda: picked(tab, identity), lambda: tab.on_download(identity), lambda: tab.on_use(identity, []),
        lambda: tab.on_convert(identity, "kohya", "", ""), lambda: tab.copier(Program("x", site.work))(identity),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ConfigError, match=r"no longer exists|no LoRA is chosen"):
            call()
    assert not list(site.work.iterdir())


def test_paths_are_not_ids(tab: Any, site: Site) -> None:
    for path in site.adapters().values():
        with pytest.raises(ConfigError):
            tab.on_download(str(path))


@pytest.mark.parametrize("identity", [None, [], {}, [[]], 3])
def test_an_odd_click_is_refused(tab: Any, identity: Any) -> None:
    for event in (SimpleNamespace(id=identity), SimpleNamespace()):
        with pytest.raises(ConfigError, match="no LoRA is chosen"):
            tab.on_pick(event)


def test_a_deleted_file_is_reported(tab: Any, site: Site) -> None:
    gone = id_of(site, "mine")
    site.adapter(gone).unlink()
    with pytest.raises(ConfigError, match="no longer exists"):
        picked(tab, gone)


# ---- files to download


def test_a_download_is_three_files_under_a_harmless_name(tab: Any, site: Site) -> None:
    source = site.adapter(id_of(site, "mine"))
    (site.runs / "mine" / "samples").mkdir()
    Image.new("RGB", (64, 64), "teal").save(site.runs / "mine" / "samples" / "step-000040.png")
    adapter, facts, image = (Path(file) for file in tab.on_download(id_of(site, "mine")))
    assert [file.name for file in (adapter, facts, image)] == ["mine.safetensors", "mine.json", "mine.png"]
    assert all(file.is_relative_to(site.work) for file in (adapter, facts, image))
    assert adapter.read_bytes() == source.read_bytes()
    assert not adapter.samefile(source)
    assert json.loads(facts.read_text("utf-8"))["activation text"] == "in ink style"
    assert Image.open(image).size == (384, 384)
    assert Path(tab.on_download(id_of(site, "mine"))[0]) == adapter
    adapter.unlink()  # as the janitor does
    assert Path(tab.on_download(id_of(site, "mine"))[0]).is_file()
    odd = [Path(file).name for file in tab.on_download(id_of(site, "<img"))]
    assert odd == ["img_src_x_onerror_alert_2.safetensors", "img_src_x_onerror_alert_2.json"]
    assert [path.name for path in site.work.rglob(".*")] == []


def test_a_recommended_strength_is_in_the_line_to_type(tab: Any, site: Site) -> None:
    path = site.adapter(id_of(site, "wide"))
    adapter = Adapter.load(path)
    adapter.metadata["sdlora.strength"] = "0.8"
    adapter.save(path)
    assert picked(tab, id_of(site, "wide"))[-1][3] == "<lora:wide:0.8>"
    assert "strength 0.8" in listed(tab).texts[id_of(site, "wide")]
    facts = json.loads(Path(tab.on_download(id_of(site, "wide"))[1]).read_text("utf-8"))
    assert facts["preferred weight"] == 0.8


def test_files_are_copied_to_other_programs_and_nothing_of_theirs_is_replaced(tab: Any, site: Site) -> None:
    home = site.runs.parent / "a1111"
    (home / "models").mkdir(parents=True)
    (home / "webui.py").touch()
    program = program_at(home)
    assert (program.name, program.folder) == ("A1111", home / "models" / "Lora")
    copy = tab.copier(program)
    assert "mine.safetensors, mine.json copied to A1111" in copy(id_of(site, "mine"))
    assert sorted(path.name for path in program.folder.iterdir()) == ["mine.json", "mine.safetensors"]
    assert "A1111 has mine already" in copy(id_of(site, "mine"))
    (program.folder / "mine.safetensors").write_bytes(b"theirs")
    with pytest.raises(ConfigError, match=r"A1111 has mine\.safetensors with other content; rename or remove it"):
        copy(id_of(site, "mine"))
    assert (program.folder / "mine.safetensors").read_bytes() == b"theirs"


def test_programs_are_recognised_by_their_folders(tmp_path: Path) -> None:
    (tmp_path / "comfy" / "comfy").mkdir(parents=True)
    (tmp_path / "forge" / "models" / "Lora").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    loras = tmp_path / "comfy" / "models" / "loras"
    assert program_at(tmp_path / "comfy") == Program("ComfyUI", loras)
    assert program_at(loras) == Program("ComfyUI", loras)
    assert program_at(tmp_path / "forge") == Program("A1111", tmp_path / "forge" / "models" / "Lora")
    assert program_at(tmp_path / "other") == Program("other", tmp_path / "other")
    with pytest.raises(ConfigError, match="is not a folder; --install-to"):
        program_at(tmp_path / "nowhere")


def test_a_full_disk_is_reported_and_nothing_is_left(tab: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ConfigError, match="too full"):
        tab.on_download(id_of(site, "mine"))
    assert not [path for path in site.work.rglob("*") if path.is_file()]


def test_a_conversion_keeps_the_change_of_the_base(tab: Any, site: Site) -> None:
    source = site.adapter(id_of(site, "mine"))
    before = source.read_bytes()
    update = tab.on_convert(id_of(site, "mine"), "diffusers", "float32", "sd1")
    out = Path(update["value"])
    assert out.name == "mine-diffusers-float32.safetensors"
    assert out.name in update["label"]
    assert update["visible"] is True
    assert read_summary(out).layout == "diffusers"
    assert source.read_bytes() == before
    ours, theirs = Adapter.load(source).weights, Adapter.load(out).weights
    assert set(ours) == set(theirs)
    name = next(iter(ours))
    changes = [w.alpha / w.rank * w.tensors["up"] @ w.tensors["down"] for w in (ours[name], theirs[name])]
    assert (changes[0] - changes[1]).abs().max() < 1e-4


@pytest.mark.parametrize(
    "choice", [("PEFT", "", ""), ("kohya", "int8", ""), ("kohya", "", "flux"), ("../x", "", ""), ("kohya", "/etc", "")]
)
def test_only_what_the_lists_offer_is_converted_to(tab: Any, site: Site, choice: tuple[str, str, str]) -> None:
    with pytest.raises(ConfigError, match="choose one from the list"):
        tab.on_convert(id_of(site, "mine"), *choice)


def test_a_failed_conversion_is_reported_without_the_path(tab: Any, site: Site) -> None:
    for name in ("damaged", "mine"):  # the second does not say its kind
        with pytest.raises(SdLoraError) as caught:
            tab.on_convert(id_of(site, name), "kohya", "", "")
        assert str(site.runs.parent) not in str(caught.value)


# ---- the preview, pictures, events


def test_sending_an_adapter_adds_it_to_those_of_the_preview(site: Site) -> None:
    tab = adapters_tab._Tab(site, None)
    mine, other = id_of(site, "mine"), id_of(site, "<img")
    update = tab.on_use(mine, [other, "gone", mine])
    assert update["value"] == [other, mine]
    assert {identity for _, identity in update["choices"]} == set(site.adapters())


def test_files_that_are_not_pictures_are_left_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site.adapter(id_of(site, "wide"))
    beside = path.with_suffix(".png")
    assert picture(read_summary(path)) is None
    beside.write_bytes(b"<svg onload=alert(1)>")
    assert picture(read_summary(path)) is None
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    beside.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + b"\0\0\0\0")
    assert picture(read_summary(path)) is None
    Image.new("RGBA", (64, 32)).save(beside)
    assert picture(read_summary(path)).size == (384, 192)  # type: ignore[union-attr]
    monkeypatch.setattr("sd_lora.webui.adapter_files._MOST_PIXELS", 64 * 32 - 1)
    assert picture(read_summary(path)) is None


@pytest.mark.parametrize("with_preview", [True, False])
def test_events_are_private_and_show_errors_as_text(site: Site, with_preview: bool) -> None:
    with gr.Blocks() as page:
        fields = PreviewInputs(gr.Dropdown([], multiselect=True), gr.Textbox())
        adapters_tab.build(site, fields if with_preview else None)
    assert page.get_api_info()["named_endpoints"] == {}
    assert {fn.api_visibility for fn in page.fns.values()} == {"private"}
    handlers = [fn.fn for fn in page.fns.values() if fn.fn is not None]
    assert len(handlers) == (7 if with_preview else 6)
    download = next(h for h in handlers if getattr(h, "__name__", "") == "on_download")
    with pytest.raises(gr.Error) as caught:
        download(IMAGE)
    assert "<img" not in str(caught.value.message)
