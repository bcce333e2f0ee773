"""The Dataset tab: names and captions are text, tokens are counted as in training, unknown ids change nothing."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from dataset_pages import HOSTILE, SCRIPT, Write, everything, opened, refusal, uploads, value
from PIL import Image
from sd_lora.webui.dataset_notes import keep_trigger, trigger_of
from sd_lora.webui.messages import status_html, with_errors_shown
from sd_lora.webui.site import Site
from sd_lora.webui.tabs.dataset import checker as dataset_checker
from sd_lora.webui.tabs.dataset import report as dataset_report
from sd_lora.webui.tabs.dataset import tab as dataset_tab
from sd_lora.webui.tabs.dataset import upload as dataset_upload
from sd_lora.webui.tabs.dataset.drafts import Visit

import sd_lora
from sd_lora.check.result import Check
from sd_lora.config.schema import ModelConfig
from sd_lora.data.findings import Finding
from sd_lora.models.opening import open_base
from sd_lora.preview.service import PreviewService

IDS = """
welcome demo choice trigger train check upload folder add name rename status summary duplicates findings buckets gallery
picture-name picture turn remove caption tokens previous next save undo discard message drafts words others add-words
replace act hint
"""


def test_components_can_be_found_and_no_event_is_public(site: Site) -> None:
    with gr.Blocks() as page:
        dataset_tab.build(site)
    ids = {getattr(block, "elem_id", None) for block in page.blocks.values()}
    assert {f"dataset-{name}" for name in IDS.split()} <= ids
    assert page.fns
    assert all(event.api_visibility == "private" for event in page.fns.values())
    assert dataset_tab.STYLES.is_file()


def test_a_real_check_is_shown_with_text_from_files_as_text(tab: Any, site: Site, captioned: Write) -> None:
    folder = captioned("data/ink", count=3)
    (folder / "00.txt").write_text(f"{SCRIPT}\n")
    (folder / HOSTILE).write_bytes((folder / "01.png").read_bytes())
    (folder / f"{HOSTILE[:-4]}.txt").write_text("a house\na red house\n")
    (folder / "02.txt").unlink()
    identity = dict(tab.site.dataset_choices())["ink"]
    keep_trigger(folder, "xlora")
    tab.site = tab.captions.site = tab.checker._site = replace(site, service=with_tiny(tab.site.service))
    updates = list(tab.on_choose(identity, Visit(), "", "", ""))
    assert updates[0][tab.trigger] == "xlora"
    shown = updates[-1]
    html = "".join(
        shown[part] for part in (tab.summary, tab.findings, tab.duplicates, tab.buckets, tab.captions.tokens)
    )
    assert not re.search(
        r"<(?!/?(div|p|ul|li|section|h4|span|code|table|caption|thead|tbody|tr|th|td|img|button)\b)", html
    )
    assert not re.search(r"<img (?!src=\"data:image/jpeg;base64)", html)
    for text in ("1 error", "caption-missing", "Duplicates", "400 steps of 8", "64 × 64", "&lt;img src=x onerror"):
        assert text in html
    assert str(site.data) not in html
    names = [label for _, label in value(shown[tab.captions.gallery])]
    assert names[0].startswith('00.png · & "x"')  # as it is trained: without markup
    assert names[-1].startswith(f"2× · {HOSTILE}")
    for path, _ in value(shown[tab.captions.gallery]):
        assert Path(path).is_relative_to(site.work)
    assert isinstance(shown[tab.captions.picture], Image.Image)
    assert shown[tab.captions.name] == "02.png"  # the one without a caption
    assert value(shown[tab.captions.caption]) == ""


def with_tiny(service: Any) -> Any:
    """The service, with the embedded base model to read captions with."""
    reader = SimpleNamespace(**vars(service.reader) | {"open_base": lambda: open_base(ModelConfig())})
    return SimpleNamespace(**vars(service) | {"reader": reader})


def test_other_text_from_files_is_escaped_too() -> None:
    hostile = dataset_report.drafts_html([HOSTILE] * 9) + status_html(HOSTILE, 0.5)
    assert "<img" not in hostile
    assert "and 1 more" in hostile
    assert "&lt;img" in str(toast_of(HOSTILE))


def test_the_path_of_a_folder_is_left_out() -> None:
    finding = Finding("no-images", None, "no images to learn from in /srv/secret/ink or below it")
    check = Check("/srv/secret/ink", "bare", "no images in /srv/secret/ink", [], [finding], None)
    html = dataset_report.findings_html(check) + dataset_report.summary_html(check)
    assert "no images to learn from in ink or below it" in html
    assert "secret" not in html
    assert dataset_report.buckets_html(check) == dataset_report.duplicates_html(check) == ""


def toast_of(name: str) -> str:
    def fails() -> None:
        dataset_upload.folder_name(name, ())

    with pytest.raises(gr.Error) as caught:
        with_errors_shown(fails)()
    return str(caught.value.message)


def test_tokens_are_counted_as_they_will_be_trained(tab: Any, folder: Path) -> None:
    _, visit, _ = opened(tab)
    on_type = tab.captions.on_type
    visit.open_desk().bases["00.png"] = "a b"
    assert "4 of 8 tokens<" in on_type(visit, "00.png", "a b", "")
    assert "7 of 8 tokens · not saved" in on_type(visit, "00.png", "a  b", "xyz ")  # "in xyz style" is added
    assert "line 2: 9 of 8 tokens; the end is not read" in on_type(visit, "00.png", "a\n1 2 3 4 5 6 7", "")
    assert "no caption" in on_type(visit, "00.png", " \n ", "")
    assert on_type(Visit(), "00.png", "a", "") == on_type(visit, "no.png", "a", "") == ""


def test_the_service_counts_as_training_does() -> None:
    pipe, family = sd_lora.load_base("tiny")
    service = PreviewService(pipe)
    try:
        texts = ["", "a red house", "漢字 😀 " * 40]
        assert [service.reader.token_count(text)[0] for text in texts] == family.token_counts(pipe, texts)
        assert service.reader.token_count("")[1] == family.token_limit(pipe)
        assert service.reader.open_base().pipe.tokenizer is not pipe.tokenizer  # that one is the drawing thread's
    finally:
        service.close()


@pytest.mark.parametrize("identity", [None, "", "../../etc", "0" * 12, "/etc"])
def test_unknown_datasets_are_refused(tab: Any, folder: Path, tmp_path: Path, identity: str | None) -> None:
    assert "dataset" in refusal(lambda: tab.on_check(identity, Visit(), "", "", ""))
    assert "dataset" in refusal(lambda: tab.on_add(identity, uploads(tmp_path, "a.png"), ""))
    assert "dataset" in refusal(lambda: tab.on_rename("new", identity, Visit(), "", "", ""))
    if identity:
        assert "dataset" in refusal(lambda: tab.on_choose(identity, Visit(), "", "", ""))


@pytest.mark.parametrize("name", ["", "../ink/00.png", "/etc/passwd", "00.txt", "03.png"])
def test_unknown_pictures_are_refused(tab: Any, folder: Path, name: str) -> None:
    _, visit, _ = opened(tab)
    before = everything(folder.parent)
    assert "no picture is chosen" in refusal(lambda: tab.captions.on_save(visit, name, "x", ""))
    assert "no picture is chosen" in refusal(lambda: tab.captions.on_discard(visit, name, "x", ""))
    tab.captions.on_next(visit, name, "x", "")
    assert visit.open_desk().drafts == {}
    assert everything(folder.parent) == before


@pytest.mark.parametrize("index", [-1, 3, 10**9, None, "0", [0], True, 1.0])
def test_an_index_that_does_not_exist_is_refused(tab: Any, folder: Path, index: Any) -> None:
    _, visit, _ = opened(tab)
    event: Any = SimpleNamespace(index=index)
    if index is not True:  # which is 1
        assert "no longer exists" in refusal(lambda: tab.captions.on_select(visit, "00.png", "", "", event))


def test_without_a_dataset_nothing_happens(tab: Any) -> None:
    for handler in (tab.captions.on_save, tab.captions.on_undo, tab.captions.on_discard, tab.captions.on_next):
        assert "choose one first" in refusal(lambda handler=handler: handler(Visit(), "00.png", "x", ""))


def test_only_one_check_times_a_step_and_errors_remove_the_bar(
    tab: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    identity, timed = dict(tab.site.dataset_choices())["ink"], list[bool]()
    looked = dataset_checker.check_folder

    def look(config: Any, **options: Any) -> Check:
        timed.append("base" not in options)
        plan = cast(Any, SimpleNamespace(seconds=9.0 if timed[-1] else None))
        return dataclasses.replace(looked(config, **options), plan=plan)

    monkeypatch.setattr(dataset_checker, "check_folder", look)
    assert len([event for event in tab.checker.check(folder, "") if isinstance(event, Check)]) == 1  # a large base
    assert [event.plan.seconds for event in tab.checker.check(folder, "", timed=True) if isinstance(event, Check)] == [
        None,
        9.0,
    ]
    with tab.checker._timing:
        list(tab.checker.check(folder, "", timed=True))
    assert timed == [False, False, True, False]
    failing = tab.on_check(identity, Visit(), "", "", "a, b")
    next(failing)
    assert 'class="bar"' not in next(failing)[tab.status]
    assert "comma" in refusal(lambda: failing)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert "no longer exists" in refusal(lambda: tab.on_check(identity, Visit(), "", "", ""))


def test_the_trigger_word_is_kept_with_the_dataset(tab: Any, folder: Path) -> None:
    identity, visit, _ = opened(tab)
    (updates,) = tab.on_trigger(identity, visit, "", "", " my-ink ")
    assert "is kept with the dataset" in updates[tab.status]
    assert trigger_of(folder) == "my-ink"
    assert visit.open_desk().trigger == "my-ink"
    assert list(tab.on_trigger(identity, visit, "", "", "my-ink")) == [{tab.visit: visit}]  # nothing new
    first = next(iter(tab.on_choose(identity, Visit(), "", "", "")))
    assert first[tab.trigger] == "my-ink"
    for odd in ("[", '{"trigger": 3}', '{"trigger": "a, b"}', "[]", '{"trigger": "a\\nb"}'):
        (folder / ".sd-lora.json").write_text(odd)
        assert trigger_of(folder) == ""
