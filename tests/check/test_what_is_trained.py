"""What a check shows of folders with a purpose, of captions in other places and of transparency, and its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from faulty_folders import five_pictures, scene
from rows import every_row
from typer.testing import CliRunner

from sd_lora.commands.app import app

TRIGGER = "data.trigger=zwq"


def checked(folder: Path, *overrides: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["check", str(folder), "--base", "tiny", "--json", TRIGGER, *overrides])
    return done.exit_code, json.loads(done.stdout)


def uses(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {example["file"]: (example["use"], example["caption"]) for example in found["examples"]}


def messages(found: dict[str, Any], code: str) -> list[str]:
    return [finding["message"] for finding in found["findings"] if finding["code"] == code]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return five_pictures(folder)


def moved(folder: Path, name: str, *numbers: int, texts: bool = True) -> None:
    """Pictures of `folder` moved into a folder in it, with their captions or without any."""
    target = folder / name
    target.mkdir(parents=True)
    for number in numbers:
        (folder / f"{number}.png").rename(target / f"{number}.png")
        text = folder / f"{number}.txt"
        text.rename(target / text.name) if texts else text.unlink()


def test_regularisation_images_beside_img_are_trained_without_the_trigger_word(photos: Path) -> None:
    moved(photos, "img", 0, 1, 2, texts=False)
    moved(photos, "reg", 3, 4, texts=False)
    code, found = checked(photos)
    assert code == 0
    learned = {f"img/{number}.png": ("training", "in zwq style") for number in range(3)}
    assert uses(found) == {**learned, "reg/3.png": ("regularisation", ""), "reg/4.png": ("regularisation", "")}
    assert "regularisation in reg/: 2 images without captions" in found["summary"]


def test_samples_are_not_trained_unless_asked_for(photos: Path) -> None:
    moved(photos, "samples", 4)
    code, found = checked(photos)
    assert code == 0
    assert uses(found).keys() == {f"{number}.png" for number in range(4)}
    assert messages(found, "folder-role") == [
        "samples/: taken for sample pictures: 1 image is not read; rename it, or set data.folder_roles=false, to train "
        "on the images in it"
    ]
    _, found = checked(photos, "data.folder_roles=false")
    assert uses(found)["samples/4.png"][0] == "training"


def test_masks_in_a_folder_are_shown_at_their_image(photos: Path) -> None:
    (photos / "masks").mkdir()
    scene(9, 128).convert("L").save(photos / "masks" / "2.png")
    _, found = checked(photos)
    assert [example["mask"] for example in found["examples"]] == [None, None, "2.png", None, None]
    assert found["summary"].endswith("; 1 with masks")


def test_a_mask_in_a_folder_has_the_shape_of_its_image(photos: Path) -> None:
    (photos / "masks").mkdir()
    scene(9, 128).crop((0, 0, 128, 64)).save(photos / "masks" / "2.png")
    code, found = checked(photos)
    assert code == 2
    assert messages(found, "mask-size")


def test_validation_images_are_held_out_if_the_loss_is_measured(photos: Path) -> None:
    moved(photos, "val", 3, 4)
    code, found = checked(photos, "training.validate_every=5")
    assert code == 0
    assert {name for name, (use, _) in uses(found).items() if use == "validation"} == {"val/3.png", "val/4.png"}
    assert [example["exposures"] is None for example in found["examples"]] == [False] * 3 + [True] * 2
    assert found["plan"]["images"] == 3
    assert not messages(found, "folder-role")


def test_validation_images_are_left_out_if_not_and_need_no_captions(photos: Path) -> None:
    moved(photos, "val", 3, 4, texts=False)
    (photos / "val" / "4.json").write_text("{}")
    code, found = checked(photos)
    assert code == 0
    assert uses(found).keys() == {"0.png", "1.png", "2.png"}
    (message,) = messages(found, "folder-role")
    assert message.startswith(
        "val/: taken for validation images: 2 images are not read; set training.validate_every to"
    )


def test_a_row_to_hold_out_hides_no_finding_on_the_images_beside_it(photos: Path) -> None:
    rows: list[dict[str, str]] = [{"file_name": "0.png"}, {"file_name": "1.png", "split": "test"}]
    rows += [{"file_name": f"{number}.png", "text": "a house"} for number in (2, 3, 4)]
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, found = checked(photos)
    assert code == 2
    assert "1.png" not in uses(found)
    (message,) = messages(found, "caption-unread")
    assert message.startswith("0.png: its caption may be in 0.txt, which is not read; give its row a text")
    assert messages(found, "folder-role")[0].startswith("taken for validation images: 1 image is not read; set train")


@every_row(
    "overrides, told",
    [
        (["training.validate_every=5"], "training.validate_every has no effect because no image is held out; set"),
        (["data.alpha=mask"], "data.alpha has no effect because no image has transparent places; leave"),
        (["data.mask_folder=FOLDER/../m"], "data.mask_folder has no effect because it holds no mask of these images"),
    ],
)
def test_settings_without_anything_to_act_on_are_errors(overrides: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "m").mkdir()
    folder = five_pictures(tmp_path / "photos")
    code, found = checked(folder, *(text.replace("FOLDER", str(folder)) for text in overrides))
    assert code == 2
    assert told in messages(found, "setting-idle")[0]


def test_a_share_to_hold_out_has_no_effect_beside_validation_images(photos: Path) -> None:
    moved(photos, "val", 3, 4)
    code, found = checked(photos, "training.validate_every=5", "training.hold_out=0.3")
    assert code == 2
    assert "training.hold_out has no effect because the images of the folder" in messages(found, "setting-idle")[0]


def test_masks_that_are_not_read_have_no_folder() -> None:
    done = CliRunner().invoke(app, ["check", "x", "data.mask_folder=m", "data.masks=false"])
    assert done.exit_code != 0
    assert "data.mask_folder has no effect with data.masks=false" in f"{done.output}{done.exception}"


def test_transparency_is_a_mask_if_asked_for(photos: Path) -> None:
    picture = scene(0, 128).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 64, 128))
    picture.save(photos / "0.png")
    _, found = checked(photos)
    assert messages(found, "image-alpha")
    assert found["examples"][0]["mask"] is None
    _, found = checked(photos, "data.alpha=mask")
    assert not messages(found, "image-alpha")
    assert [example["mask"] for example in found["examples"]] == ["alpha", None, None, None, None]
    picture.putalpha(0)
    picture.save(photos / "0.png")
    _, found = checked(photos, "data.alpha=mask")
    assert messages(found, "mask-empty")[0].startswith("0.png: nothing of it is learnt")


def test_a_caption_that_is_not_read_stops_the_run(photos: Path) -> None:
    (photos / "0.txt").rename(photos / "0.yaml")
    (photos / "1.txt").rename(photos / "1.tags")
    (photos / "2.txt").write_text("a caption")
    code, found = checked(photos)
    assert code == 2
    (message,) = messages(found, "caption-unread")
    assert message.startswith("0.png: its caption may be in 0.yaml, which is not read; save the caption as NAME.txt")
    assert uses(found)["1.png"][1].endswith(", in zwq style")
    assert len(uses(found)["1.png"][1]) > len(", in zwq style")


def test_names_are_captions_if_asked_for(photos: Path) -> None:
    for number in range(5):
        (photos / f"{number}.txt").unlink()
        (photos / f"{number}.png").rename(photos / f"{number:03}_a red house on hill_{number}.png")
    code, found = checked(photos)
    assert code == 0
    assert "set data.captions_from=name" in messages(found, "caption-names")[0]
    _, found = checked(photos, "data.captions_from=name")
    assert {caption for _, caption in uses(found).values()} == {"a red house on hill, in zwq style"}


def test_a_jpeg_without_an_ending_is_trained(photos: Path) -> None:
    (photos / "0.png").unlink()
    scene(0, 128).save(photos / "0", "JPEG")
    code, found = checked(photos)
    assert code == 0
    assert uses(found)["0"][0] == "training"
    assert "JPEG data under the ending (none)" in messages(found, "image-extension")[0]
