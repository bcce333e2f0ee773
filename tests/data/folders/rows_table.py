"""Folders with a metadata file or kohya's dataset TOML, and exactly what each must be read as."""

from __future__ import annotations

from layout_table import Case, Files, im, jsonl, parquet, photos


def listed(text: str | bytes, *pictures: str, kind: str = "jsonl") -> Files:
    return {**photos(*pictures), f"photos/metadata.{kind}": text}


def row(name: object, text: object = "c", **more: object) -> dict[str, object]:
    return {"file_name": name, "text": text, **more}


def toml(text: str, *pictures: str, **texts: str | bytes | None) -> Files:
    return {**photos(*pictures, **texts), "photos/set.toml": text}


ONE = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'ink'\n"

METADATA = [
    Case("jsonl", listed(jsonl(row("a.png", "one"), row("b/c.jpg", "two")), "a.png", "b/c.jpg"), "metadata",
         [im("a.png", "one"), im("b/c.jpg", "two")]),
    Case("jsonl, other words", listed(jsonl({"Image": "a.png", "prompt": "one"}, {"path": "b.png",
         "description": "two"}), "a.png", "b.png"), "metadata",
         [im("a.png", "one"), im("b.png", "two")]),
    Case("a list of texts", listed(jsonl(row("a.png", ["one", " two "])), "a.png"), "metadata", [im("a.png", "one",
         "two")]),
    Case("two rows of one image", listed(jsonl(row("a.png", "one"), row("./a.png", "two"), row("a.png", "one")),
         "a.png"), "metadata", [im("a.png", "one", "two")]),
    Case("no text", listed(jsonl({"file_name": "a.png"}, row("b.png", "")), "a.png", "b.png"), "metadata",
         [im("a.png"), im("b.png")], ["caption-empty", "caption-missing"]),
    Case("no text, with a default", listed(jsonl({"file_name": "a.png"}), "a.png"), "metadata", [im("a.png", "d")],
         settings={"default_caption": "d"}),
    Case("rows that are none",
         listed('{"file_name": "a.png", "text": "c"}\n{"file_name": \n[1]\n\n{"text": "c"}\n'
         '{"file_name": 3}\n{"file_name": "a.png", "text": 4}', "a.png"), "metadata",
         [im("a.png", "c")], ["entry-broken"] * 5),
    Case("nested without end", listed("[" * 100_000, "a.png"), "metadata", [], ["entry-broken", "unlisted"]),
    Case("paths that lead out", {**listed(jsonl(*[row(p) for p in ("../a.png", "/etc/passwd", "C:\\a.png", "..\\a.png",
         "b/../../a.png", "\\\\host\\a.png", "a.png\0.txt")])), "a.png": "x"},
         "metadata", [], ["entry-outside"] * 7),
    Case("links that lead out", {**listed(jsonl(row("a.png"), row("more/b.png"), row("c.png")), "d.png"),
         "x/b.png": "x", "photos/a.png": "-> ../x/b.png",
         "photos/more": "-> ../x", "photos/c.png": "-> d.png"}, "metadata", [im("c.png", "c")], ["entry-outside",
         "entry-outside", "unlisted"]),
    Case("images that are not there", listed(jsonl(row("a.png"), row("b.png"), row("\ud800.png")), "a.png"),
         "metadata", [im("a.png", "c")], ["entry-missing"] * 2),
    Case("a folder listed", listed(jsonl(row("b")), "b/a.png"), "metadata", [], ["entry-broken", "unlisted"]),
    Case("images that are not listed", listed(jsonl(row("a.png")), "a.png", "b.png", "notes.md"), "metadata",
         [im("a.png", "c")], ["not-read", "unlisted"]),
    Case("Windows' separators", listed(jsonl(row("b\\a.png")), "b/a.png"), "metadata", [im("b/a.png", "c")]),
    Case("another case", listed(jsonl(row("A.PNG")), "a.png"), "metadata", [im("a.png", "c")]),
    Case("a mask listed", listed(jsonl(row("a.png", mask="m/1.png")), "a.png", "m/1.png"), "metadata", [im("a.png",
         "c", mask="m/1.png")]),
    Case("a mask beside", listed(jsonl(row("a.png")), "a.png", "a_mask.png"), "metadata", [im("a.png", "c",
         mask="a_mask.png")]),
    Case("a mask that is not there", listed(jsonl(row("a.png", mask="b.png")), "a.png"), "metadata", [],
         ["entry-missing"]),
    Case("csv", listed('file_name,text\na.png,"one, with a comma"\n\nb.png,two\n', "a.png", "b.png", kind="csv"),
         "metadata",
         [im("a.png", "one, with a comma"), im("b.png", "two")]),
    Case("csv with a mark and semicolons", listed("\ufefffile_name;text\r\na.png;one, two\r\n", "a.png", kind="csv"),
         "metadata", [im("a.png", "one, two")]),
    Case("csv with tabs", listed("text\timage\none\ta.png\n", "a.png", kind="csv"), "metadata", [im("a.png", "one")]),
    Case("csv with bare commas", listed("file_name,text\na.png,one, two\nb.png,c\n", "a.png", "b.png", kind="csv"),
         "metadata", [im("b.png", "c")], ["entry-broken", "unlisted"]),
    Case("csv with an open quote", listed('file_name,text\na.png,c\nb.png,"two\n', "a.png", "b.png", kind="csv"),
         "metadata", [im("a.png", "c")], ["entry-broken", "unlisted"]),
    Case("csv of other things", listed("x,y\n1,2\n", "a.png", kind="csv"), "metadata", [], ["entry-broken"]),
    Case("csv in an old encoding",
         listed("file_name,text\na.png,un ch\xe2teau pr\xe8s de la rivi\xe8re\n".encode("cp1252"), "a.png",
         kind="csv"), "metadata",
         [im("a.png", "un ch\xe2teau pr\xe8s de la rivi\xe8re")], ["caption-encoding"]),
    Case("parquet", listed(parquet(file_name=["a.png", "b.png"], text=["one", "two"], other=[1, 2]), "a.png", "b.png",
         kind="parquet"), "metadata",
         [im("a.png", "one"), im("b.png", "two")]),
    Case("parquet with lists", listed(parquet(image=["a.png"], captions=[1], caption=[["one", "two"]]), "a.png",
         kind="parquet"), "metadata", [im("a.png", "one", "two")]),
    Case("parquet with images in it", listed(parquet(image=[{"bytes": b"x", "path": "a.png"}], text=["c"]),
         kind="parquet"), "metadata", [], ["entry-broken"]),
    Case("a first column that is blank", listed(jsonl(row("a.png", "", caption="one", prompt=" "), row("b.png", [""],
         prompt="two")), "a.png", "b.png"), "metadata", [im("a.png", "one"), im("b.png", "two")]),
    Case("text in two columns", listed(jsonl(row("a.png", "one", caption="two", prompt=3)), "a.png"), "metadata",
         [im("a.png", "one")], ["column-unread"]),
    Case("the same in two columns", listed(jsonl(row("a.png", "one", caption="one", path="/x/a.png")), "a.png"),
         "metadata", [im("a.png", "one")]),
    Case("a key twice", listed('{"file_name": "a.png", "text": "one", "text": "two", "more": {"text": "x"}}', "a.png"),
         "metadata", [im("a.png", "one")], ["column-unread"]),
    Case("a csv column twice", listed("file_name,text,text\na.png,one,two\nb.png,,two\n", "a.png", "b.png",
         kind="csv"), "metadata", [im("a.png", "one"), im("b.png", "two")], ["column-unread"]),
    Case("a caption without end", listed(jsonl(row("a.png", "x" * 64_001)), "a.png"), "metadata", [],
         ["entry-broken", "unlisted"]),
    Case("parquet with one column in two cases", listed(parquet(file_name=["a.png"], text=["one"], Text=["two"]),
         "a.png", kind="parquet"), "metadata", [im("a.png", "one")], ["column-unread"]),
    Case("no parquet", listed(b"PAR1 not", kind="parquet"), "metadata", [], ["entry-broken"]),
    Case("three files", {**listed(jsonl(row("a.png", "j")), "a.png"), "photos/metadata.csv": "file_name,text\na.png,c",
         "photos/metadata.parquet": b""}, "metadata",
         [im("a.png", "j")], ["not-read"]),
    Case("in train", {"photos/train/metadata.jsonl": jsonl(row("a.png")), **photos("train/a.png", "more/b.png")},
         "metadata", [im("train/a.png", "c")], ["unlisted"]),
    Case("captions beside as well", {**listed(jsonl(row("a.png", "j")), "a.png"), "photos/a.txt": "t"}, "metadata",
         [im("a.png", "j")], ["not-read"]),
    Case("a folder for a file", {**photos("a.png", "metadata.jsonl/x.png")}, "bare", [im("a.png"),
         im("metadata.jsonl/x.png")], settings={"trigger": "zwq"}),
    Case("metadata where there is none", photos("a.png", a="c"), "metadata", [], ["no-images"],
         settings={"layout": "metadata"}),
]  # fmt: skip

TOML = [
    Case("toml", toml(ONE, "ink/a.png", **{"ink/a": "c"}), "kohya-toml", [im("ink/a.png", "c")]),
    Case("toml, named", toml(ONE, "ink/a.png", **{"ink/a": "c"}), "kohya-toml", [im("ink/a.png", "c")],
         folder="photos/set.toml"),
    Case("what comes down",
         toml("[general]\nnum_repeats=2\n[[datasets]]\nnum_repeats=3\n[[datasets.subsets]]\nimage_dir='p'\n"
         "[[datasets.subsets]]\nimage_dir='q'\nnum_repeats=4\n"
         "[[datasets]]\n[[datasets.subsets]]\nimage_dir='r'\n", "p/a.png", "q/b.png", "r/c.png", **{"p/a": "1",
         "q/b": "2", "r/c": "3"}), "kohya-toml",
         [im("p/a.png", "1", x=3), im("q/b.png", "2", x=4), im("r/c.png", "3", x=2)], ["repeats"]),
    Case("class tokens and reg",
         toml(f"{ONE}class_tokens='ink'\n[[datasets.subsets]]\nimage_dir='reg'\nis_reg=true\nclass_tokens='house'\n",
         "ink/a.png", "reg/b.png"), "kohya-toml",
         [im("ink/a.png", "ink"), im("reg/b.png", "house", prior=True)]),
    Case("one ending", {**toml(f"{ONE}caption_extension='.cap'", "ink/a.png", **{"ink/a": "c"}),
         "photos/ink/a.cap": "d"}, "kohya-toml", [im("ink/a.png", "d")], ["not-read"]),
    Case("prefix and suffix", toml(f"{ONE}caption_prefix='ink,'\ncaption_suffix=', fine'", "ink/a.png",
         **{"ink/a": "c"}), "kohya-toml", [im("ink/a.png", "ink, c , fine")]),
    Case("settings of others",
         toml(f"[general]\nresolution=512\ncolor_aug=false\nenable_bucket=true\n"
         f"{ONE}face_crop_aug_range=[1.0,2.0]\nnum_repeat=3\n", "ink/a.png", **{"ink/a": "c"}),
         "kohya-toml", [im("ink/a.png", "c")], ["setting-unknown"] * 4),
    Case("settings of a wrong kind", toml(f"{ONE}num_repeats='3'\nkeep_tokens=-1\nflip_aug=0", "ink/a.png",
         **{"ink/a": "c"}), "kohya-toml", [im("ink/a.png", "c")], ["setting-unknown"] * 3),
    Case("no folder",
         toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='C:\\gone'\n[[datasets.subsets]]\nnum_repeats=1\n"),
         "kohya-toml", [], ["no-images"] * 2),
    Case("Windows' separators in toml", toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='p\\q'\n", "p/q/a.png",
         **{"p/q/a": "c"}), "kohya-toml", [im("p/q/a.png", "c")]),
    Case("a folder twice",
         toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='p'\n"
         "[[datasets]]\n[[datasets.subsets]]\nimage_dir='./p'\n", "p/a.png", **{"p/a": "c"}), "kohya-toml",
         [im("p/a.png", "c")], ["not-read"]),
    Case("a folder and one in it", toml(f"{ONE}[[datasets.subsets]]\nimage_dir='.'\n", "a.png", "ink/b.png", "c/d.png",
         **{"a": "1", "ink/b": "2"}), "kohya-toml", [im("a.png", "1"), im("ink/b.png", "2")],
         ["not-read", "unlisted"]),
    Case("a folder beside", {**toml("[[datasets]]\n[[datasets.subsets]]\nimage_dir='../p'\n"), "p/a.png": "x",
         "p/a.txt": "c"}, "kohya-toml", [im("../p/a.png", "c")]),
    Case("images that no subset names", toml(ONE, "ink/a.png", "b.png", "ink/more/c.png", **{"ink/a": "c"}),
         "kohya-toml", [im("ink/a.png", "c")], ["not-read", "unlisted", "unlisted"]),
    Case("kohya's metadata", {**toml(f"{ONE}metadata_file='m.json'", "ink/a.png", "ink/b.png", "ink/d.png"),
         "photos/m.json": '{"a": {"caption": "one", "tags": "two"}, "b.png": {"tags": "three"}, '
         '"../x": {"caption": "c"}, "d": 1}'}, "kohya-toml",
         [im("ink/a.png", "one, two"), im("ink/b.png", "three")], ["entry-broken", "entry-outside", "unlisted"]),
    Case("kohya's metadata, broken", {**toml(f"{ONE}metadata_file='m.json'", "ink/a.png"), "photos/m.json": "{"},
         "kohya-toml", [], ["entry-broken"]),
    Case("no subsets", toml("[[datasets]]\nresolution=512\n"), "kohya-toml", [], ["no-images"]),
    Case("no list of datasets", toml("[datasets]\nx=1\n"), "kohya-toml", [], ["no-images", "setting-unknown"]),
    Case("two dataset files", {**toml(ONE, "ink/a.png", **{"ink/a": "c"}), "photos/b.toml": ONE}, "sidecars",
         [im("ink/a.png", "c")], ["not-read"]),
    Case("another toml", toml("x = 1", "a.png", a="c"), "sidecars", [im("a.png", "c")], ["not-read"]),
]  # fmt: skip
