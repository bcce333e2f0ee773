"""Folders that are named after what their images are for: every name of the table, in every layout, and what is said.
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

from sd_lora.data.folders.roles import ROLES, Role, role_of
from sd_lora.errors import DataError

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
NAMES = [(name, role) for role in ROLES for name in sorted(role.names)]
#: the layouts, each with an image a.png to learn from at the top or in img/
LAYOUTS = {
    "bare": photos("img/a.png"),
    "sidecars": photos("img/a.png", **{"img/a": "c"}),
    "kohya": photos("img/3_ink/a.png"),
    "metadata": {**photos("img/a.png"), "photos/metadata.jsonl": jsonl({"file_name": "img/a.png", "text": "c"})},
    "kohya-toml": toml(ONE.replace("'ink'", "'img'"), "img/a.png", **{"img/a": "c"}),
}


def test_a_name_has_one_role() -> None:
    names = [name for role in ROLES for name in role.names]
    assert len(names) == len(set(names)) == len(NAMES)
    assert all(name == name.lower().strip("._-") and not set(name) & set(" .-") for name in names)


@every_row("name, role", NAMES, lambda row: f"{row[0]}: {row[1].what}")
def test_a_folder_is_used_as_it_is_named_in_every_layout(name: str, role: Role, tmp_path: Path) -> None:
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
    "name",
    ["reg", "Reg", "REG", "_reg", "Regularization Images", "regularization-images", "class.images", "class  images"],
)
def test_a_name_may_be_written_in_many_ways(name: str) -> None:
    role = role_of(name)
    assert role is not None
    assert role.use == "regularisation"


@every_row("name", ["10_reg", "regal", "my samples", "sampler", "", "masked ball", "class of 1999", "ink"])
def test_other_names_say_nothing(name: str) -> None:
    assert role_of(name) is None


@every_row(
    "files, code, told",
    [
        (photos("a.png", "samples/b.png", "samples/deep/c.png", a="c"), "folder-role",
         "samples/: taken for sample pictures: 2 images are not read; rename it, or set data.folder_roles=false, to "
         "train on the images in it"),
        (photos("a.png", "masks/b.png", a="c"), "mask-unmatched",
         "masks/b.png: no image has its name; give it the name of its image"),
        (photos("p/a.png", "q/a.png", "masks/a.png", **{"p/a": "1", "q/a": "2"}), "mask-ambiguous",
         "masks/a.png: it could be of p/a.png, q/a.png; put it in a subfolder named like that of its image, or set"),
        (photos("a.png", "a_mask.png", "masks/a.png", a="c"), "not-read", "masks/a.png (another mask of a.png is"),
        (toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='reg'\n", "reg/a.png"), "folder-role",
         "set.toml: image_dir reg is read as regularisation images, as it is named; set is_reg in its subset"),
        (toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='val'\n", "val/a.png"), "folder-role",
         "set.toml: image_dir val is named after validation images, and trained on; remove its subset if"),
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
        yield f"| {use} | {', '.join(f'`{name}`' for name in sorted(role.names))} |\n"


def drawn(page: str) -> str:
    head, rows, tail = re.split(r"(?<=\| --- \| --- \|\n)((?:\| .*\n)*)(?=<!-- end of roles -->)", page, maxsplit=1)
    assert rows is not None
    return head + "".join(table()) + tail


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text("utf-8")
    assert page == drawn(page), "draw it again: PYTHONPATH=tests python tests/data/folders/test_roles.py"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text("utf-8")), "utf-8")
