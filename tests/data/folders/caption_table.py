"""Captions where people keep them besides NAME.txt, and exactly what each must be read as."""

from __future__ import annotations

import json

from layout_table import Case, Files, im, photos
from rows_table import ONE, toml

TRIGGER: dict[str, object] = {"trigger": "zwq"}
NAMES: dict[str, object] = {"captions_from": "name"}


def beside(name: str, text: str, *pictures: str) -> Files:
    return {**photos("a.png", *pictures), f"photos/{name}": text}


def as_json(**content: object) -> Files:
    return beside("a.json", json.dumps(content))


CAPTIONS = [
    *(Case(f"a caption in {name}", beside(name, "a cat"), "sidecars", [im("a.png", "a cat")]) for name in (
        "a.txt.txt", "a.caption.txt", "a.TXT.txt", "a.tags", "a.cap", "A.Cap", "a.text", "a.prompt", "a.captions",
        "a.png.tags", "a.png.caption.txt", "a.wd14_cap", "a.caption.caption")),
    *(Case(f"a caption as {key}", as_json(**{key: "a cat", "seed": 3}), "sidecars", [im("a.png", "a cat")])
        for key in ("caption", "text", "prompt", "description", "tags", "Caption")),
    Case("captions in JSON", as_json(caption=["one", " two "]), "sidecars", [im("a.png", "one", "two")]),
    Case("tags in JSON", as_json(tags=["red hair", "1girl"]), "sidecars", [im("a.png", "red hair, 1girl")]),
    Case("JSON that is a text", beside("a.json", '"a cat"'), "sidecars", [im("a.png", "a cat")]),
    Case("two texts in JSON", as_json(caption="one", tags="two", text=""), "sidecars", [im("a.png", "one")],
         ["column-unread"]),
    Case("an empty caption in JSON", as_json(caption=""), "sidecars", [im("a.png")], ["caption-empty"]),
    Case("JSON without a caption", as_json(seed=3), "sidecars", [im("a.png")], ["caption-unread"]),
    Case("JSON without a caption, and a default", as_json(seed=3), "sidecars", [im("a.png")], ["caption-unread"],
         settings={"default_caption": "d"}),
    Case("JSON with scores", as_json(tags={"cat": 0.9}), "sidecars", [im("a.png", "cat")]),
    Case("a post of Danbooru", as_json(tag_string="1girl long_hair bob", tag_string_general="1girl long_hair",
         tag_string_artist="bob", rating="s"), "sidecars", [im("a.png", "1girl, long hair")], ["column-unread"]),
    Case("a post of e621", as_json(id=3, tags={"general": ["long_tail"], "species": ["cat"], "artist": ["bob"]}),
         "sidecars", [im("a.png", "long tail, cat")], ["column-unread"]),
    Case("a post with tags between spaces", as_json(id=3, md5="x", rating="s", tags="1girl long_hair"), "sidecars",
         [im("a.png", "1girl, long hair")]),
    Case("a model's answer in JSON", as_json(generated_text="a cat"), "sidecars", [im("a.png", "a cat")]),
    Case("JSON that is none", beside("a.json", "{"), "sidecars", [im("a.png")], ["caption-unread"]),
    Case("JSON beside a caption", {**as_json(caption="one"), "photos/a.txt": "two"}, "sidecars", [im("a.png", "two")],
         ["not-read"]),
    *(Case(f"a caption that is not read in {name}", beside(name, "a cat"), "sidecars", [im("a.png")],
         ["caption-unread", "not-read"], settings=TRIGGER) for name in ("a.yaml", "a.csv", "a.docx", "a_caption.txt",
         "a-tags.txt", "a.caption.xml", "a.md", "a.desc", "a.description.txt")),
    # of an image without a caption, whose file is elsewhere or has a longer name
    *(Case(f"a caption that is in {name}", {**photos("p/a.png", "b.png", b="c"), f"photos/{name}": "a cat"}, "sidecars",
         [im("b.png", "c"), im("p/a.png")], ["caption-unread", "not-read"]) for name in ("captions/a.txt",
         "p/labels/a.txt", "A.TXT", "p/a.jpg.txt", "tags/a.png.caption", "p/a.txt.bak", "p/a.txt~", "q/a.json")),
    *(Case(f"no caption is in {name}", {**photos("p/a.png", "b.png", b="c"), f"photos/{name}": text}, "sidecars",
         [im("b.png", "c"), im("p/a.png")], ["caption-missing", "not-read"]) for name, text in (
         ("labels/a.txt", "0 0.5 0.5 0.1 0.1"), ("captions/z.txt", "a cat"), ("p/a.mp4", "x"))),
    Case("a caption of an image whose name has two endings", photos("c.jpeg.png", "b.png", b="x", c="y"), "sidecars",
         [im("b.png", "x"), im("c.jpeg.png")], ["caption-unread", "not-read"]),
    Case("captions elsewhere, and kohya's word", photos("2_ink/a.png", "captions/a.txt"), "kohya", [im("2_ink/a.png",
         "ink", x=2)], ["caption-unread", "not-read"]),
    Case("a caption of an ending that was not asked for", beside("a.tags", "a cat"), "sidecars", [im("a.png")],
         ["caption-unread", "not-read"], settings={"caption_suffixes": (".txt",)}),
    Case("a caption that kohya's folder would hide", {**photos("2_ink/a.png"), "photos/2_ink/a.yaml": "c"}, "kohya",
         [im("2_ink/a.png", x=2)], ["caption-unread", "not-read"]),
    Case("another caption in kohya's folder", {**photos("2_ink/a.png"), "photos/2_ink/a.json": '{"tags": "c"}'},
         "kohya", [im("2_ink/a.png", "c", x=2)]),
    Case("a caption of another ending than the dataset file says", toml(f"{ONE}caption_extension='.cap'", "ink/a.png",
         **{"ink/a": "c"}), "kohya-toml", [im("ink/a.png")], ["caption-unread", "not-read"]),
    Case("a caption whose image has a longer name", {**photos("a.png", "a.tags.png", a="one"),
         "photos/a.tags.txt": "two"}, "sidecars", [im("a.png", "one"), im("a.tags.png", "two")]),
    Case("without captions, as asked", as_json(seed=3), "bare", [im("a.png")], ["not-read"], settings={**TRIGGER,
         "layout": "bare"}),
    # bare is chosen in silence only where there is nothing but images
    *(Case(f"captions may be in {name}", beside(name, "a.png,a cat"), "bare", [im("a.png")], ["caption-elsewhere",
         "not-read"], settings=TRIGGER) for name in ("captions.csv", "captions.json", "prompts.txt", "data.jsonl",
        "captions/a.txt")),
    *(Case(f"no captions are in {name}", beside(name, "x"), "bare", [im("a.png")], ["not-read"], settings=TRIGGER)
        for name in ("README.md", "LICENSE.txt", "clip.mp4", "photos.zip", "index.html", "mine.toml")),
    # captions in names
    Case("names as captions", photos("0012_a_red_house (3).png", "b/a cat on a chair.jpg"), "sidecars",
         [im("0012_a_red_house (3).png", "a red house"), im("b/a cat on a chair.jpg", "a cat on a chair")],
         settings=NAMES),
    Case("a name that says nothing", photos("IMG_0012.png", "a cat.png"), "sidecars", [im("IMG_0012.png"),
         im("a cat.png", "a cat")], ["caption-missing"], settings=NAMES),
    Case("a name that says nothing, with a default", photos("00012.png"), "sidecars", [im("00012.png", "d")],
         settings={**NAMES, "default_caption": "d"}),
    Case("names instead of files", photos("a cat.png", **{"a cat": "c"}), "sidecars", [im("a cat.png", "a cat")],
         ["not-read"], settings=NAMES),
    Case("names in kohya's folders", photos("2_ink/a cat_7.png"), "kohya", [im("2_ink/a cat_7.png", "a cat", x=2)],
         settings=NAMES),
    Case("names in a dataset file", toml(ONE, "ink/a cat_7.png"), "kohya-toml", [im("ink/a cat_7.png", "a cat")],
         settings=NAMES),
    Case("names that read like captions", photos("a red house on a hill.png", "two_cats_on_a_chair_02.png"), "bare",
         [im("a red house on a hill.png"), im("two_cats_on_a_chair_02.png")], ["caption-names"], settings=TRIGGER),
    Case("names of cameras", photos("IMG_0012.png", "Screenshot from 2024-01-01.png"), "bare", [im("IMG_0012.png"),
         im("Screenshot from 2024-01-01.png")], settings=TRIGGER),
]  # fmt: skip
