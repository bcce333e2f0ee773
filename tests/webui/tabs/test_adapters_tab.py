"""The Adapters tab: what it lists, shows and sends, for trusted and untrusted files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image
from sd_lora.webui.adapter_files import picture
from sd_lora.webui.site import Site
from sd_lora.webui.tabs import adapters as adapters_tab
from sd_lora.webui.tabs.adapters import HEADERS
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


def selected(tab: Any, identity: Any) -> list[tuple[Any, ...]]:
    return list(tab.on_select(SimpleNamespace(row_value=[*["x"] * (len(HEADERS) - 1), identity])))


def table(tab: Any) -> dict[str, dict[str, str]]:
    rows, _ = tab.on_list()
    return {row[0]: dict(zip(HEADERS, row, strict=True)) for row in rows}


# ---- the list


def test_every_adapter_is_listed_with_its_facts(tab: Any, site: Site) -> None:
    rows = table(tab)
    assert list(rows) == ["mine", IMAGE.replace("/", ""), "damaged", "wide"]
    mine = rows["mine"]
    path = site.runs / "mine/adapter.safetensors"
    assert (mine["base"], mine["fits"], mine["rank"], mine["alpha"], mine["steps"], mine["trigger"]) == (
        site.service.base, "yes", "4", "2", "40", "in ink style",
    )  # fmt: skip
    assert mine["sha256"] == site.service.sha256(path)[:12]
    assert site.adapter(mine["id"]) == path
    assert mine["MB"] == f"{path.stat().st_size / 1e6:.1f}"


def test_the_list_says_whether_an_adapter_fits_as_far_as_known(tab: Any, site: Site) -> None:
    before = {name: row["fits"] for name, row in table(tab).items()}
    assert before == {"mine": "yes", IMAGE: "unknown", "damaged": "no", "wide": "unknown"}
    for name in (IMAGE, "wide"):
        selected(tab, id_of(site, name))
    assert {name: row["fits"] for name, row in table(tab).items()} == before | {IMAGE: "yes", "wide": "no"}


def test_an_adapter_of_another_kind_than_the_fitting_ones_does_not_fit(tab: Any, site: Site) -> None:
    for name, kind in (("runs/mine/adapter", "sd_v1"), ("lib/wide", "sd_v2")):
        path = site.runs.parent / f"{name}.safetensors"
        adapter = Adapter.load(path)
        adapter.metadata["ss_base_model_version"] = kind
        adapter.save(path)
    assert table(tab)["wide"]["fits"] == "no"


def test_text_from_files_is_shown_as_text(tab: Any) -> None:
    rows, _ = tab.on_list()
    assert all(type(cell) is str for row in rows for cell in row)
    assert table(tab)[IMAGE]["trigger"] == IMAGE
    with gr.Blocks():
        tab.table_of_all()
    assert tab.table.datatype == "str"
    assert not tab.table.interactive


def test_hashing_stops_when_the_time_of_a_listing_is_up(tab: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters_tab, "_HASHING", -1.0)
    assert {row["sha256"] for row in table(tab).values()} == {"…"}


def test_an_empty_list_says_so(service: PreviewService, tmp_path: Path) -> None:
    rows, hint = adapters_tab._Tab(Site(service, tmp_path, tmp_path, tmp_path), None).on_list()
    assert rows == []
    assert "no adapters yet" in hint


def test_a_changed_file_is_read_again(tab: Any, site: Site) -> None:
    assert table(tab)["wide"]["base"] == "other"
    adapter = Adapter.load(site.adapter(id_of(site, "wide")))
    adapter.metadata["ss_sd_model_name"] = "another one"
    adapter.save(site.adapter(id_of(site, "wide")))
    assert table(tab)["wide"]["base"] == "another one"


# ---- one adapter


def test_selecting_shows_the_facts_at_once_and_then_whether_it_fits(tab: Any, site: Site) -> None:
    first, last = selected(tab, id_of(site, "mine"))
    assert "Checking whether it fits" in first[2]
    assert f"It fits {site.service.base}." in last[2]
    assert (last[0], last[4]) == (id_of(site, "mine"), "in ink style")
    assert last[5]["sdlora.base"] == site.service.base


@pytest.mark.parametrize("name", ["wide", "damaged"])
def test_an_adapter_that_does_not_fit_is_reported_and_not_sent_on(tab: Any, site: Site, name: str) -> None:
    description = selected(tab, id_of(site, name))[-1][2]
    assert f"cannot be used on {site.service.base}: " in description
    assert str(site.runs.parent) not in description
    with pytest.raises(ConfigError, match="cannot be used"):
        tab.on_use(id_of(site, name), [])


def test_markup_in_metadata_and_names_is_shown_as_text(tab: Any, site: Site) -> None:
    for shown in selected(tab, id_of(site, "<img")):
        assert "<script" not in shown[2]
        assert "<img" not in shown[2]
        assert "&lt;script&gt;" in shown[2]
        assert shown[4] == IMAGE  # a text field
        assert isinstance(shown[5], dict)
        assert len(json.dumps(shown[5])) < 30_000
    assert shown[5][SCRIPT] == IMAGE
    assert shown[5]["a long one"].endswith("(100000 characters)")
    assert shown[5]["…"].endswith(" more")


@pytest.mark.parametrize("identity", ODD_IDS)
def test_only_listed_ids_are_accepted(tab: Any, site: Site, identity: str) -> None:
    calls = [
        lambda: selected(tab, identity), lambda: tab.on_download(identity), lambda: tab.on_use(identity, []),
        lambda: tab.on_convert(identity, "kohya", "", ""),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ConfigError, match=r"no longer exists|no adapter is selected"):
            call()
    assert not list(site.work.iterdir())


def test_paths_are_not_ids(tab: Any, site: Site) -> None:
    for path in site.adapters().values():
        with pytest.raises(ConfigError):
            tab.on_download(str(path))


@pytest.mark.parametrize("row", [None, [], "abc", {}, [[]], [None], 3])
def test_an_odd_selection_is_refused(tab: Any, row: Any) -> None:
    with pytest.raises(ConfigError):
        list(tab.on_select(SimpleNamespace(row_value=row)))


def test_a_deleted_file_is_reported(tab: Any, site: Site) -> None:
    gone = id_of(site, "mine")
    site.adapter(gone).unlink()
    with pytest.raises(ConfigError, match="no longer exists"):
        selected(tab, gone)


# ---- files to download


def test_a_download_is_a_copy_under_a_harmless_name(tab: Any, site: Site) -> None:
    source = site.adapter(id_of(site, "mine"))
    out = Path(tab.on_download(id_of(site, "mine")))
    assert out.name == "mine.safetensors"
    assert out.is_relative_to(site.work)
    assert out.read_bytes() == source.read_bytes()
    assert not out.samefile(source)
    assert Path(tab.on_download(id_of(site, "mine"))) == out
    out.unlink()  # as the janitor does
    assert Path(tab.on_download(id_of(site, "mine"))).is_file()
    odd = Path(tab.on_download(id_of(site, "<img")))
    assert odd.name == "img_src_x_onerror_alert_2.safetensors"
    assert [path.name for path in site.work.rglob(".*")] == []


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
    assert len(handlers) == (5 if with_preview else 4)
    download = next(h for h in handlers if getattr(h, "__name__", "") == "on_download")
    with pytest.raises(gr.Error) as caught:
        download(IMAGE)
    assert "<img" not in str(caught.value.message)
