"""The form of a run: every setting with its help, only what differs as an override, and no way to name a path."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from sd_lora.webui.dataset_notes import keep_trigger, trigger_of
from sd_lora.webui.site import Site
from sd_lora.webui.tabs.train import form, idle, lengths, sources
from sd_lora.webui.tabs.train import plots as train_plots
from sd_lora.webui.tabs.train import queue as train_queue
from sd_lora.webui.tabs.train import run as train_run
from sd_lora.webui.tabs.train import tab as train_tab
from sd_lora.webui.tabs.train import view as train_view

from sd_lora import ConfigError, RunConfig
from sd_lora.check.result import Check
from sd_lora.config import schema as config
from sd_lora.config.help import setting_help
from sd_lora.config.presets import preset_summary
from sd_lora.config.reading import unjudged
from sd_lora.data.findings import Finding
from sd_lora.preview.service import PreviewService
from sd_lora.runs.state import RunState

PLACES = [
    (section.name, item.name) for section in fields(RunConfig) for item in fields(cast(Any, section).default_factory)
]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for folder in ("runs", "data/photos", "data/more", "work"):
        (tmp_path / folder).mkdir(parents=True)
    service = cast(PreviewService, SimpleNamespace(base="tiny", reader=SimpleNamespace(open_base=lambda: None)))
    return Site(service, tmp_path / "runs", tmp_path / "data", tmp_path / "work", "tiny")


@pytest.fixture
def page(site: Site, monkeypatch: pytest.MonkeyPatch) -> gr.Blocks:
    monkeypatch.setattr(train_queue.RunQueue, "start", lambda _: None)
    preview = SimpleNamespace(adapter=None)
    with gr.Blocks(analytics_enabled=False) as page:
        preview.adapter = gr.Dropdown([], multiselect=True)
        dataset = SimpleNamespace(dataset=gr.Dropdown([]), trigger=gr.Textbox(), train=gr.Button())
        train_tab.build(site, cast(Any, dataset)).send_results_to(cast(Any, preview))
    return page


@pytest.fixture
def handlers(page: gr.Blocks) -> dict[str, Any]:
    return {str(fn.name): fn.fn for fn in page.fns.values()}


def filled(site: Site, preset: str = "", **changed: Any) -> list[Any]:
    """The fields as the form shows a preset, some of them changed (``section__key``)."""
    plain = form.preset_config(site, preset)
    shown = {s.place: s.to_field(getattr(getattr(plain, s.section), s.key)) for s in form.settings()}
    new = {cast(tuple[str, str], tuple(name.split("__"))): value for name, value in changed.items()}
    assert set(new) <= set(shown)
    return list((shown | new).values())


def given(site: Site, preset: str = "", **changed: Any) -> dict[str, dict[str, Any]]:
    return form.overrides(form.preset_config(site, preset), filled(site, preset, **changed), site)


def test_every_setting_of_the_config_has_a_field_with_its_help(page: gr.Blocks) -> None:
    by_id = {block.elem_id: block for block in page.blocks.values() if block.elem_id}
    fixed = {("data", "folder"): "train-dataset", ("output", "folder"): "train-name"}
    for section, key in PLACES:
        name = key if (section, key) in form._SHORT else f"{section}-{key}"
        field = cast(Any, by_id[fixed.get((section, key), f"train-{name}".replace("_", "-"))])
        if (section, key) not in form.SET_BY_PAGE:
            text = setting_help()[f"{section}.{key}"]
            shown = text.partition("; rule of thumb")[0]  # which the preset replaces
            assert shown in field.info or shown.replace("absent:", "left empty:") in field.info
            assert shown
            assert ("absent" in field.info) == (isinstance(field, gr.Dropdown) and "absent" in text)
            assert (field.interactive is False) == field.info.startswith("Off: ")
        elif section == "model":
            assert field.interactive is False
            assert field.info
    ids = [block.elem_id for block in page.blocks.values() if block.elem_id]
    assert len(ids) == len(set(ids))


def test_the_help_is_the_text_under_each_setting_of_the_config() -> None:
    texts = setting_help()
    assert [place for place in PLACES if not texts[".".join(place)]] == [("model", "base")]  # described by its section
    assert texts["optimizer.name"].endswith("the others sd-lora[optimizers]")  # a text of two lines
    assert texts["data"] == "The images and their captions."
    classes = [node for node in ast.parse(inspect.getsource(config)).body if isinstance(node, ast.ClassDef)]
    written = [ast.literal_eval(n.value) for body in classes for n in body.body[1:] if isinstance(n, ast.Expr)]
    assert " ".join(written).split() == " ".join(texts[f"{s}.{k}"] for s, k in PLACES).split()
    with pytest.raises(TypeError):
        cast(Any, texts)["data"] = ""


@pytest.mark.parametrize("preset", ["", "tiny-style"])
def test_an_untouched_form_overrides_nothing(site: Site, preset: str) -> None:
    assert given(site, preset) == {}
    dataset = site.id_of(site.data / "photos")
    made = form.config_of(site, preset, dataset, filled(site, preset))
    plain = form.preset_config(site, preset)
    assert made == replace(plain, data=replace(plain.data, folder=str(site.data / "photos")))


@pytest.mark.parametrize(
    ("place", "raw", "value"),
    [
        ("training__steps", " 12 ", "12"), ("training__steps", "", None), ("lora__rank", 8, 8),
        ("optimizer__learning_rate", 1e-6, 1e-6), ("data__flip", False, False), ("model__dtype", "float16", "float16"),
        ("training__gradient_checkpointing", "ff", "ff"), ("training__gradient_checkpointing", "no", False),
        ("data__trigger", " zwq ", "zwq"),
        ("lora__targets", "attn,  unet.mid_block.*", ["attn", "unet.mid_block.*"]), ("lora__targets", "", []),
        ("preview__prompts", "a, b\n\nc ", ["a, b", "c"]), ("optimizer__betas", "0.9, 0.99", ["0.9", "0.99"]),
        ("lora__ranks", "a.* = 4\n\n\"b=c\" = 8", {"a.*": "4", "b=c": "8"}), ("training__seed", 2**32 - 1, 2**32 - 1),
    ],
)  # fmt: skip
def test_a_changed_field_is_the_only_override(site: Site, place: str, raw: Any, value: Any) -> None:
    section, key = place.split("__")
    assert given(site, **{place: raw}) == {section: {key: value}}
    if value != []:
        made = form.config_of(site, "", site.id_of(site.data / "photos"), filled(site, **{place: raw}))
        assert getattr(getattr(made, section), key) != getattr(getattr(form.preset_config(site, ""), section), key)


@pytest.mark.parametrize(
    ("place", "raw"),
    [("lora__rank", None), ("lora__targets", "attn,ff ,conv"), ("data__trigger", "  "), ("training__steps", "400 "),
     ("preview__strengths", "0,0.5,1"), ("optimizer__learning_rate", 0.004)],
)  # fmt: skip
def test_another_spelling_of_the_same_value_is_no_override(site: Site, place: str, raw: Any) -> None:
    assert given(site, **{place: raw}) == {}


def test_folders_and_adapters_are_named_by_id(site: Site) -> None:
    (site.runs / "old").mkdir()
    (site.runs / "old" / "adapter.safetensors").write_bytes(b"")
    ids = {
        "data__regularisation": site.id_of(site.data / "more"), "data__cache": "shared",
        "lora__init": site.id_of(site.runs / "old" / "adapter.safetensors"),
    }  # fmt: skip
    changed = given(site, **ids)
    assert changed["data"] == {"regularisation": str(site.data / "more"), "cache": str(site.runs / ".cache")}
    assert changed["lora"] == {"init": str(site.runs / "old" / "adapter.safetensors")}
    for place in ("data__regularisation", "lora__init"):
        with pytest.raises(ConfigError, match="no longer exists"):
            given(site, **{place: "/etc"})
    dataset = site.id_of(site.data / "photos")
    secret = site.work / "secret.toml"
    secret.write_text("[lora]\nrank = 3\n")
    for preset, chosen in (("", "/etc"), ("", ""), (str(secret), dataset)):
        with pytest.raises(ConfigError, match="choose"):
            form.config_of(site, preset, chosen, filled(site))


def test_all_unusable_values_are_reported_in_one_sentence(site: Site) -> None:
    values = filled(site, lora__rank=0, training__steps="many", lora__dropout=2, preview__strengths="a")
    with pytest.raises(ConfigError) as refused:
        form.config_of(site, "", site.id_of(site.data / "photos"), values)
    message = str(refused.value)
    assert "\n" not in message
    for name in ("lora.rank", "training.steps", "lora.dropout", "preview.strengths"):
        assert name in message
    with pytest.raises(ConfigError, match=r'lora\.ranks has the line "a"'):
        given(site, lora__ranks="a")


def test_an_emptied_number_is_not_filled_in_silently(site: Site) -> None:
    values = filled(site, lora__rank=None, optimizer__learning_rate=None)
    with pytest.raises(ConfigError, match="rank, learning_rate: the field is empty"):
        form.config_of(site, "", site.id_of(site.data / "photos"), values)


def test_a_gamma_alone_does_not_turn_a_weighting_on(site: Site) -> None:
    dataset = site.id_of(site.data / "photos")
    with pytest.raises(ConfigError, match=r"min_snr_gamma has no effect with training\.weighting=none"):
        form.config_of(site, "", dataset, filled(site, training__min_snr_gamma=3))
    both = filled(site, training__min_snr_gamma=3, training__weighting="min-snr")
    made = form.config_of(site, "", dataset, both)
    assert (made.training.weighting, made.training.min_snr_gamma) == ("min-snr", 3)


def on(site: Site, pipeline: str) -> Site:
    """The page on a base model of that class."""
    folder = site.work / pipeline
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return replace(site, base=str(folder))


def test_only_presets_of_the_base_model_are_offered_each_with_what_it_is_for(site: Site) -> None:
    assert [value for _, value in sources.choices(site)] == ["tiny-style"]
    assert sources.choices(site)[0][0] == f"tiny-style: {preset_summary('tiny-style')}"
    sd, xl = on(site, "StableDiffusionPipeline"), on(site, "StableDiffusionXLPipeline")
    assert [value for _, value in sources.choices(sd)] == ["style"]
    assert [value for _, value in sources.choices(xl)] == ["style", "sdxl-style-block"]
    flux = on(site, "FluxPipeline")
    assert [value for _, value in sources.choices(flux)] == ["flux-style"]
    assert form.preset_config(flux, "").preview.guidance == 3.5  # of flux-style
    for where, name in ((site, "style"), (sd, "tiny-style"), (sd, "sdxl-style-block")):
        with pytest.raises(ConfigError, match=f'preset "{name}" .*; use (tiny-)?style, or leave the preset out'):
            form.preset_config(where, name)


def test_another_preset_keeps_what_was_changed_by_hand(site: Site) -> None:
    sources.save(site, "mine", sources.with_options(form.preset_config(site, ""), {"lora": {"rank": 4, "alpha": 2}}))
    values = filled(site, "", training__steps="77", lora__rank=8)
    new = form.switched(site, "", "own:mine", values)
    by_place = {s.place: value for s, value in zip(form.settings(), new, strict=True)}
    for place in (("training", "steps"), ("lora", "rank")):
        assert by_place[place] == gr.skip()
    assert by_place["lora", "alpha"] == 2


def test_settings_are_saved_without_what_belongs_to_one_run(site: Site) -> None:
    dataset = site.id_of(site.data / "photos")
    values = filled(site, lora__rank=4, data__trigger="zwq", preview__prompts="a cat", training__threads="2")
    value = sources.save(site, " my ink ", form.config_of(site, "", dataset, values))
    assert (f"saved: {value[4:]}", value) in sources.choices(site)
    saved = form.preset_config(site, value)
    assert saved.lora.rank == 4
    assert (saved.data.folder, saved.data.trigger, saved.preview.prompts, saved.training.threads) == ("", "", (), None)
    for name in ("", "../evil", "a/b", ".hidden", "x" * 41):
        with pytest.raises(ConfigError, match="saved preset needs a name"):
            sources.save(site, name, saved)
    for value in ("own:none", "own:../../runs/x", "run:none", "/etc/passwd"):
        with pytest.raises(ConfigError, match=r"no longer exists|does not exist"):
            form.preset_config(site, value)


def test_settings_of_a_run_are_copied(site: Site) -> None:
    run = write_run(site, "old")
    made = form.config_of(site, "", site.id_of(site.data / "photos"), filled(site, lora__rank=5, data__trigger="old"))
    (run / "config.toml").write_text(made.to_toml())
    source = f"run:{site.id_of(run)}"
    assert ("settings of the run old", source) in sources.choices(site)
    new = form.switched(site, "", source, filled(site, data__trigger="mine"))
    by_place = {s.place: value for s, value in zip(form.settings(), new, strict=True)}
    assert by_place["lora", "rank"] == 5
    assert by_place["data", "trigger"] == gr.skip()
    again = form.config_of(site, source, site.id_of(site.data / "more"), filled(site, source))
    assert again.data.folder == str(site.data / "more")
    assert again.lora.rank == 5


def test_fields_without_effect_say_why_and_come_back(site: Site, handlers: dict[str, Any]) -> None:
    def updates(**changed: Any) -> dict[tuple[str, str], Any]:
        return dict(zip(idle.TRIED, handlers["on_deciding"]("", *filled(site, **changed)), strict=True))

    plain = updates()
    gamma, power = ("training", "min_snr_gamma"), ("optimizer", "power")
    assert plain[gamma]["interactive"] is False
    assert "Off: training.min_snr_gamma has no effect with training.weighting=none" in plain[gamma]["info"]
    assert plain[power]["interactive"] is False
    assert plain["training", "average"]["interactive"] is True
    other = updates(training__weighting="min-snr", optimizer__schedule="polynomial")
    assert other[gamma]["interactive"] is other[power]["interactive"] is True
    assert "Off" not in other[gamma]["info"]
    changed = updates(training__min_snr_gamma=3)  # which can be changed back
    assert changed[gamma]["interactive"] is True


def test_every_tried_setting_can_be_idle_or_is_decided_here(site: Site) -> None:
    """A value that is tried must be one that the setting can have, or nothing would be found."""
    plain = form.preset_config(site, "")
    for (section, key), values in idle.TRIED.items():
        for value in values:
            unjudged({section: {key: value}})
            assert value != getattr(getattr(plain, section), key)


@pytest.mark.parametrize(
    ("length", "preset_steps", "images", "steps"),
    [("Quick", 400, 0, 160), ("Normal", 400, 8, 400), ("Thorough", 400, 8, 800), ("Quick", None, 0, None),
     ("Quick", None, 10, 480), ("Normal", None, 10, None), ("Thorough", None, 10, 2400)],
)  # fmt: skip
def test_a_length_is_a_share_of_the_presets_steps(
    site: Site, length: str, preset_steps: int | None, images: int, steps: int | None
) -> None:
    config = sources.with_options(form.preset_config(site, ""), {"training": {"steps": preset_steps, "batch_size": 1}})
    for number in range(images):
        (site.data / "photos" / f"{number}.png").write_bytes(b"")
    assert lengths.steps_of_length(length, config, site.data / "photos") == steps


def test_a_length_fills_in_the_steps_and_follows_the_preset(site: Site, handlers: dict[str, Any]) -> None:
    dataset = site.id_of(site.data / "photos")
    assert handlers["on_length"]("Quick", "", dataset) == "160"
    sources.save(site, "short", sources.with_options(form.preset_config(site, ""), {"training": {"steps": 100}}))
    place = 1 + [s.place for s in form.settings()].index(("training", "steps"))
    quick = filled(site, training__steps="160")
    assert handlers["on_preset"]("own:short", "Quick", dataset, "", *quick)[place] == "40"
    by_hand = filled(site, training__steps="77")
    assert handlers["on_preset"]("own:short", "Quick", dataset, "", *by_hand)[place] == gr.skip()


def test_a_dataset_brings_its_trigger_word_and_a_free_name(site: Site, handlers: dict[str, Any]) -> None:
    photos, more = site.id_of(site.data / "photos"), site.id_of(site.data / "more")
    keep_trigger(site.data / "photos", "zwq")
    assert handlers["on_dataset"](photos, "", "Normal", "")[:2] == ["zwq", "photos"]
    (site.runs / "photos").mkdir()
    assert handlers["on_dataset"](photos, "", "Normal", "more")[:2] == ["zwq", "photos-2"]
    assert handlers["on_dataset"](more, "", "Normal", "my own")[:2] == ["", gr.skip()]  # that stays
    handlers["on_trigger"](more, " inky ")
    assert trigger_of(site.data / "more") == "inky"
    chosen, trigger, *_ = handlers["on_handed_over"](photos, "new", "", "Normal", "")
    assert (chosen["value"], trigger, trigger_of(site.data / "photos")) == (photos, "new", "new")
    with pytest.raises(gr.Error, match="no dataset is chosen"):
        handlers["on_handed_over"](None, "", "", "Normal", "")


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../evil", "/etc/evil", "a/b", "a\\b", ".hidden", "-rf", "--out", "_x", "a\nb", "a\0b",
     "a\x1bb", "x" * 61, "nul", "Con.txt", "com1", "dot.", "<b>", "a:b", "a*", "~root", "$HOME", "taken", "link",
     "data"],
)  # fmt: skip
def test_hostile_names_of_runs_are_refused(site: Site, name: str) -> None:
    (site.runs / "taken").mkdir()
    (site.runs / "link").symlink_to("nowhere")
    site = replace(site, data=site.runs / "data")
    with pytest.raises(ConfigError):
        form.run_name(site, name)


def test_a_run_without_a_name_has_that_of_its_dataset(site: Site) -> None:
    assert form.run_name(site, " ", site.data / "photos") == "photos"
    assert form.run_name(site, "", site.data / "<my> photos!") == "my- photos"


@pytest.mark.parametrize("name", ["my run.2", "  7-a_b ", "Straße", "x" * 60])
def test_ordinary_names_of_runs_are_accepted(site: Site, name: str) -> None:
    assert form.run_name(site, name) == name.strip()


def checked(*codes: str) -> Check:
    return Check(
        "photos", "sidecars", "2 images <b>", [], [Finding(code, "<i>.png", "<u>odd</u>") for code in codes], None
    )


def texts_of(updates: Sequence[Any]) -> list[str]:
    return [update.get("value") or "" for update in updates if isinstance(update, dict)]


@pytest.fixture
def asked(site: Site) -> list[Any]:
    """The fields of a complete form."""
    return ["new", site.id_of(site.data / "photos"), "", *filled(site, data__trigger="zwq")]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of runs that were started."""
    folders: list[Path] = []
    monkeypatch.setattr(train_queue, "start_run", lambda _, folder: folders.append(folder))
    return folders


PLAN = SimpleNamespace(images=2, steps=3, batch_size=1, exposures=3, seconds=9.0, memory_bytes=None, buckets=())


def test_a_dataset_with_errors_is_not_trained_on(
    site: Site, handlers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, asked: list[Any], started: list[Path]
) -> None:
    monkeypatch.setattr(train_tab, "check_folder", lambda _, **__: check)
    check = checked("caption-missing", "set-small")
    last = list(handlers["on_start"](*asked))[-1]
    assert "not started" in texts_of(last)[0]
    assert 'data-marks="train-dataset"' in texts_of(last)[0]
    assert "&lt;i&gt;.png" in texts_of(last)[1]
    assert "<b>" not in texts_of(last)[1].replace("<p><b>2 images &lt;b&gt;</b>", "")
    assert started == []
    check = checked()
    assert "not started" in texts_of(list(handlers["on_start"](*asked))[-1])[0]  # nothing to train on
    check = replace(checked("set-small"), plan=cast(Any, PLAN))
    last = list(handlers["on_start"](*asked))[-1]
    assert "new has started" in texts_of(last)[0]
    assert last[2]["value"] == site.id_of(site.runs / "new")
    assert last[3] == "photos"  # the name of the next one
    assert started == [site.runs / "new"]
    check = checked("caption-missing")
    assert "has started" in texts_of(list(handlers["on_start"](*asked))[-1])[0]  # by the recent check
    assert "&lt;i&gt;.png" in texts_of(list(handlers["on_check"](*asked[1:]))[-1])[1]
    assert "not started" in texts_of(list(handlers["on_start"](*asked))[-1])[0]
    last = list(handlers["on_start"]("../evil", *asked[1:]))[-1]
    assert "name has up to 60" in texts_of(last)[0]
    assert 'data-marks="train-name"' in texts_of(last)[0]
    assert len(started) == 2


def test_without_a_trigger_word_one_is_offered(
    site: Site, handlers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, started: list[Path]
) -> None:
    configs = list[RunConfig]()

    def look(config: RunConfig, **_: Any) -> Check:
        configs.append(config)
        return replace(checked(), plan=cast(Any, PLAN))

    monkeypatch.setattr(train_tab, "check_folder", look)
    (site.data / "My Ink 2").mkdir()
    asked = ["", site.id_of(site.data / "My Ink 2"), "", *filled(site)]
    (only,) = handlers["on_start"](*asked)
    assert "there is no trigger word" in texts_of(only)[0]
    assert 'data-marks="train-trigger"' in texts_of(only)[0]
    assert only[4]["visible"] is True
    assert only[5]["value"] == 'Use "my-ink-2"'
    assert started == []
    *_, last = handlers["on_suggested"](*asked)
    assert last[-1] == "my-ink-2"
    assert last[4]["visible"] is False
    assert configs[-1].data.trigger == trigger_of(site.data / "My Ink 2") == "my-ink-2"
    list(handlers["on_without"](*asked))
    assert configs[-1].data.trigger == ""
    assert [folder.name for folder in started] == ["My Ink 2", "My Ink 2"]


def test_an_error_marks_the_fields_that_it_is_about(site: Site, handlers: dict[str, Any]) -> None:
    dataset = site.id_of(site.data / "photos")
    values = filled(site, data__trigger="x", lora__rank=0, training__hold_out=2)
    last = list(handlers["on_start"]("new", dataset, "", *values))[-1]
    assert 'data-marks="train-rank train-training-hold-out"' in texts_of(last)[0]
    last = list(handlers["on_start"]("new", None, "", *values))[-1]
    assert 'data-marks="train-dataset"' in texts_of(last)[0]
    assert "choose a dataset" in texts_of(last)[0]


def test_settings_that_cannot_act_are_refused_before_the_images_are_read(
    site: Site, handlers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_tab, "check_folder", lambda _, **__: pytest.fail("the images were read"))
    values = filled(
        site,
        data__trigger="x",
        training__average="ema",
        optimizer__name="schedule-free",
        optimizer__schedule="constant",
    )
    asked = (site.id_of(site.data / "photos"), "", *values)
    for updates in (handlers["on_check"](*asked), handlers["on_start"]("new", *asked)):
        assert "schedule-free, which averages already" in texts_of(list(updates)[-1])[0]


def test_every_event_is_private_and_shows_errors_as_sentences(page: gr.Blocks) -> None:
    for fn in page.fns.values():
        assert fn.api_visibility == "private", fn.name
        leaves = any(event == "unload" for _, event in fn.targets)  # nobody is there to read an error
        assert leaves or fn.fn is None or hasattr(fn.fn, "__wrapped__"), fn.name


def write_run(site: Site, name: str, steps: int = 3) -> Path:
    folder = site.runs / name
    (folder / "samples").mkdir(parents=True)
    (folder / "config.toml").write_text("")
    (folder / "samples" / "step-000002.png").write_bytes(b"a picture")
    lines = [json.dumps({"step": i, "steps": 9, "loss": 1 / i, "learning_rate": 1, "seconds": 1, "memory": 1})
             for i in range(1, steps + 1)]  # fmt: skip
    (folder / "log.jsonl").write_text("\n".join(lines))
    return folder


def test_a_reload_shows_the_newest_active_run(
    site: Site, handlers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        os.utime(write_run(site, name) / "config.toml", (1e9 - age,) * 2)
    assert handlers["on_return"]()["value"] == site.id_of(site.runs / "newest")
    monkeypatch.setattr(train_run, "run_status", lambda path: "stopped" if path.name == "newest" else "running")
    again = handlers["on_return"]()
    assert again["value"] == site.id_of(site.runs / "middle")
    assert [label for label, _ in again["choices"]] == ["newest · stopped", "middle · running", "oldest · running"]


def test_a_tick_sends_only_what_has_changed(site: Site, handlers: dict[str, Any]) -> None:
    folder, identity = write_run(site, "first"), site.id_of(site.runs / "first")
    timer, progress, loss, validation, samples, _, _, _, stop, resume, end, *_, seen = handlers["on_run"](identity)
    assert timer.active is False
    assert "step 3 of 9" in progress["value"]
    assert "<polyline" in loss["value"]
    assert validation["visible"] is False
    assert [button["interactive"] for button in (stop, resume, end)] == [False, True, True]
    [(shown, caption)] = samples["value"]
    assert caption == "step 2"
    assert Path(shown).is_relative_to(site.work)  # browsers get no file of the run itself
    assert Path(shown).read_bytes() == b"a picture"
    again = handlers["on_tick"](identity, seen)
    assert all(part == gr.skip() for part in (*again[:8], *again[11:13], *again[14:16], again[-1]))
    write_run(site, "second")
    assert handlers["on_tick"](site.id_of(site.runs / "second"), seen)[1] != gr.skip()
    (folder / "samples" / "step-000004.png").symlink_to("/etc/passwd")
    assert len(handlers["on_tick"](identity, seen)[4]["value"]) == 1
    for path in (folder / "samples").iterdir():
        path.unlink()
    (folder / "config.toml").unlink()
    gone = handlers["on_tick"](identity, seen)
    assert gone[0].active is False
    assert gone[-1]["value"] is None


def test_names_and_errors_are_escaped() -> None:
    state = RunState("<b>", "failed", error="<script>x</script>")
    assert "<script>" not in train_view.progress_html(state)
    assert "<b>:" not in train_view.progress_html(state)
    assert train_view.message_html("<i>", is_error=True).endswith(">&lt;i&gt;</div>")


def test_curves_are_drawn_for_any_number_of_points() -> None:
    assert train_plots.chart("x", [train_plots.Curve("a", "red", [])]) == ""
    for points in ([(3, 0.0)], [(3, 0.5)], [(1, 1e-9), (2, 1e9)], [(i, i % 7) for i in range(800)]):
        drawn = train_plots.chart("<x>", [train_plots.Curve("<a>", "red", points)])
        assert "<x>" not in drawn
        assert "<a>" not in drawn
        assert "nan" not in drawn
        marks = [float(m.replace(",", "")) for m in re.findall(r'class="x"[^>]*>([^<]+)<', drawn)]
        assert marks == sorted(set(marks))
        assert all(points[0][0] - 1 <= mark <= points[-1][0] + 1 for mark in marks)


def test_a_running_run_is_ended_when_it_has_stopped_and_a_stopped_one_at_once(
    site: Site, handlers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = write_run(site, "first"), list[str]()
    identity, status = site.id_of(folder), "running"

    def read(path: Path) -> RunState:
        return RunState(path.name, status, 3, 9, can_resume=status == "stopped")  # type: ignore[arg-type]

    monkeypatch.setattr(train_run, "read_run", read)
    monkeypatch.setattr(train_run, "stop_run", lambda path: asked.append(f"stop {path.name}"))
    monkeypatch.setattr(train_run, "resume_run", lambda path, **how: asked.append(f"{'finish' in how} {path.name}"))
    *_, seen, _ = handlers["on_end"](identity)
    *_, seen, _ = handlers["on_tick"](identity, seen)
    assert asked == ["stop first"]
    other = {**seen, "name": "another"}
    status = "stopped"
    handlers["on_tick"](identity, other)
    assert asked == ["stop first"]
    *_, seen, _ = handlers["on_tick"](identity, seen)
    assert asked == ["stop first", "True first"]
    handlers["on_tick"](identity, seen)  # once
    handlers["on_end"](identity)
    assert asked == ["stop first", "True first", "True first"]
