"""The whole check of a folder: contract of its JSON, exit codes, plan, and that it finds what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sd_lora import check_folder, load_base, load_config
from sd_lora.check.cost import measure
from sd_lora.check.result import plan_for
from sd_lora.commands.app import app
from sd_lora.data.examples import Example
from sd_lora.data.findings import CODES
from sd_lora.data.planning import schedule_for
from sd_lora.errors import ConfigError
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene

SHAPES = [(128, 128), (192, 128), (128, 192), (256, 128), (128, 128)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five captioned pictures of four shapes, nothing wrong with them."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, size in enumerate(SHAPES):
        render(sample_scene(i), "woodcut", 256).crop((0, 0, *size)).save(photos / f"{i}.png")
        (photos / f"{i}.txt").write_text(sample_scene(i).caption, "utf-8")
    return photos


def checked(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["check", str(folder), "--base", "tiny", "--json", *arguments])
    return done.exit_code, json.loads(done.stdout)


def codes(found: dict[str, Any], severity: str = "") -> set[str]:
    return {f["code"] for f in found["findings"] if not severity or f["severity"] == severity}


def test_json_keeps_its_contract(folder: Path) -> None:
    code, found = checked(folder)
    assert code == 0
    assert found["layout"] == "sidecars"
    assert [(e["file"], e["caption"], e["width"], e["height"]) for e in found["examples"]] == [
        (f"{i}.png", sample_scene(i).caption, *size) for i, size in enumerate(SHAPES)
    ]
    assert codes(found, "error") == set()
    for finding in found["findings"]:
        assert finding["code"] in CODES
        assert finding["severity"] in ("error", "warning", "info")
        assert finding["file"] is None or isinstance(finding["file"], str)
        assert "\n" not in finding["message"]
    plan = found["plan"]
    assert plan["exposures"] == plan["steps"] * plan["batch_size"] == sum(b["exposures"] for b in plan["buckets"])
    assert sum(b["images"] for b in plan["buckets"]) == 5
    assert plan["seconds"] > 0
    assert plan["memory_bytes"] > 10**7


def test_size_is_told_as_the_picture_is_seen(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "1.png").convert("RGB").save(folder / "1.jpg", exif=exif, quality=95)
    (folder / "1.png").unlink()
    _, found = checked(folder)
    example = next(e for e in found["examples"] if e["file"] == "1.jpg")
    assert (example["width"], example["height"]) == (128, 192)


def test_the_caption_is_told_as_it_is_trained(folder: Path) -> None:
    _, found = checked(folder, "--trigger", "inkwash")
    assert all(e["caption"].endswith(", in inkwash style") for e in found["examples"])
    assert "trigger-known" not in codes(found)
    _, found = checked(folder, "--trigger", "boat")
    assert "trigger-known" in codes(found)


def broken(folder: Path) -> None:
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:900])


def uncaptioned(folder: Path) -> None:
    (folder / "2.txt").unlink()


def enlarged(folder: Path) -> None:
    Image.open(folder / "0.png").resize((50, 50)).save(folder / "0.png")


@pytest.mark.parametrize(
    ("caption", "expected", "code"),
    [("\n", "caption-empty", 2), ("[trigger]", "trigger-unset", 2), ("a watercolor of a boat", "caption-style", 0)],
)
def test_an_error_is_an_exit_code_and_a_warning_is_not(caption: str, expected: str, code: int, folder: Path) -> None:
    (folder / "1.txt").write_text(caption)
    exit_code, found = checked(folder)
    assert (expected in codes(found), exit_code) == (True, code)


def test_captions_of_regularisation_images_are_looked_at(folder: Path) -> None:
    prior = folder.parent / "prior"
    prior.mkdir()
    for i, caption in enumerate(("a house " * 40, "a zwq house", "[Trigger] of a house")):
        render(sample_scene(i + 9), "woodcut", 128).save(prior / f"{i}.png")
        (prior / f"{i}.txt").write_text(caption)
    code, found = checked(folder, "--trigger", "zwq", f"data.regularisation={json.dumps(str(prior))}")
    told = {(f["code"], f["file"]) for f in found["findings"]}
    assert {("caption-long", "../prior/0.png"), ("trigger-prior", "../prior/1.png")} < told
    assert ("trigger-unset", "../prior/2.png") in told
    assert code == 2


@pytest.mark.parametrize("trigger", ["zwq ", "\u200b", "[trigger]", "zwq " * 90 + "q"])
def test_a_trigger_word_that_cannot_be_used_is_an_error(trigger: str, folder: Path) -> None:
    code, found = checked(folder, "--trigger", trigger)
    assert (code, codes(found, "error")) == (2, {"trigger-unusable"})


def test_images_that_are_shown_by_one_name_are_all_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sd_lora.data.folders.tree.shown", lambda name: "0.png" if name == "1.png" else name)
    (folder / "0.txt").write_text("a red house on a hill " * 20)
    assert "caption-long" in codes(checked(folder)[1])


def test_a_bad_image_may_be_left_out(folder: Path) -> None:
    broken(folder)
    code, found = checked(folder, "data.skip_bad=true")
    assert code == 0
    assert "image-skipped" in codes(found, "warning")
    assert found["summary"].endswith("; 1 cannot be read and is left out")
    assert [e["file"] for e in found["examples"]] == ["0.png", "1.png", "3.png", "4.png"]


def test_the_remedy_for_an_image_that_is_left_out_fits_it(folder: Path) -> None:
    (folder / "2.png").rename(folder / "2.psd")
    (folder / "2.psd").write_bytes(b"8BPS")
    (folder / "2.txt").unlink()
    (folder / "3.png").write_bytes(b"")
    _, found = checked(folder, "data.skip_bad=true")
    remedies = {f["file"]: f["remedy"] for f in found["findings"] if f["code"] == "image-skipped"}
    assert remedies == {"2.psd": "save it as PNG to train on it", "3.png": "repair it to train on it"}
    assert "caption-missing" not in codes(found)  # no caption would help
    assert "caption-missing" not in codes(checked(folder)[1])


def test_an_empty_folder_still_answers(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, found = checked(tmp_path / "empty")
    assert code == 2
    assert codes(found) == {"no-images"}
    assert found["examples"] == []
    assert found["plan"] is None


@pytest.mark.parametrize(
    "arguments", [["nowhere"], ["photos", "data.colour=red"], ["photos", "--report", "no/such.html"]]
)
def test_what_cannot_be_checked_is_one_sentence(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sd_lora.commands import app as cli

    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("sys.argv", ["sd-lora", "check", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1


def test_the_text_names_layout_findings_and_plan(folder: Path, tmp_path: Path) -> None:
    enlarged(folder)
    uncaptioned(folder)
    report = tmp_path / "check.html"
    done = CliRunner().invoke(app, ["check", str(folder), "--report", str(report), "data.resolution=64"])
    assert done.exit_code == 2
    lines = done.stdout.splitlines()
    assert "5 images" in lines[0]
    assert lines[1].startswith("error    caption-missing: 1 image has no caption: 2.png;")
    assert any(line.startswith("warning  image-small: 1 image is upscaled: 0.png") for line in lines)
    assert "plan for base model tiny" in done.stdout
    assert "64 × 64" in done.stdout
    page = report.read_text("utf-8")
    assert 'http-equiv="Content-Security-Policy"' in page
    assert page.count("data:image/jpeg;base64,") == 5


def test_nothing_is_written(folder: Path) -> None:
    before = sorted((file, file.stat().st_mtime_ns) for file in folder.parent.rglob("*"))
    checked(folder)
    assert sorted((file, file.stat().st_mtime_ns) for file in folder.parent.rglob("*")) == before


def test_from_python(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = load_config("tiny-style", f"data.folder={json.dumps(str(folder))}")
    found = check_folder(config, watch=lambda *counts: seen.append(counts))
    assert seen == [(i, 5) for i in range(1, 6)]
    assert [row.name for row in found.images] == [f"{i}.png" for i in range(5)]
    assert all(row.thumbnail is None for row in found.images)
    with pytest.raises(ConfigError):
        check_folder(replace(config, model=replace(config.model, dtype="float16", device="cpu")))


def examples(count: int, size: tuple[int, int] = (64, 64)) -> list[Example]:
    return [Example(Path(f"{i}.png"), f"{i}.png", *size, ("a cat",)) for i in range(count)]


def test_the_plan_counts_every_bucket() -> None:
    config = load_config("tiny-style", "training.batch_size=4")
    schedule = schedule_for([*examples(3), *examples(2, (300, 100))], config, 64, 16)
    plan = plan_for(schedule, 10)
    assert (plan.images, plan.exposures, plan.steps, plan.batch_size) == (5, 40, 10, 4)
    assert [(row.width, row.height, row.images, row.exposures) for row in plan.buckets] == [
        (64, 64, 3, 24), (96, 32, 2, 16),
    ]  # fmt: skip
    assert plan.seconds is None


def test_more_steps_take_more_time_and_larger_batches_more_memory() -> None:
    pipe, family = load_base("tiny")
    config = load_config("tiny-style", "training.batch_size=1")
    few = measure(family, pipe, torch.device("cpu"), schedule_for(examples(4), config, 64, 16)).of(10)
    many = measure(family, pipe, torch.device("cpu"), schedule_for(examples(4), config, 64, 16)).of(1000)
    wide = load_config("tiny-style", "training.batch_size=32")
    large = measure(family, pipe, torch.device("cpu"), schedule_for(examples(4), wide, 64, 16)).of(10)
    assert many[0] > 10 * few[0]
    assert large[1] > few[1] + 10**7
    assert "timed here" in few[2]
    assert not any(p.requires_grad or p.grad is not None for p in pipe.unet.parameters())


def test_a_base_too_large_for_a_probe_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, family = load_base("tiny")
    schedule = schedule_for(examples(4, (256, 256)), load_config("tiny-style", "training.batch_size=8"), 128, 16)
    monkeypatch.setattr("sd_lora.check.cost._PROBE", 1e9)
    seconds, memory, how = measure(family, pipe, torch.device("cpu"), schedule).of(10)
    assert "scaled by" in how
    assert seconds > 0 < memory


def test_the_name_of_a_folder_stays_on_its_line(folder: Path) -> None:
    odd = folder.rename(folder.with_name("a\nb\x7f"))
    done = CliRunner().invoke(app, ["check", str(odd), "--base", "tiny"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].endswith("a\\nb\\x7f: 5 images with captions beside them (.txt)")


def test_how_often_each_image_is_seen_is_told(folder: Path) -> None:
    _, found = checked(folder, "training.steps=5", "training.batch_size=2", "data.trigger=zwq")
    assert [example["exposures"] for example in found["examples"]] == [2] * 5
    assert not codes(found) & {"images-unseen"}
    _, found = checked(folder, "training.steps=2", "training.batch_size=2", "data.trigger=zwq")
    assert sorted(example["exposures"] for example in found["examples"]) == [0, 1, 1, 1, 1]
    assert "images-unseen" in codes(found, "warning")
    text = CliRunner().invoke(
        app, ["check", str(folder), "--base", "tiny", "training.steps=6", "training.batch_size=2"]
    )
    assert "each image 2 or 3 times\n" in text.stdout


def test_where_images_are_not_seen_alike_it_is_told_by_folder(folder: Path) -> None:
    for name in ("10_ink", "1_sketch"):
        (folder / name).mkdir()
    for i in range(4):
        (folder / f"{i}.png").rename(folder / ("10_ink" if i < 2 else "1_sketch") / f"{i}.png")
    arguments = ["check", str(folder), "--base", "tiny", "training.steps=23", "training.batch_size=2"]
    told = CliRunner().invoke(app, arguments).stdout
    assert "each image 2 to 20 times: 10_ink 20, 1_sketch 2, the others 2\n" in told


def test_an_image_that_is_held_out_is_not_seen(folder: Path) -> None:
    _, found = checked(folder, "training.hold_out=0.2", "training.validate_every=50")
    assert [example["exposures"] for example in found["examples"]].count(None) == 1
    assert "images-unseen" not in codes(found)


def test_regularisation_images_need_not_all_be_seen(folder: Path) -> None:
    prior = folder.parent / "prior"
    prior.mkdir()
    for i in range(8):
        render(sample_scene(i + 9), "woodcut", 128).save(prior / f"{i}.png")
    priors = f"data.regularisation={json.dumps(str(prior))}"
    _, found = checked(folder, priors, "training.steps=5", "training.batch_size=2")
    assert min(example["exposures"] for example in found["examples"]) == 0
    assert "images-unseen" not in codes(found)


def test_a_caption_that_is_cut_is_shown_as_it_is_trained(folder: Path) -> None:
    (folder / "0.txt").write_text("a cat " * 60, "utf-8")
    _, found = checked(folder, "data.trigger=zwq")
    assert len(found["examples"][0]["caption"]) < 200
    assert found["examples"][0]["caption"].endswith(", in zwq style")


def test_remedies_fit_the_layout(folder: Path) -> None:
    (folder / "0.txt").unlink()
    _, found = checked(folder)
    (missing,) = [f for f in found["findings"] if f["code"] == "caption-missing"]
    assert "NAME.txt" in missing["message"]
    rows = [json.dumps({"file_name": f"{i}.png", **({"text": "a cat"} if i else {})}) for i in range(5)]
    (folder / "metadata.jsonl").write_text("\n".join(rows), "utf-8")
    _, found = checked(folder)
    (missing,) = [f for f in found["findings"] if f["code"] == "caption-missing"]
    assert "give its row a text" in missing["message"]
    for file in folder.glob("*.[tj]*"):
        file.unlink()
    _, found = checked(folder)
    assert {f["remedy"] for f in found["findings"] if f["code"] == "caption-missing"} == {
        "give a trigger word (--trigger WORD), or write captions, which sd-lora caption drafts"
    }


def test_a_dataset_file_that_cannot_be_read_is_an_error_not_another_layout(folder: Path) -> None:
    (folder / "dataset.toml").write_text("[[datasets]\nbatch_size = 1\n", "utf-8")
    code, found = checked(folder)
    assert code == 2
    (broken,) = [f for f in found["findings"] if f["code"] == "dataset-broken"]
    assert broken["file"] == "dataset.toml"
    code, found = checked(folder, "data.layout=sidecars")
    assert code == 0
    (folder / "dataset.toml").write_text("not toml at all", "utf-8")  # nothing to do with images
    assert checked(folder)[0] == 0


def test_with_json_an_error_is_a_document_too(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from sd_lora.commands.app import main

    monkeypatch.setattr("sys.argv", ["sd-lora", "check", str(folder / "nowhere"), "--json"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] in err
