"""Folders that are named after what their images are for: every word of the table, in every layout, and what is said.
`python tests/data/folders/test_roles.py` draws the table of docs/data.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from layout_table import jsonl, photos
from rows import every_row
from rows_table import ONE, toml
from test_layouts_of_folders import build, listing, said

from sd_lora.data.folders.role_names import ROLES, Role, meaning_of, role_of
from sd_lora.errors import DataError

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
WORDS = [
    (word, kind, role)
    for role in ROLES
    for kind in ("words", "anywhere", "alone", "perhaps")
    for word in sorted(getattr(role, kind))
]
#: how people write a word of the table, with which it remains sure
FORMS = (
    "{}", "{}s", "10_{}", "{}_1", "{}-512x512", "{} set", "{} photos v2", "real_{}_data_1024", "_{}",
    "({}) 2", "x_{}",
)  # fmt: skip
#: the layouts, each with an image a.png to learn from at the top or in img/
LAYOUTS = {
    "bare": photos("img/a.png"),
    "sidecars": photos("img/a.png", **{"img/a": "c"}),
    "kohya": photos("img/3_ink/a.png"),
    "metadata": {**photos("img/a.png"), "photos/metadata.jsonl": jsonl({"file_name": "img/a.png", "text": "c"})},
    "kohya-toml": toml(ONE.replace("'ink'", "'img'"), "img/a.png", **{"img/a": "c"}),
}


def test_a_word_has_one_role() -> None:
    words = [word for word, _, _ in WORDS]
    assert len(words) == len(set(words))
    assert all(word == word.lower().strip("._-") and not set(word) & set(" .-") for word in words)


@every_row("word, kind, role", WORDS, lambda row: row[0])
def test_a_word_is_used_among_counters_and_words_that_say_nothing(word: str, kind: str, role: Role) -> None:
    for form in FORMS:
        for name in (form.format(word), form.format(word).upper(), form.format(word).title().replace("_", " ")):
            meaning = meaning_of(name)
            apart = not name[:1].isalnum()
            sure = kind in ("words", "anywhere") or apart or (kind == "alone" and form in ("{}", "{}s"))
            assert meaning is not None, name
            assert (meaning.role.what, meaning.sure) == (role.what, sure), name


@every_row("word, kind, role", WORDS, lambda row: row[0])
def test_beside_another_word_it_may_be_a_subject(word: str, kind: str, role: Role) -> None:
    for name in (f"10_{word} tubist", f"tubist_{word}"):
        meaning = meaning_of(name)
        if kind == "anywhere":
            assert meaning is not None
            assert (meaning.role, meaning.sure, meaning.rest) == (role, True, "tubist")
        elif kind == "words":
            assert meaning is not None
            assert (meaning.role, meaning.sure) == (role, False)
        else:
            assert meaning is None
    assert role_of(f"{word.rpartition('_')[2]}ubist") is None


@every_row("role", ROLES, lambda role: role.what)
def test_the_name_that_a_finding_recommends_is_sure(role: Role) -> None:
    assert role_of(role.name) is role


@every_row(
    "word, role",
    [(word, role) for word, kind, role in WORDS if kind != "perhaps"],
    lambda row: f"{row[0]}: {row[1].what}",
)
def test_a_folder_is_used_as_it_is_named_in_every_layout(word: str, role: Role, tmp_path: Path) -> None:
    name = word
    for layout, files in LAYOUTS.items():
        build(tmp_path / layout, {**files, f"photos/{name}/a.png": "x"})
        found = listing(tmp_path / layout, trigger="zwq")
        assert found.layout == layout
        image, *others = sorted(found.entries, key=lambda entry: not entry.name.startswith("img/"))
        assert image.name.startswith("img/")
        assert not image.prior
        assert not image.held
        if role.use == "masks":
            assert not others
            assert image.mask == tmp_path / layout / f"photos/{name}/a.png"
        elif role.use == "none":
            assert not others
            assert f"{name}/" in said(found, "folder-role") + said(found, "not-read")
        else:
            (other,) = others
            assert other.name == f"{name}/a.png"
            assert (other.prior, other.held) == (role.use == "regularisation", role.use == "validation")
            assert f"{role.use} in {name}/: 1 image" in found.summary


@every_row(
    "name, what",
    [
        ("regularization-images", "regularisation images"), ("class.images", "regularisation images"),
        ("class  images", "regularisation images"), ("RegImages", "regularisation images"),
        ("regset", "regularisation images"), ("10_5 class", "regularisation images"), ("reg1", "regularisation images"),
        ("1_regularization woman", "regularisation images"), ("regularisation (women)", "regularisation images"),
        ("val2017", "validation images"), ("TestSet", "validation images"), ("test_masks", "masks"),
        ("validation_samples", "sample pictures"), ("lora_output", "sample pictures"), ("grids_x", "sample pictures"),
        ("depthmaps", "pictures that steer a ControlNet"), ("ControlNet-Canny", "pictures that steer a ControlNet"),
        ("controlnet_conditioning_image", "pictures that steer a ControlNet"), ("text_encoder_cache", "a cache"),
        ("$RECYCLE.BIN", "pictures that were put aside"), ("#recycle", "pictures that were put aside"),
        ("_old", "pictures that were put aside"), ("__pycache__", "files of a program"),
    ],
)  # fmt: skip
def test_a_name_may_be_written_in_many_ways(name: str, what: str) -> None:
    role = role_of(name)
    assert role is not None
    assert role.what == what


@every_row(
    "name",
    ["regal", "sampler", "", "masked ball", "10_masked hero", "ink", "devil", "assets", "classic car", "1girl",
     "10_ohwx man", "fashion model", "old town", "log cabin", "train", "images", "2024",
     "a long name with a test in the middle of it"],
)  # fmt: skip
def test_other_names_say_nothing(name: str) -> None:
    assert meaning_of(name) is None


@every_row(
    "name, seen", [("woman_reg", "reg"), ("10_mask man", "masks"), ("10_icons", "thumbs"), ("pose", "controlnet")]
)
def test_images_of_a_doubtful_folder_are_trained_and_named_in_every_layout(
    name: str, seen: str, tmp_path: Path
) -> None:
    for layout, files in LAYOUTS.items():
        subset = {"photos/set.toml": f"{files.get('photos/set.toml')}[[datasets.subsets]]\nimage_dir='{name}'\n"}
        row = jsonl({"file_name": "img/a.png", "text": "c"}, {"file_name": f"{name}/b.png", "text": "d"})
        more = {"kohya-toml": subset, "metadata": {"photos/metadata.jsonl": row}}.get(layout, {})
        build(tmp_path / layout, {**files, **more, f"photos/{name}/b.png": "x", f"photos/{name}/b.txt": "d"})
        found = listing(tmp_path / layout, trigger="zwq")
        (entry,) = [entry for entry in found.entries if entry.name == f"{name}/b.png"]
        assert not entry.prior
        assert not entry.held
        (message,) = [f.message for f in found.findings if f.code == "folder-unsure"]
        assert (
            f"{name} is trained; " in message if layout == "kohya-toml" else f"name it {seen} if these are" in message
        )
        assert "folder-unsure" not in {f.code for f in listing(tmp_path / layout, folder_roles=False).findings}


@every_row(
    "files, code, told",
    [
        (photos("a.png", "samples/b.png", "samples/deep/c.png", a="c"), "folder-role",
         "samples/: taken for sample pictures: 2 images are not read; rename it, or set data.folder_roles=false, to "
         "train on the images in it"),
        (photos("a.png", "masks/b.png", a="c"), "folder-role",
         "masks/: taken for masks: 1 image is not read, as none has the name of an image; rename it, or set"),
        (photos("a.png", "masks/a.png", "masks/b.png", a="c"), "mask-unmatched",
         "masks/b.png: no image has its name; give it the name of its image"),
        (photos("p/a.png", "q/a.png", "masks/a.png", **{"p/a": "1", "q/a": "2"}), "mask-ambiguous",
         "masks/a.png: it could be of p/a.png, q/a.png; put it in a subfolder named like that of its image, or set"),
        (photos("a.png", "a_mask.png", "masks/a.png", a="c"), "not-read", "masks/a.png (another mask of a.png is"),
        (toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='reg'\n", "reg/a.png"), "folder-role",
         "set.toml: image_dir reg is read as regularisation images, as it is named; set is_reg in its subset"),
        (toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='val'\n", "val/a.png"), "folder-role",
         "set.toml: image_dir val is named after validation images, and trained on; remove its subset if"),
        (toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='woman_reg'\n", "woman_reg/a.png"), "folder-unsure",
         "set.toml: image_dir woman_reg is trained; set is_reg = true if these are regularisation images; if it is"),
        (toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='mask_man'\n", "mask_man/a.png"), "folder-unsure",
         "set.toml: image_dir mask_man is trained; remove its subset if these are masks; if it is meant"),
        (photos("5_ink/a.png", "10_ink_reg/b.png", "10_ink_reg/c/d.png"), "folder-unsure",
         "10_ink_reg/: its 2 images are trained; name it reg if these are regularisation images; if it is meant to be"),
        (photos("2_masks/a.png", "samples/b.png"), "no-images",
         "rename 2_masks/ (masks), samples/ (sample pictures), or set data.folder_roles=false, if they are in there"),
    ],
)  # fmt: skip
def test_what_is_done_is_said(files: dict[str, str], code: str, told: str, tmp_path: Path) -> None:
    build(tmp_path, files)
    assert told in said(listing(tmp_path), code)


def test_the_layout_is_told_with_the_folders_that_have_a_role(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png", "b.png", "reg/1_house/c.png", "masks/a.png", a="1", b="2"))
    assert listing(tmp_path).summary == (
        "2 images with captions beside them (.txt); regularisation in reg/: "
        "1 image in kohya's folders: reg/1_house (1, ×1, regularisation); 1 with masks"
    )


@every_row(
    "split, held", [("test", True), ("Validation", True), ("dev_set", True), ("train", False), ("fold 7", False)]
)
def test_the_split_of_a_row_says_what_is_held_out(split: str, held: bool, tmp_path: Path) -> None:
    build(tmp_path, {**photos("a.png"), "photos/metadata.jsonl": jsonl({"file_name": "a.png", "split": split})})
    found = listing(tmp_path, default_caption="c")
    assert [entry.held for entry in found.entries] == [held]
    assert ("1 of them to hold out" in found.summary) is held
    known = 'metadata.jsonl: split "fold 7" (1 row) is trained, as it is neither train nor validation nor test'
    assert (known in said(found, "column-role")) is (split == "fold 7")


def test_pictures_that_steer_a_controlnet_are_named(tmp_path: Path) -> None:
    row = {"file_name": "a.png", "text": "c", "conditioning_image": "conditioning_images/a.png"}
    build(tmp_path, {**photos("a.png", "conditioning_images/a.png"), "photos/metadata.jsonl": jsonl(row)})
    assert said(listing(tmp_path), "column-role") == (
        "metadata.jsonl: pictures that steer a ControlNet are not used: conditioning_image (1 row); call the column "
        "mask if they are masks"
    )
    row["mask"] = row.pop("conditioning_image")
    (tmp_path / "photos/metadata.jsonl").write_text(jsonl(row))
    assert [entry.mask for entry in listing(tmp_path).entries] == [tmp_path / "photos/conditioning_images/a.png"]


def test_only_images_of_a_role_are_no_images_to_learn_from(tmp_path: Path) -> None:
    build(tmp_path, photos("samples/a.png", "reg/b.png", "val/c.png"))
    assert "no images to learn from" in said(listing(tmp_path, trigger="zwq"), "no-images")


def test_alpha_of_a_subset_comes_before_that_of_the_config(tmp_path: Path) -> None:
    subsets = f"{ONE}alpha_mask=true\n[[datasets.subsets]]\nimage_dir='b'\n[[datasets.subsets]]\nimage_dir='c'\n"
    build(tmp_path, toml(f"{subsets}alpha_mask=false\n", "ink/a.png", "b/a.png", "c/a.png"))
    assert [entry.alpha for entry in listing(tmp_path).entries] == [False, False, True]
    assert [entry.alpha for entry in listing(tmp_path, alpha="mask").entries] == [True, False, True]


def test_a_folder_of_masks_may_be_elsewhere_but_must_exist(tmp_path: Path) -> None:
    build(tmp_path, {**photos("p/a.png", **{"p/a": "c"}), "else/a.png": "x"})
    (entry,) = listing(tmp_path, mask_folder="else").entries
    assert entry.mask == tmp_path / "else/a.png"
    with pytest.raises(DataError, match=r"data\.mask_folder .*gone does not exist"):
        listing(tmp_path, mask_folder="gone")


# ---- the page


def table() -> Iterator[str]:
    for role in ROLES:
        uses = {"masks": "masks of the images of their names", "validation": "held out to measure the validation loss"}
        use = role.what if role.use == "regularisation" else uses.get(role.use, f"nothing: {role.what}")
        kinds = (role.words, role.anywhere, role.alone, role.perhaps)
        cells = [", ".join(f"`{word.replace('_', ' ')}`" for word in sorted(words)) for words in kinds]
        yield f"| {' | '.join([use, *cells])} |\n".replace("|  |", "| |").replace("|  |", "| |")


def drawn(page: str) -> str:
    head, rows, tail = re.split(
        r"(?<=\| --- \| --- \| --- \| --- \| --- \|\n)((?:\| .*\n)*)(?=<!-- end of roles -->)", page, maxsplit=1
    )
    assert rows is not None
    return head + "".join(table()) + tail


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text("utf-8")
    assert page == drawn(page), "draw it again: PYTHONPATH=tests python tests/data/folders/test_roles.py"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text("utf-8")), "utf-8")
