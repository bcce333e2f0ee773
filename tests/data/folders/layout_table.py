"""Folders as people bring them, and exactly what each must be read as. ``"-> x"`` is a link to x, ``None`` a folder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

Image = tuple[str, tuple[str, ...], int, str | None, bool]
Files = dict[str, "str | bytes | None"]


@dataclass(frozen=True)
class Case:
    """`files` under the test's folder; the user sets `folder` and `settings`; the rest is what must be found."""

    name: str
    files: Files
    layout: str
    images: list[Image]
    codes: list[str] = field(default_factory=list)
    folder: str = "photos"
    settings: dict[str, object] = field(default_factory=dict)


def im(name: str, *captions: str, x: int = 1, mask: str | None = None, prior: bool = False) -> Image:
    return name, captions, x, mask, prior


def photos(*pictures: str, **texts: str | bytes | None) -> Files:
    """Pictures in ``photos/``, and by keyword the caption files of those named with one letter."""
    return {f"photos/{name}": "x" for name in pictures} | {f"photos/{k}.txt": v for k, v in texts.items()}


def jsonl(*rows: object) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def parquet(**columns: object) -> bytes:
    import pyarrow
    from pyarrow import parquet as pq

    out = io.BytesIO()
    pq.write_table(pyarrow.table(columns), out)
    return out.getvalue()


SIDECARS = [
    Case("txt beside", photos("a.png", "b.jpg", a="a cat", b="a dog"), "sidecars", [im("a.png", "a cat"), im("b.jpg",
         "a dog")]),
    Case("caption beside", {**photos("a.png"), "photos/a.caption": "a cat"}, "sidecars", [im("a.png", "a cat")]),
    Case("txt before caption", {**photos("a.png", a="one"), "photos/a.caption": "two"}, "sidecars", [im("a.png",
         "one")], ["caption-twice"]),
    Case("the same twice", {**photos("a.png", a="one"), "photos/a.caption": " one\n"}, "sidecars", [im("a.png",
         "one")]),
    Case("another order", {**photos("a.png", a="one"), "photos/a.caption": "two"}, "sidecars", [im("a.png", "two")],
         ["caption-twice"],
         settings={"caption_suffixes": (".caption", ".txt")}),
    Case("an empty txt, a full caption", {**photos("a.png", a=""), "photos/a.caption": "two"}, "sidecars", [im("a.png",
         "two")], ["caption-twice"]),
    Case("the image's whole name", {**photos("a.png"), "photos/a.png.txt": "a cat"}, "sidecars", [im("a.png",
         "a cat")]),
    Case("two of a stem, told apart", {**photos("a.png", "a.jpg"), "photos/a.png.txt": "p", "photos/a.jpg.txt": "j"},
         "sidecars",
         [im("a.jpg", "j"), im("a.png", "p")]),
    Case("two of a stem, and a text of neither",
         {**photos("a.png", "a.jpg", a="both"), "photos/a.png.txt": "p", "photos/a.jpg.txt": "j"}, "sidecars",
         [im("a.jpg", "j"), im("a.png", "p")], ["not-read"]),
    Case("two of a stem, one text", photos("a.png", "a.jpg", a="c"), "sidecars", [im("a.jpg", "c"), im("a.png", "c")],
         ["caption-shared"] * 2),
    Case("a source beside its export", photos("a.png", "a.psd", a="c"), "sidecars", [im("a.png", "c"), im("a.psd",
         "c")]),
    Case("case of names", {"photos/A.PNG": "x", "photos/a.Txt": "c"}, "sidecars", [im("A.PNG", "c")]),
    Case("names that differ in case", {"photos/A.png": "x", "photos/a.png": "x", "photos/A.txt": "big",
         "photos/a.txt": "small"}, "sidecars",
         [im("A.png", "big"), im("a.png", "small")]),
    Case("accents spelt in two ways", {"photos/caf\u00e9.png": "x", "photos/cafe\u0301.txt": "c"}, "sidecars",
         [im("caf\u00e9.png", "c")]),
    Case("dots in names", {"photos/v1.2 final.png": "x", "photos/v1.2 final.txt": "c"}, "sidecars",
         [im("v1.2 final.png", "c")]),
    Case("one missing", photos("a.png", "b.png", a="c"), "sidecars", [im("a.png", "c"), im("b.png")],
         ["caption-missing"]),
    Case("one missing, with a default", photos("a.png", "b.png", a="c"), "sidecars", [im("a.png", "c"), im("b.png",
         "d")], settings={"default_caption": "d"}),
    Case("one missing, with a trigger", photos("a.png", "b.png", a="c"), "sidecars", [im("a.png", "c"), im("b.png")],
         ["caption-missing"],
         settings={"trigger": "zwq"}),
    Case("one empty", photos("a.png", "b.png", a="c", b=" \n\t"), "sidecars", [im("a.png", "c"), im("b.png")],
         ["caption-empty"]),
    Case("one empty, with a default", photos("a.png", a=""), "sidecars", [im("a.png", "d")],
         settings={"default_caption": "d"}),
    Case("several lines", photos("a.png", a="one\n\n two \r\nthree"), "sidecars", [im("a.png", "one", "two", "three")],
         ["caption-lines"]),
    Case("several lines joined", photos("a.png", a="one\n two"), "sidecars", [im("a.png", "one two")],
         settings={"caption_lines": "joined"}),
    Case("an old encoding", photos("a.png", a="un ch\xe2teau pr\xe8s de la rivi\xe8re".encode("cp1252")), "sidecars",
         [im("a.png", "un ch\xe2teau pr\xe8s de la rivi\xe8re")], ["caption-encoding"]),
    Case("not text", photos("a.png", "b.png", a="c\0d", b="c"), "sidecars", [im("a.png"), im("b.png", "c")],
         ["caption-unreadable"]),
    Case("not text, with a default", photos("a.png", a="c\0d"), "sidecars", [im("a.png")], ["caption-unreadable"],
         settings={"default_caption": "d"}),
    Case("folders within", photos("a.png", "more/b.png", "more/deep/c.png", **{"a": "1", "more/b": "2",
         "more/deep/c": "3"}), "sidecars",
         [im("a.png", "1"), im("more/b.png", "2"), im("more/deep/c.png", "3")]),
    Case("one stem in two folders", photos("a.png", "b/a.png", **{"a": "1", "b/a": "2"}), "sidecars", [im("a.png",
         "1"), im("b/a.png", "2")]),
    Case("other files", photos("a.png", "notes.md", "clip.mp4", a="c", z="an orphan"), "sidecars", [im("a.png", "c")],
         ["not-read"]),
    Case("what systems leave behind", photos("a.png", ".b.png", "Thumbs.db", "__MACOSX/._a.png", ".git/c.png",
         ".ipynb_checkpoints/a.png", "@eaDir/a.png", a="c"),
         "sidecars", [im("a.png", "c")]),
    Case("a run of ours", photos("a.png", "run/log.jsonl", "run/config.toml", "run/samples/s.png", a="c"), "sidecars",
         [im("a.png", "c")], ["not-read"]),
    Case("a cache", photos("a.png", "cache/s.png", a="c"), "sidecars", [im("a.png", "c")], ["not-read"]),
    Case("a link to an image", {"b.png": "x", "photos/a.png": "-> ../b.png", "photos/a.txt": "c"}, "sidecars",
         [im("a.png", "c")]),
    Case("a link to a folder", {"else/b.png": "x", "else/b.txt": "c", "photos/more": "-> ../else"}, "sidecars",
         [im("more/b.png", "c")]),
    Case("a link in a circle", {**photos("a.png", a="c"), "photos/loop": "-> ."}, "sidecars", [im("a.png", "c")],
         ["not-read"]),
    Case("a link upwards", {**photos("a.png", a="c"), "other/b.png": "x", "photos/up": "-> .."}, "sidecars",
         [im("a.png", "c")], ["not-read"]),
    Case("links from each to the other", {**photos("p/a.png", "q/b.png", **{"p/a": "1", "q/b": "2"}),
         "photos/p/q": "-> ../q", "photos/q/p": "-> ../p"}, "sidecars",
         [im("p/a.png", "1"), im("q/b.png", "2")], ["not-read"]),
    Case("links that lead nowhere", {**photos(a="c"), "photos/a.png": "-> gone.png", "photos/b.png": "-> b.png"},
         "sidecars",
         [im("a.png", "c"), im("b.png")], ["caption-missing"]),
    Case("a caption that is a folder", photos("a.png", "b.png", b="c", a=None), "sidecars", [im("a.png"),
         im("b.png", "c")], ["caption-missing"]),
    Case("a name that is no text", {"photos/\udce9.png": "x", "photos/\udce9.txt": "c"}, "sidecars", [im("\\udce9.png",
         "c")]),
    Case("a name of two lines", {"photos/a\nb.png": "x", "photos/a\nb.txt": "c"}, "sidecars", [im("a\\nb.png", "c")]),
    Case("a year and a leading zero", photos("2024_summer/a.png", "01_front/b.png", **{"2024_summer/a": "1",
         "01_front/b": "2"}), "sidecars",
         [im("01_front/b.png", "2"), im("2024_summer/a.png", "1")], ["layout-number"] * 2),
    Case("sidecars, as told", photos("10_ink/a.png", **{"10_ink/a": "c"}), "sidecars", [im("10_ink/a.png", "c")],
         settings={"layout": "sidecars"}),
]  # fmt: skip

MASKS = [
    Case("a mask", photos("a.png", "a_mask.png", a="c"), "sidecars", [im("a.png", "c", mask="a_mask.png")]),
    Case("a mask of another kind and case", photos("a.jpg", "A_MASK.PNG", a="c"), "sidecars", [im("a.jpg", "c",
         mask="A_MASK.PNG")]),
    Case("a masklabel", photos("a.png", "a-masklabel.png", a="c"), "sidecars", [im("a.png", "c",
         mask="a-masklabel.png")]),
    Case("two masks", photos("a.png", "a-masklabel.png", "a_mask.png", a="c"), "sidecars", [im("a.png", "c",
         mask="a_mask.png")], ["not-read"]),
    Case("a mask without its image", photos("a_mask.png", a_mask="c"), "sidecars", [im("a_mask.png", "c")]),
    Case("a mask of a mask", photos("a.png", "a_mask.png", "a_mask_mask.png", a="c", a_mask_mask="d"), "sidecars",
         [im("a.png", "c", mask="a_mask.png"), im("a_mask_mask.png", "d")]),
    Case("no masks wanted", photos("a.png", "a_mask.png", a="c"), "sidecars", [im("a.png", "c")], [],
         settings={"masks": False}),
]  # fmt: skip

BARE = [
    Case("bare", photos("a.png", "b/c.png"), "bare", [im("a.png"), im("b/c.png")], ["caption-missing"] * 2),
    Case("bare with a trigger", photos("a.png"), "bare", [im("a.png")], settings={"trigger": "zwq"}),
    Case("bare with a default", photos("a.png"), "bare", [im("a.png", "d")], settings={"default_caption": "d"}),
    Case("bare, as told", photos("a.png", a="c"), "bare", [im("a.png")], ["not-read"], settings={"layout": "bare",
         "trigger": "zwq"}),
    Case("nothing", {"photos": None}, "bare", [], ["no-images"]),
    Case("no images", photos("a.md"), "bare", [], ["no-images", "not-read"]),
    Case("a folder named as an image", photos("a.png/b.png", "c.png"), "bare", [im("a.png/b.png"), im("c.png")],
         settings={"trigger": "zwq"}),
]  # fmt: skip

KOHYA = [
    Case("kohya", photos("10_ink wash/a.png", "10_ink wash/b.png", **{"10_ink wash/a": "c"}), "kohya",
         [im("10_ink wash/a.png", "c", x=10), im("10_ink wash/b.png", "ink wash", x=10)]),
    Case("two parts", photos("10_ink/a.png", "1_sketch/b.png"), "kohya", [im("10_ink/a.png", "ink", x=10),
         im("1_sketch/b.png", "sketch")], ["repeats"]),
    Case("the leaf itself", photos("10_ink/a.png"), "kohya", [im("a.png", "ink", x=10)],
         folder="photos/10_ink"),
    Case("once each", photos("1_ink/a.png"), "kohya", [im("1_ink/a.png", "ink")]),
    Case("img and reg", photos("img/10_ink/a.png", "reg/2_house/b.png", "log/x", "model/last.safetensors"), "kohya",
         [im("img/10_ink/a.png", "ink", x=10), im("reg/2_house/b.png", "house", x=2, prior=True)], ["not-read"]),
    Case("loose images of reg", photos("img/1_ink/a.png", "reg/b.png", **{"reg/b": "c"}), "kohya",
         [im("img/1_ink/a.png", "ink"), im("reg/b.png", "c", prior=True)]),
    Case("only reg", photos("reg/1_house/b.png"), "bare", [im("reg/1_house/b.png", "house", prior=True)],
         ["no-images"]),
    Case("folders in the leaf", photos("3_ink/a.png", "3_ink/more/b.png"), "kohya", [im("3_ink/a.png", "ink", x=3),
         im("3_ink/more/b.png", "ink", x=3)]),
    Case("images beside", photos("10_ink/a.png", "b.png", "2024_c/d.png", b="c"), "kohya",
         [im("10_ink/a.png", "ink", x=10), im("2024_c/d.png"), im("b.png", "c")],
         ["caption-missing", "layout-mixed", "layout-mixed", "layout-number", "repeats"]),
    Case("too deep by one", photos("set/10_ink/a.png"), "kohya", [], ["no-images"]),
    Case("too deep, beside others", photos("a.png", "set/10_ink/b.png", **{"a": "c", "set/10_ink/b": "d"}), "sidecars",
         [im("a.png", "c"), im("set/10_ink/b.png", "d")], ["layout-number"]),
    Case("empty parts", {**photos("a.png", a="c"), "photos/10_ink": None}, "sidecars", [im("a.png", "c")]),
    Case("too many repeats", photos("20240101_trip/a.png"), "bare", [im("20240101_trip/a.png")], ["layout-number"],
         settings={"trigger": "zwq"}),
    Case("kohya with a default", photos("2_ink/a.png"), "kohya", [im("2_ink/a.png", "d", x=2)],
         settings={"default_caption": "d"}),
    Case("kohya where there is none", photos("a.png"), "kohya", [], ["no-images"], settings={"layout": "kohya"}),
]  # fmt: skip

PRIOR = [
    Case("regularisation, bare", {**photos("a.png", a="c"), "house/b.png": "x"}, "sidecars", [im("../house/b.png",
         "house", prior=True), im("a.png", "c")],
         settings={"regularisation": "house", "default_caption": "d"}),
    Case("regularisation, captioned", {**photos("a.png", a="c"), "house/b.png": "x", "house/b.txt": "e"}, "sidecars",
         [im("../house/b.png", "e", prior=True), im("a.png", "c")], settings={"regularisation": "house"}),
    Case("regularisation, kohya's", {**photos("a.png", a="c"), "reg/3_house/b.png": "x"}, "sidecars",
         [im("../reg/3_house/b.png", "house", x=3, prior=True), im("a.png", "c")],
         settings={"regularisation": "reg"}),
    Case("regularisation in the folder", photos("a.png", "houses/b.png", a="c"), "sidecars", [im("a.png", "c"),
         im("houses/b.png", "houses", prior=True)],
         settings={"regularisation": "photos/houses"}),
    Case("regularisation without images", {**photos("a.png", a="c"), "reg": None}, "sidecars", [im("a.png", "c")],
         ["no-images"], settings={"regularisation": "reg"}),
]  # fmt: skip
