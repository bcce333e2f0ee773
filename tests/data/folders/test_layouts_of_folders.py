"""Folders of every layout: exactly the images, captions, repeats and masks they stand for, and what is said of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args, get_type_hints

import charset_normalizer
import pytest
from caption_table import CAPTIONS
from layout_table import BARE, KOHYA, MASKS, PRIOR, SIDECARS, Case, Files, jsonl, parquet, photos
from role_table import ROLE_CASES
from rows import every_row
from rows_table import METADATA, ONE, TOML, toml

from sd_lora.config.schema import DataConfig
from sd_lora.data.folders import tree
from sd_lora.data.folders.entries import Listing, TagRules
from sd_lora.data.folders.listing import LAYOUTS, list_folder
from sd_lora.errors import DataError

CASES = [*SIDECARS, *MASKS, *BARE, *KOHYA, *PRIOR, *METADATA, *TOML, *ROLE_CASES, *CAPTIONS]


def build(top: Path, files: Files) -> None:
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_bytes(content.encode())


def listing(top: Path, folder: str = "photos", **settings: object) -> Listing:
    for setting in settings.keys() & {"regularisation", "mask_folder"}:
        settings[setting] = str(top / str(settings[setting]))
    return list_folder(DataConfig(folder=str(top / folder), **settings))


def refusal(top: Path, folder: str = "photos", **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        listing(top, folder, **settings)
    assert str(caught.value).isprintable()
    return str(caught.value)


def said(found: Listing, code: str) -> str:
    return " | ".join(f.message for f in found.findings if f.code == code)


def test_every_layout_has_a_folder_that_is_read_as_it() -> None:
    assert (
        set(LAYOUTS)
        == {case.layout for case in CASES}
        == set(get_args(get_type_hints(DataConfig)["layout"])) - {"auto"}
    )
    assert len({case.name for case in CASES}) == len(CASES)


@every_row("case", CASES, ids=lambda case: case.name)
def test_a_layout_is_understood(case: Case, tmp_path: Path) -> None:
    build(tmp_path, case.files)
    found = listing(tmp_path, case.folder, **dict(case.settings))
    base = tmp_path / case.folder
    base = base if base.is_dir() else base.parent
    masks = [None if e.mask is None else Path(os.path.relpath(e.mask, base)).as_posix() for e in found.entries]
    images = [(e.name, e.captions, e.repeats, m, e.prior) for e, m in zip(found.entries, masks, strict=True)]
    assert images == case.images
    assert sorted(finding.code for finding in found.findings) == case.codes
    assert found.layout == case.layout
    assert found.summary.isprintable()
    assert all(finding.message.isprintable() for finding in found.findings)
    assert all(os.path.samefile(base / e.name, e.file) for e in found.entries if (base / e.name).exists())


@every_row(
    "files, settings, summary",
    [
        (photos("a.png", "b.png", "m/c.png", **{"a": "1", "b": "2", "m/c": "3"}), {},
        "3 images with captions beside them (.txt), 1 of them in m/"),
        (photos("a.png", "b.png", a="1"), {"default_caption": "d"},
        "2 images, 1 with captions beside them (.txt), 1 captioned by default"),
        (photos("a.png", "a_mask.png"), {"trigger": "zwq"}, "1 image without captions; 1 with masks"),
        (photos("10_ink/a.png", "5_sketch/b.png", "5_sketch/c.png", "d.png", d="1"), {},
         "4 images in kohya's folders: 10_ink (1, ×10), 5_sketch (2, ×5), 1 beside them"),
        ({**photos("a.png"), "photos/metadata.jsonl": jsonl({"file_name": "a.png", "text": ["1", "2"]})}, {},
         "1 image listed in metadata.jsonl, 1 of them with several captions"),
        (toml(f"{ONE}num_repeats=3", "ink/a.png", **{"ink/a": "1"}), {},
        "1 image in 1 subset of set.toml: ink (1, ×3)"),
        ({**photos("a.png", a="1"), "reg/2_cat/b.png": "x"}, {"regularisation": "reg"},
         "1 image with captions beside them (.txt); regularisation: "
         "1 image in kohya's folders: ../reg/2_cat (1, ×2, regularisation)"),
    ],
)  # fmt: skip
def test_the_layout_is_told_in_one_line(
    files: Files, settings: dict[str, object], summary: str, tmp_path: Path
) -> None:
    build(tmp_path, files)
    assert listing(tmp_path, **settings).summary == summary


@every_row(
    "files, code, told",
    [
        (photos("set/10_ink/a.png"), "no-images", "you probably meant */photos/set/10_ink;"),
        (photos("set/10_ink/a.png", "set/5_b/c.png"), "no-images", "you probably meant */photos/set;"),
        (photos("a.png", "notes.md", a="c", z="orphan"), "not-read", "2 entries are not read: notes.md, z.txt;"),
        (photos("a.png", "run/log.jsonl", "run/config.toml", a="c"), "not-read", "run/ (a run)"),
        (photos("a.png", a="a b".encode("utf-16-le")), "caption-unreadable", "a.txt: not text, as it holds NUL bytes;"),
        (photos("a.png", a="caf\xe9 cr\xe8me".encode("cp1252")), "caption-encoding", "read as cp1252: café crème;"),
        (photos("a.png", "a.gif", a="c"), "caption-shared", "a.gif: shares a.txt with a.png;"),
        ({"photos/metadata.jsonl": '{"file_name": "../a.png"}'}, "entry-outside",
        "../a.png: line 1: its path leads out"),
        ({"photos/metadata.csv": "file_name,text\na.png,b, c"}, "entry-broken",
        "metadata.csv line 2: 3 values for 2 columns"),
        ({"photos/metadata.jsonl": '\n{"text": "c"}'}, "entry-broken", "metadata.jsonl line 2: it names no image"),
        (toml(f"[general]\nresolution=512\n{ONE}", "ink/a.png"), "setting-unknown",
        "resolution = 512 is not read; here that is data.resolution=512;"),
        (toml(f"[general]\nresolution=[768, 512]\n{ONE}", "ink/a.png"), "setting-unknown",
        "resolution = [768, 512] is not read; here that is data.resolution=624;"),
        (toml(f"[general]\nbatch_size=2\ngradient_accumulation_steps=2\n{ONE}", "ink/a.png"), "setting-unknown",
        "gradient_accumulation_steps = 2 is not read; here that is training.batch_size=4 training.micro_batch=2"),
        (toml(f"[general]\nbatch_size=2\ngradient_accumulation_steps=2\n{ONE}", "ink/a.png"), "setting-unknown",
        "batch_size = 2 is not read; here that is training.batch_size=4 training.micro_batch=2"),
        (toml(f"{ONE}conditioning_data_dir='m'", "ink/a.png"), "entry-missing",
        "conditioning_data_dir m cannot be read: no such file or directory; name the folder that holds the masks"),
        (toml("[[datasets]]\nvideo_directory='v'\n", "a.png"), "no-images", "has no [[datasets.subsets]]"),
        (toml(f"{ONE}keep_token=1", "ink/a.png"), "setting-unknown", "keep_token = 1 is not a setting of kohya's"),
        (toml(f"{ONE}num_repeats=0", "ink/a.png"), "setting-unknown",
        "num_repeats = 0 cannot be used: input should be greater"),
        ({**photos("a.png"), "photos/metadata.jsonl": jsonl({"file_name": "a.png", "text": "b", "caption": "c"})},
        "column-unread", "metadata.jsonl: not read is caption (1 row);"),
        (photos("10_ink/a.png", "1_b/c.png"), "repeats", "10_ink ×10, 1_b ×1;"),
        (photos("2024_ink/a.png"), "layout-number", "2024_ink/: its number is read as part of its name;"),
        (photos("a.png", "set/10_b/c.png", **{"a": "1", "set/10_b/c": "2"}), "layout-number",
        "repeats; give */photos/set as the folder if they are meant"),
        (photos("5_ink/a.png", "5_ink/b.png", "c.png"), "repeats", "5_ink ×5, images beside them ×1;"),
        ({**photos("a.png"), "photos/metadata.jsonl": jsonl({"file_name": "a.png"})}, "caption-missing",
        "a.png: no caption; give its row a text"),
        (photos("a.png"), "caption-missing", "a.png: no caption; give a trigger word (--trigger WORD), or write"),
        (toml(ONE, "ink/a.png", "b.png"), "unlisted", "b.png: not listed; name its folder in a subset"),
        (toml(f"{ONE}color_aug=true", "ink/a.png"), "setting-unknown",
        "color_aug = true does not exist here: colours, faces and filters are not varied; remove it"),
        (toml(f"{ONE}num_repeat=3", "ink/a.png"), "setting-unknown",
        "num_repeat = 3 is not a setting of kohya's, did you mean num_repeats?; correct or remove it"),
        (toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='imgs'\n", "img/a.png"), "no-images",
        "set.toml: image_dir imgs is not a folder, did you mean img?; name the folder"),
        (toml("[[datasets]\n", "a.png", a="c"), "dataset-broken", "set.toml: Expected ']]' at the end"),
    ],
)  # fmt: skip
def test_a_finding_says_what_and_where(files: Files, code: str, told: str, tmp_path: Path) -> None:
    build(tmp_path, files)
    assert told.replace("*", str(tmp_path)) in said(listing(tmp_path), code)


@pytest.mark.parametrize("files", [photos("2023_trip/a.png"), photos("img/2023_trip/a.png")])
def test_a_folder_that_is_none_of_kohyas_is_named_if_they_were_asked_for(files: Files, tmp_path: Path) -> None:
    build(tmp_path, files)
    assert "2023_trip does not count: years" in said(listing(tmp_path, layout="kohya"), "no-images")


def test_a_dataset_file_that_is_broken_is_not_said_to_be_none(tmp_path: Path) -> None:
    build(tmp_path, toml("[[datasets]\n", "a.png", a="c"))
    codes = [finding.code for finding in listing(tmp_path, layout="kohya-toml").findings]
    assert "dataset-broken" in codes
    assert "no-images" not in codes


@pytest.mark.parametrize("layout", ["metadata", "sidecars"])
def test_regularisation_images_have_remedies_of_their_own_layout(layout: str, tmp_path: Path) -> None:
    build(tmp_path, {**photos("a.png", a="c"), "reg/b.png": "x", "reg/c.png": "x", "reg/c.txt": " "})
    if layout == "metadata":
        (tmp_path / "photos/metadata.jsonl").write_text(jsonl({"file_name": "a.png", "text": "c"}))
    found = listing(tmp_path, regularisation="reg")
    assert found.layout == layout
    assert "give its row" not in " ".join(finding.message for finding in found.findings)


@every_row(
    "folder, settings, told",
    [
        ("", {}, "data.folder"),
        ("fotos", {}, "does not exist; did you mean */photos?"),
        ("photos/ink", {}, "does not exist; did you mean */photos/10_ink?"),
        ("Photos/10_ink", {}, "did you mean */photos/10_ink?"),
        ("nothing/like/it", {}, "does not exist; name a folder of images"),
        ("photos/10_ink/a.png", {}, "is a file; did you mean */photos/10_ink?"),
        ("photos.zip", {}, "photos.zip is an archive, not a folder; unpack it and give the folder"),
        ("photos.tar.gz", {}, "photos.tar.gz is an archive, not a folder; unpack it and give the folder"),
        ("photos", {"mask_folder": "photos"}, "is data.folder itself"),
        ("photos", {"mask_folder": "m"}, "data.mask_folder */m does not exist"),
        ("photos", {"regularisation": "reg"}, "data.regularisation */reg does not exist"),
        ("photos", {"regularisation": "photos"}, "is data.folder itself"),
        ("bad.toml", {}, "cannot be read as TOML: Invalid statement"),
        ("bad.toml", {"layout": "kohya"}, "data.layout=kohya reads a folder"),
    ],
)
def test_what_cannot_be_read_at_all_is_refused(
    folder: str, settings: dict[str, object], told: str, tmp_path: Path
) -> None:
    build(tmp_path, {**photos("10_ink/a.png"), "bad.toml": "= 1", "photos.zip": "PK", "photos.tar.gz": "x"})
    if folder:
        assert told.replace("*", str(tmp_path)) in refusal(tmp_path, folder, **dict(settings))
    else:
        with pytest.raises(DataError, match=r"data\.folder \(none given\)"):
            list_folder(DataConfig())


def test_tag_rules_come_from_the_config_unless_the_dataset_file_says_otherwise(tmp_path: Path) -> None:
    own = "shuffle_caption=false\nkeep_tokens=2\nkeep_tokens_separator='|||'\nflip_aug=false\n"
    build(tmp_path, toml(f"{ONE}{own}[[datasets.subsets]]\nimage_dir='b'\n", "ink/a.png", "b/c.png"))
    found = listing(tmp_path, shuffle_tags=True, tag_dropout=0.25, keep_tags=1, default_caption="d")
    rules = {entry.name: (entry.rules, entry.may_flip) for entry in found.entries}
    assert rules["ink/a.png"] == (TagRules(shuffle=False, keep=2, dropout=0.25, separator="|||"), False)
    assert rules["b/c.png"] == (TagRules(shuffle=True, keep=1, dropout=0.25), True)


def test_musubis_form_has_no_subsets(tmp_path: Path) -> None:
    shared = "[general]\ncaption_extension='.cap'\nresolution=[960, 544]\n"
    sets = (
        "[[datasets]]\nimage_directory='ink'\nnum_repeats=3\n[[datasets]]\nimage_directory='b'\ncache_directory='c'\n"
    )
    build(tmp_path, toml(shared + sets, "ink/a.png", "b/c.png"))
    for name in ("ink/a", "b/c"):
        (tmp_path / f"photos/{name}.cap").write_text(f"of {name}")
    found = listing(tmp_path)
    entries = {entry.name: (entry.captions, entry.repeats) for entry in found.entries}
    assert entries == {"ink/a.png": (("of ink/a",), 3), "b/c.png": (("of b/c",), 1)}
    messages = " ".join(finding.message for finding in found.findings)
    assert "here that is data.resolution=720" in messages
    assert "data.cache names a folder that runs share" in messages


def test_musubis_lines_name_the_images(tmp_path: Path) -> None:
    build(tmp_path, toml("[[datasets]]\nimage_jsonl_file='m.jsonl'\nnum_repeats=2\n", "ink/a.png", "ink/c.png"))
    rows = [{"image_path": str(tmp_path / f"photos/ink/{name}.png"), "caption": f"of {name}"} for name in "ac"]
    (tmp_path / "photos/m.jsonl").write_text(jsonl(*rows))
    assert [(e.captions, e.repeats) for e in listing(tmp_path).entries] == [(("of a",), 2), (("of c",), 2)]


def test_the_fine_tuning_form_may_leave_out_the_folder(tmp_path: Path) -> None:
    build(tmp_path, toml("[[datasets]]\n[[datasets.subsets]]\nmetadata_file='m.json'\n", "ink/a.png", "ink/b/c.png"))
    content = {str(tmp_path / f"photos/ink/{name}.png"): {"caption": "a", "tags": "x, y"} for name in ("a", "b/c")}
    (tmp_path / "photos/m.json").write_text(json.dumps(content))
    assert [entry.captions for entry in listing(tmp_path).entries] == [("a, x, y",)] * 2


def test_tags_may_have_a_separator_of_their_own(tmp_path: Path) -> None:
    build(tmp_path, toml(f"{ONE}shuffle_caption=true\ncaption_separator=';'\n", "ink/a.png", **{"ink/a": "a; b"}))
    assert listing(tmp_path).entries[0].rules == TagRules(shuffle=True, comma=";")
    assert listing(tmp_path, tag_separator="|").entries[0].rules == TagRules(shuffle=True, comma=";")


def test_what_is_read_as_a_subset_is_not_said_to_be_left(tmp_path: Path) -> None:
    subsets = f"{ONE}[[datasets.subsets]]\nimage_dir='.'\n"
    build(tmp_path, toml(subsets, "a.png", "ink/b.png", "c/d.png", **{"a": "1", "ink/b": "2"}))
    assert said(listing(tmp_path), "not-read").startswith("1 entry is not read: c/;")


def test_a_dataset_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    build(tmp_path, {"set.toml": "a." * 100 + "b = 1"})
    assert "over 64 dots in one line" in refusal(tmp_path, "set.toml")
    build(tmp_path, {"set.toml": "#" * 250_001})
    assert "250 kB" in refusal(tmp_path, "set.toml")


def test_an_image_dir_may_be_absolute(tmp_path: Path) -> None:
    build(tmp_path, {"else/a.png": "x", "else/a.txt": "c"})
    build(tmp_path, toml(f"[[datasets]]\n[[datasets.subsets]]\nimage_dir={json.dumps(str(tmp_path / 'else'))}"))
    assert [entry.name for entry in listing(tmp_path).entries] == ["../else/a.png"]


def test_kohyas_metadata_may_name_absolute_paths(tmp_path: Path) -> None:
    build(tmp_path, toml(f"{ONE}metadata_file='m.json'", "ink/a.png"))
    content = {str(tmp_path / "photos/ink/a.png"): {"caption": "c"}, str(tmp_path / "b.png"): {"caption": "c"}}
    (tmp_path / "photos/m.json").write_text(json.dumps(content))
    found = listing(tmp_path)
    assert [entry.captions for entry in found.entries] == [("c",)]
    assert [finding.code for finding in found.findings] == ["entry-outside"]


def test_of_many_broken_rows_of_kohyas_metadata_some_are_named(tmp_path: Path) -> None:
    build(tmp_path, toml(f"{ONE}metadata_file='m.json'", "ink/a.png"))
    (tmp_path / "photos/m.json").write_text(json.dumps({"a.png": {"caption": "c"}, **dict.fromkeys("bcd" * 900, 1)}))
    assert len(listing(tmp_path).findings) == 3
    rows = {"a.png": {"caption": "c"}, **{f"{number}.png": 1 for number in range(3000)}}
    (tmp_path / "photos/m.json").write_text(json.dumps(rows))
    found = listing(tmp_path).findings
    assert len(found) == 51
    assert found[-1].detail == "2950 more rows"


def test_a_folder_that_may_not_be_entered_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, photos("a.png", "shut/b.png", a="c"))
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(tree.os, "scandir", scandir)
    assert "shut/ (permission denied)" in said(listing(tmp_path), "not-read")
    assert "cannot be read: permission denied" in refusal(tmp_path, "photos/shut")


def test_without_the_library_for_parquet_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, {**photos("a.png"), "photos/metadata.parquet": b"PAR1"})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert 'pip install "sd-lora[parquet]"' in refusal(tmp_path)


def test_a_metadata_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png"))
    with (tmp_path / "photos/metadata.jsonl").open("wb") as file:
        file.truncate(32_000_001)  # sparse
    assert "metadata.jsonl: over 32 MB" in said(listing(tmp_path), "entry-broken")


@pytest.mark.slow
def test_parquet_that_unpacks_to_much_text_is_refused(tmp_path: Path) -> None:
    """A dictionary holds the text once, and the file's own figures do not tell how often it is meant."""
    import pyarrow

    names, texts = (pyarrow.array([text] * 50_000).dictionary_encode() for text in ("a.png", "x" * 2000))
    build(tmp_path, {**photos("a.png"), "photos/metadata.parquet": parquet(file_name=names, text=texts)})
    assert (tmp_path / "photos/metadata.parquet").stat().st_size < 100_000
    assert "over 32 MB of text" in said(listing(tmp_path), "entry-broken")


def test_a_parquet_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet as pq

    build(tmp_path, photos("a.png"))
    table = pyarrow.table([pyarrow.array(["a.png"])] * 3, names=["file_name", "text", "text"])
    pq.write_table(table, tmp_path / "photos/metadata.parquet")
    assert "it has the column text twice" in said(listing(tmp_path), "entry-broken")


@pytest.mark.parametrize("row", ["{", '{"file_name": "b.png", "text": "c"}'])
def test_of_many_rows_that_cannot_be_used_some_are_named(row: str, tmp_path: Path) -> None:
    good = jsonl({"file_name": "a.png", "text": "c"})
    build(tmp_path, {**photos("a.png"), "photos/metadata.jsonl": f"{good}\n" + f"{row}\n" * 3000})
    found = listing(tmp_path)
    assert [entry.captions for entry in found.entries] == [("c",)]
    assert len(found.findings) == 51
    assert found.findings[-1].detail == "2950 more rows"


@pytest.mark.slow
def test_more_rows_than_are_read_are_refused(tmp_path: Path) -> None:
    build(tmp_path, {**photos("a.png"), "photos/metadata.jsonl": '{"file_name": "a.png"}\n' * 100_001})
    assert "over 100000 rows" in said(listing(tmp_path), "entry-broken")


def test_a_large_tables_encoding_is_told_by_its_odd_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"{number}.png,plain\n" for number in range(4000))
    text = f"file_name,text\n{rows}a.png,un château près de la rivière\n"
    build(tmp_path, {**photos("a.png"), "photos/metadata.csv": (text + rows).encode("cp1252")})
    seen, real = [], charset_normalizer.from_bytes
    monkeypatch.setattr(charset_normalizer, "from_bytes", lambda told, **more: seen.append(told) or real(told, **more))
    found = listing(tmp_path)
    assert max(map(len, seen)) < 100
    assert [entry.captions for entry in found.entries] == [("un château près de la rivière",)]
    assert "read as cp1252" in said(found, "caption-encoding")


@pytest.mark.parametrize("lines", [256, 257])
def test_more_captions_than_are_read_are_told(lines: int, tmp_path: Path) -> None:
    captions = [f"caption {number}" for number in range(lines)]
    build(tmp_path, photos("a.png", a="\n".join(captions)))
    build(tmp_path, {"rows/b.png": "x", "rows/metadata.jsonl": jsonl({"file_name": "b.png", "text": captions})})
    for folder, name in (("photos", "a.png"), ("rows", "b.png")):
        found = listing(tmp_path, folder)
        assert [entry.captions for entry in found.entries] == [tuple(captions[:256])]
        told = "caption-many" in {finding.code for finding in found.findings}
        assert told is (lines > 256)
        assert not told or f"{name}: of its 257 captions the first 256 are read" in said(found, "caption-many")


def test_a_pipe_among_the_captions_blocks_nothing(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png", "b.png", b="c"))
    os.mkfifo(tmp_path / "photos/a.txt")
    assert "a.txt: not a regular file" in said(listing(tmp_path), "caption-unreadable")


@pytest.mark.parametrize("listed", [False, True])
def test_many_images_are_listed(listed: bool, tmp_path: Path) -> None:
    """In linear time: reading them one against the other would take minutes."""
    (tmp_path / "photos").mkdir()
    names = [f"{number:05}" for number in range(2000)]
    for name in names:
        (tmp_path / "photos" / f"{name}.png").touch()
        (tmp_path / "photos" / f"{name}.txt").write_text(f"caption {name}")
    if listed:
        (tmp_path / "photos/metadata.jsonl").write_text(jsonl(*({"file_name": f"{n}.png", "text": "c"} for n in names)))
    assert len(listing(tmp_path).entries) == 2000


def test_names_that_differ_are_shown_so(tmp_path: Path) -> None:
    build(tmp_path, {f"photos/{name}{end}": "x" for name in ("a\nb", "a\\nb", "a\\\nb") for end in (".png", ".txt")})
    assert sorted(e.name for e in listing(tmp_path).entries) == ["a\\\\\\nb.png", "a\\\\nb.png", "a\\nb.png"]


@pytest.mark.parametrize("prior", ["photos/ink", "photos/ink/deep", "linked"])
def test_images_that_are_learnt_are_no_regularisation_images(prior: str, tmp_path: Path) -> None:
    build(tmp_path, toml(f"{ONE}metadata_file='m.json'", "ink/a.png", "ink/deep/b.png", **{"ink/a": "1"}))
    rows = {"a.png": {"caption": "1"}, "deep/b.png": {"caption": "2"}}
    (tmp_path / "photos/m.json").write_text(json.dumps(rows))
    (tmp_path / "linked").symlink_to("photos/ink")
    assert "images that are also read from data.folder" in refusal(tmp_path, regularisation=prior)


def test_a_link_to_what_the_folder_lies_in_is_told_as_such(tmp_path: Path) -> None:
    build(tmp_path, {**photos("a.png", "p/b.png", "p/b.txt", a="c"), "photos/root": "-> /", "photos/q": "-> p"})
    told = said(listing(tmp_path), "not-read")
    assert "root/ (a link to a folder that this one is in)" in told
    assert "q/ (a link to a folder that is read already)" in told
