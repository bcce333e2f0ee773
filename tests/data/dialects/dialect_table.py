"""Texts as people have them beside their pictures, and what is trained of each."""

from __future__ import annotations

import json
from dataclasses import dataclass

GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["8", 0], "negative": ["7", 0]}},
    "4": {"class_type": "LoraLoader", "inputs": {"lora_name": "ink", "clip": ["5", 1]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry, text", "clip": ["4", 1]}},
    "8": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
    "9": {"class_type": "StringConcatenate", "inputs": {"string_a": "a red house", "string_b": "", "delimiter": ", "}},
}  # fmt: skip
WORKFLOW = {
    "nodes": [
        {"id": 1, "type": "KSampler", "inputs": [{"name": "positive", "link": 5}, {"name": "negative", "link": 6}],
         "widgets_values": [1, "fixed", 20]},
        {"id": 2, "type": "CLIPTextEncode", "inputs": [{"name": "clip", "link": None}],
         "widgets_values": ["a red house"]},
        {"id": 3, "type": "CLIPTextEncode", "widgets_values": ["blurry"]},
    ],
    "links": [[5, 2, 0, 1, 1, "CONDITIONING"], [6, 3, 0, 1, 2, "CONDITIONING"]],
}  # fmt: skip
LAST = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x768, Model: ink"


@dataclass(frozen=True)
class Case:
    """A caption file's `text`; what is `trained` of it, and what with data.syntax=read, if that is something else; the
    `codes` of what is found."""

    name: str
    text: str
    trained: tuple[str, ...]
    codes: tuple[str, ...] = ("caption-dialect",)
    read: tuple[str, ...] = ()


def plain(name: str, text: str, *trained: str) -> Case:
    """Text that is trained as it always was."""
    return Case(name, text, trained or (text,), ())


def weighed(name: str, text: str, *read: str) -> Case:
    """Text with syntax, which is read or kept."""
    return Case(name, text, (text,), ("caption-syntax",), read)


def js(content: object) -> str:
    return json.dumps(content)


DRAWN = [
    Case("A1111", f"a red house\nNegative prompt: blurry, text, left\n{LAST}", ("a red house",)),
    Case("A1111 without a negative", f"a red house\n{LAST}", ("a red house",)),
    Case(
        "A1111 on several lines",
        f"a red house,\non a hill\nNegative prompt: x,\ny\n{LAST}",
        ("a red house, on a hill",),
    ),
    Case("A1111 on one line", f"a red house Negative prompt: blurry {LAST}", ("a red house",)),
    Case("A1111 without settings", "a red house\nNegative prompt: blurry", ("a red house",)),
    Case("A1111 with its heading", f"parameters\n\na red house\n{LAST}", ("a red house",)),
    Case("A1111 with a LoRA", f"a red house, <lora:ink:0.8>\n{LAST}", ("a red house",)),
    Case(
        "A1111 with weights",
        f"a (red:1.2) house\n{LAST}",
        ("a (red:1.2) house",),
        ("caption-dialect", "caption-syntax"),
        ("a red house",),
    ),
    Case(
        "A1111 with nothing but a negative",
        f"Negative prompt: blurry\n{LAST}",
        (),
        ("caption-dialect", "caption-empty"),
    ),
    Case(
        "A1111's extras",
        "Postprocess upscale by: 4, Postprocess upscaler: R-ESRGAN 4x+",
        (),
        ("caption-dialect", "caption-empty"),
    ),
    Case("ComfyUI as it runs", js(GRAPH), ("a red house",)),
    Case("ComfyUI as text of text", js({"prompt": js(GRAPH), "workflow": js(WORKFLOW)}), ("a red house",)),
    Case("ComfyUI as it is saved", json.dumps(WORKFLOW, indent=1), ("a red house",)),
    Case("InvokeAI", js({"positive_prompt": "a red house", "negative_prompt": "blurry", "seed": 1}), ("a red house",)),
    Case(
        "InvokeAI, older",
        js({"model": "sd", "image": {"prompt": [{"prompt": "a red house", "weight": 1}], "seed": 1}}),
        ("a red house",),
    ),
    Case("SwarmUI", js({"sui_image_params": {"prompt": "a red house", "negativeprompt": "b"}}), ("a red house",)),
    Case("NovelAI", js({"prompt": "a red house", "steps": 28, "uc": "lowres"}), ("a red house",)),
    Case("Fooocus", js({"Prompt": "a red house", "Negative Prompt": "b", "Seed": 3}), ("a red house",)),
    Case("Civitai", js({"url": "x", "meta": {"prompt": "a red house", "negativePrompt": "b"}}), ("a red house",)),
    Case("Easy Diffusion", "Prompt: a red house\nNegative Prompt: blurry\nSeed: 4\nWidth: 512", ("a red house",)),
    Case("Easy Diffusion, older", "a red house\nWidth: 512\nHeight: 512\nSeed: 42\nSteps: 25", ("a red house",)),
    Case("Midjourney", "a red house --ar 16:9 --v 5.2", ("a red house",)),
    Case("kohya's prompt", "a red house --n blurry --w 512 --h 768", ("a red house",)),
    Case("JSON that says nothing", js({"seed": 4}), (), ("caption-dialect", "caption-empty")),
]  # fmt: skip
TAGGED = [
    Case("scores", "1girl:0.98, solo:0.953, blue hair:0.90", ("1girl, solo, blue hair",)),
    Case("scores as weights", "(1girl:0.982), (solo:0.953)", ("1girl, solo",)),
    Case("a rating", "1girl, rating:safe, solo", ("1girl, solo",)),
    Case("an artist", "artist: van der bob, 1girl, solo", ("1girl, solo",)),
    Case("nothing but an artist", "artist: bob", (), ("caption-dialect", "caption-empty")),
    Case("a tagger's JSON", js({"1girl": 0.98, "long_hair": 0.7}), ("1girl, long hair",)),
    Case("a tagger's answer", js({"caption": {"rating": {"general": 0.9}, "tag": {"1girl": 0.98}}}), ("1girl",)),
    Case("a booru's tags", "1girl long_hair blue_eyes ^_^ solo", ("1girl, long hair, blue eyes, ^_^, solo",)),
    Case(
        "Danbooru's JSON",
        js(
            {
                "tag_string": "1girl bob highres",
                "tag_string_general": "1girl long_hair",
                "tag_string_artist": "bob",
                "tag_string_meta": "highres",
            }
        ),
        ("1girl, long hair",),
    ),
    Case(
        "gallery-dl's JSON",
        js({"tags_general": ["1girl", "long_hair"], "tags_artist": ["bob"], "tags": ["x"]}),
        ("1girl, long hair",),
    ),
    Case(
        "e621's JSON",
        js({"tags": {"general": ["long_tail"], "species": ["cat"], "artist": ["bob"]}}),
        ("long tail, cat",),
    ),
    Case("kohya's JSON", js({"caption": "a cat", "tags": "cute, sun"}), ("a cat, cute, sun",)),
    Case("hydrus", "creator:bob\ncharacter:miku\nblue hair\nrating:safe\npage:3", ("miku, blue hair",)),
    Case(
        "gallery-dl's tags",
        "long_hair\nblue_eyes\nsolo",
        ("long_hair, blue_eyes, solo",),
        ("caption-syntax",),
        ("long hair, blue eyes, solo",),
    ),
    Case(
        "marked brackets", r"hatsune miku \(vocaloid\), solo", ("hatsune miku (vocaloid), solo",), ("caption-escaped",)
    ),
    Case("marked brackets around a number", r"a door \(nr:4\)", ("a door (nr:4)",), ("caption-escaped",)),
]
WEIGHED = [
    weighed("a weight", "(red hair:1.3), a cat", "red hair, a cat"),
    weighed("a weight in words", "a cat with (very red:1.2) fur", "a cat with very red fur"),
    weighed("brackets twice", "((masterpiece)), a cat", "masterpiece, a cat"),
    weighed("brackets twice in words", "a ((red)) cat", "a red cat"),
    weighed("brackets around a tag", "(best quality), a cat", "best quality, a cat"),
    weighed("a weight of a weight", "((red:1.2) hair:1.3)", "red hair"),
    weighed("less", "[blue], a cat", "blue, a cat"),
    weighed("later", "a [red:blue:0.5] cat", "a blue cat"),
    weighed("until then", "a [red::0.5] cat", "a red cat"),
    weighed("in turn", "a [red|blue] cat", "a red cat", "a blue cat"),
    weighed("alternatives", "a {red|blue} {cat|dog}", "a red cat", "a red dog", "a blue cat", "a blue dog"),
    weighed("alternatives with a count", "{2$$red|blue} cat", "red, blue cat"),
    weighed("one or two alternatives", "{1-2$$red|blue}, cat", "red, cat", "blue, cat", "red, blue, cat"),
    weighed("alternatives with shares", "{0.5::red|3::blue} cat", "red cat", "blue cat"),
    weighed("NovelAI's brackets", "{{red}} cat", "red cat"),
    weighed("NovelAI's numbers", "1.3::red hair::, cat", "red hair, cat"),
    weighed("compel's weights", "a (red)1.3 cat, (tail)++", "a red cat, tail"),
    weighed("a wildcard", "__animal__ in the sun", "in the sun"),
    weighed("a LoRA", "a house <lora:ink:0.8>", "a house"),
    weighed("an embedding", "a house, embedding:bad_hand", "a house"),
    weighed("BREAK", "a cat BREAK a dog", "a cat, a dog"),
    weighed("AND", "a cat AND a dog", "a cat, a dog"),
    weighed("underscores", "long_hair, blue_eyes, score_9", "long hair, blue eyes, score_9"),
    weighed("underscores and brackets", "miku_(vocaloid), (long_hair:1.2)", "miku (vocaloid), long hair"),
]
PLAIN = [
    plain("words", "a red house on a hill"), plain("tags", "1girl, solo, long hair"),
    plain("brackets in words", "a castle (ruined) on a hill"),
    plain("the trigger word's place", "[trigger], a [trigger] cat"),
    plain("a face", "a cat :), ^_^, o_o"), plain("a bracket that is not closed", "a cat (red, ((blue"),
    plain("capitals", "SALT AND PEPPER"), plain("one word with an underscore", "a photo of my_dog, sleeping"),
    plain("a heading", "title: the sea, year: 1920"), plain("an artist who is seen", "artist: a man at an easel, oil"),
    plain("a time", "a clock at 10:30, a tower"), plain("a dash", "a cat -- asleep"),
    plain("steps", "Steps: 20 of them, a door"),
    plain("a bracket that is no JSON", "{a cat"), plain("series", "re:zero, a girl"),
    plain("lines of captions", "a cat\na dog\na bird in the sun", "a cat", "a dog", "a bird in the sun"),
]  # fmt: skip
CASES = [*DRAWN, *TAGGED, *WEIGHED, *PLAIN]
