"""More texts of other programs, as people find them in caption files: what of each is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Foreign:
    """A `text`, and what is `trained` of it: nothing if it is None, which is an error of its own."""

    name: str
    text: str
    trained: str | None


HOUSE = "a red house"
#: what NovelAI's fourth model writes: the prompt again, with a caption for each character
V4 = {
    "prompt": "a park", "uc": "lowres", "steps": 28,
    "v4_prompt": {"use_coords": False, "caption": {"base_caption": "a park", "char_captions": [
        {"char_caption": "1girl, red hat", "centers": [{"x": 0.5, "y": 0.5}]}, {"char_caption": "1boy"}]}},
    "v4_negative_prompt": {"caption": {"base_caption": "lowres", "char_captions": [{"char_caption": "bad hands"}]}},
}  # fmt: skip
RDF = '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'


def rows(kind: str, trained: str | None, *texts: str) -> list[Foreign]:
    """Texts of one kind that all become the same."""
    return [Foreign(f"{kind} {number}", text, trained) for number, text in enumerate(texts, 1)]


PARAMETERS = [
    *rows(
        "settings", HOUSE,
        "a red house\nsteps: 20, sampler: euler a, cfg scale: 7",
        "a red house, Steps: 20, Sampler: Euler a, CFG scale: 7",
        "a red house\nSampler: Euler a, Steps: 20, Seed: 42",
        "a red house\nSteps: 20\nSampler: Euler\nSeed: 4",
        "a red house\nSteps: 20 | Sampler: Euler a | CFG: 7.5 | Seed: 1",
        "a red house Steps: 20 Sampler: Euler Seed: 4",
        "a red house\nSize: 512x768, Seed: 42, Steps: 30",
        "a red house\nSteps: 20",
        "a red house\nsteps=20, seed=4, cfg_scale=7",
        "a red house\nSeed: 5, Model hash: abc",
        "Seed: 4\nSteps: 20\nPrompt: a red house",
        "a red house\nNegative Prompt: blurry\nsteps: 20, seed: 4",
        "a red house\nnegative_prompt: blurry",
        "Negative prompt: blurry\nPrompt: a red house\nSteps: 20, Seed: 3",
        "parameters: a red house\nNegative prompt: b\nSteps: 20, Sampler: Euler",
    ),
    *rows(
        "labels", HOUSE,
        "Prompt: a red house", "prompt: a red house", "Positive prompt: a red house\nNegative prompt: blurry",
        "Positive: a red house\nNegative: blurry", "Positive: a red house Negative: blurry", "**Prompt:** a red house",
        "Positive Prompt: a red house Negative Prompt: blurry Seed: 4", "a red house\nNegative: blurry",
        "prompt: a red house\nnegative_prompt: blurry\nsteps: 20", "Prompt\na red house\nNegative prompt\nblurry",
        "Prompt: a red house\nUndesired content: blurry", "Prompt: a red house\nSeed: 4",
        "Prompt: a red house\n\nNegative prompt: blurry, bad\n\nSteps: 20",
        "Positive prompt:\na red house\nNegative prompt:\nblurry",
    ),
    *rows(
        "Draw Things", HOUSE,
        "a red house\n-blurry, bad\nSteps: 20, Sampler: DPM++ 2M Karras, Guidance Scale: 7.0, Seed: 1, "
        "Seed Mode: Scale Alike",
        "a red house -blurry, bad Steps: 20, Sampler: Euler A, Guidance Scale: 4.5, Seed: 12, Size: 512x512",
        json.dumps({"c": HOUSE, "uc": "blurry", "sampler": "Euler A", "scale": 7, "steps": 20}),
    ),
    *rows(
        "Fooocus", HOUSE,
        "Prompt: a red house\nNegative Prompt: \nFooocus V2 Expansion: a red house, cinematic\nStyles: ['Fooocus V2']\n"
        "Performance: Speed\nSharpness: 2\nSeed: 3",
        "a red house\nNegative prompt: b\nSteps: 30, Sampler: DPM++ 2M SDE, Seed: 3, Version: Fooocus v2.5.0",
        json.dumps({"Prompt": HOUSE, "Negative Prompt": "", "Styles": "[]", "Performance": "Speed"}),
    ),
    *rows(
        "NovelAI", HOUSE,
        'Title: AI generated image\nDescription: a red house\nSoftware: NovelAI\nComment: {"steps": 28}',
        json.dumps({"Description": HOUSE, "Comment": json.dumps({"prompt": HOUSE, "uc": "bad"})}),
    ),
    *rows(
        "command lines", HOUSE,
        '"a red house" -s 50 -W 512 -H 512 -C 7.5 -A k_lms', '"a red house" -s50 -W512 -H512 -C7.5 -Ak_lms -S42',
        "a red house -s 50 -W 512 -H 512 -C 7.5 -A k_lms", 'dream> "a red house" -s 50',
        '"a red house [blurry, bad]" -s 50 -S 3',
        'invoke> a red house -n 2', '!dream "a red house" -H 512', '--prompt "a red house" --plms --steps 50',
        'python txt2img.py --prompt "a red house" --H 512', "'a red house' -s 50 -W 512",
    ),
    *rows(
        "Midjourney", HOUSE,
        "https://x.org/picture a red house --ar 3:2",
        "a red house --ar 3:2 --v 6 --style raw", "/imagine prompt: a red house --ar 3:2", "a red house --v 6",
        "https://cdn.discordapp.com/attachments/1/2/x.png a red house --ar 16:9", "a red house --niji 6 --s 250",
        "<https://s.mj.run/abc> https://s.mj.run/def a red house --iw 2", "a red house --no people, cars",
        "a red house —ar 3:2 —v 6", "**a red house --ar 3:2** - @bob (fast)", "a red house, --chaos 20 --tile",
        "a red house --sref https://x.org/a.png --sw 50", "a red house --p", "a red house --raw --ar 4:5",
        "a red house --profile abc12 --exp 10", "a red house --aspect 2:3 --draft", "/imagine a red house --q 2",
    ),
]  # fmt: skip
SCORED = [
    *rows(
        "scores", "1girl, solo, long hair",
        "1girl (0.98), solo (0.95), long_hair (0.9)", "1girl: 0.98, solo: 0.95, long_hair: 0.90",
        "1girl:98%, solo:95%, long_hair:90%", "1girl|0.98, solo|0.95, long_hair|0.9",
        "1girl\t0.98\nsolo\t0.95\nlong_hair\t0.9",
        '{"1girl": .98, "solo": .95, "long_hair": .9}', "1girl: 0.98\nsolo: 0.95\nlong_hair: 0.9",
        "1girl 0.98\nsolo 0.95\nlong_hair 0.90", "1girl,0.98\nsolo,0.95\nlong_hair,0.9",
        "tag,score\n1girl,0.98\nsolo,0.95\nlong_hair,0.9", "tag\tconfidence\n1girl\t0.98\nsolo\t0.95\nlong_hair\t0.9",
        "1girl=0.98; solo=0.95; long_hair=0.9", "1girl (98%), solo (95.5%), long_hair (90%)",
        "(0.98) 1girl, (0.95) solo, (0.90) long_hair", "0.98 1girl, 0.95 solo, 0.90 long_hair",
        "0.98: 1girl\n0.95: solo\n0.9: long_hair", "[('1girl', 0.98), ('solo', 0.95), ('long_hair', 0.9)]",
        "('1girl', 0.98), ('solo', 0.95), ('long_hair', 0.9)", "1girl - 0.98, solo - 0.95, long_hair - 0.9",
        '[{"tag": "1girl", "score": 0.98}, {"tag": "solo", "score": 0.95}, {"tag": "long_hair", "score": 0.9}]',
        '[["1girl", 0.98], ["solo", 0.95], ["long_hair", 0.9]]', "{'1girl': 0.98, 'solo': 0.95, 'long_hair': 0.9}",
        '{"general": {"1girl": 0.98, "solo": 0.95, "long_hair": 0.9}, "rating": {"safe": 0.99}}',
        "1girl (0,98), solo (0,95), long_hair (0,9)", "1girl: 0,98; solo: 0,95; long_hair: 0,9",
        "1girl,0.98,solo,0.95,long_hair,0.90", "1girl 0.98 solo 0.95 long_hair 0.90",
        "1girl\t0.98\tsolo\t0.95\tlong_hair\t0.91",
        "general: 0.95, 1girl: 0.98, solo: 0.95, long_hair: 0.9", "1girl [0.98], solo [0.95], long_hair [0.9]",
        "1girl | 0.98\nsolo | 0.95\nlong_hair | 0.9", "1girl:0.98 | solo:0.95 | long_hair:0.90",
        "- 1girl: 0.98\n- solo: 0.95\n- long_hair: 0.9", "1. 1girl (0.98)\n2. solo (0.95)\n3. long_hair (0.9)",
        "1girl 98%, solo 95%, long_hair 90%",
        "1girl\tgeneral\t0.98\nsolo\tgeneral\t0.95\nlong_hair\tgeneral\t0.9",
        '"1girl": 0.98, "solo": 0.95, "long_hair": 0.9',
        '{"tags": {"1girl": 0.98, "solo": 0.95, "long_hair": 0.9}}', '{"tags": [{"name": "1girl", "confidence": 0.98}, '
        '{"name": "solo", "confidence": 0.9}, {"name": "long_hair", "confidence": 0.9}]}',
        "1girl:1.0, solo:0.95, long_hair:.90",
        "(1girl:0.98), (solo:0.95), (long_hair:0.90)",
    ),
    *rows("one score", "1girl", "1girl (0.98)", "1girl: 0.98", "1girl:98%", "1girl|0.98", '{"1girl": .98}'),
]  # fmt: skip
ANSWERS = [
    *rows(
        "tokens", HOUSE,
        "a red house</s>", "<s>a red house</s>", "<s> a red house </s><pad><pad>", "a red house<|endoftext|>",
        "<|im_start|>assistant\na red house<|im_end|>", "USER: Describe it. ASSISTANT: a red house</s>",
        "<|start_header_id|>assistant<|end_header_id|>\n\na red house<|eot_id|>",
        "[INST] Describe it [/INST] a red house",
        "<CAPTION>a red house", "</s><s>a red house</s>", "a red house [SEP]", "<bos>a red house<eos>",
        "[CLS] a red house [SEP] [PAD]",
        "Question: what is this? Answer: a red house", "<answer>a red house</answer>", "<caption>a red house</caption>",
        "<start_of_turn>model\na red house<end_of_turn>", "a red house<unk>",
        "a <ref>red house</ref><box>(1,2),(3,4)</box>", "<image>\na red house", "a red house<｜end▁of▁sentence｜>",
    ),
    *rows(
        "thoughts", HOUSE,
        "<think>I see a house.\n\nIt is red.</think>\n\na red house", "<think></think>a red house",
        "hm, a house?</think>a red house",
        "<thinking>x</thinking> a red house", "<think>\nx\n</think>\n```\na red house\n```",
        "◁think▷x◁/think▷a red house",
        "<think>ok</think>\nCaption: a red house",
    ),
    *rows("an endless thought", None, "<think>I see a house and", "<think>\nI see\na house"),
    *rows(
        "fences", HOUSE,
        "```\na red house\n```", "```text\na red house\n```", "``` a red house ```",
        "Here is the caption:\n```\na red house\n```",
        '```json\n{"caption": "a red house"}\n```', "`a red house`", "**a red house**", "## a red house",
        "~~~\na red house\n~~~",
        "Sure! Here you go:\n\n```txt\na red house\n```\n\nLet me know if you need anything else!",
    ),
    *rows(
        "JSON", HOUSE,
        '{"<MORE_DETAILED_CAPTION>": "a red house"}', "{'<CAPTION>': 'a red house'}",
        '[{"generated_text": "a red house"}]',
        "['a red house']", '{"response": "a red house"}', '{"caption": "a red house"}', '["a red house"]',
        '{"choices": [{"message": {"role": "assistant", "content": "a red house"}}]}', '{"caption": "a red house</s>"}',
        '{"description": "Sure! a red house"}',
    ),
    *rows(
        "words around", HOUSE,
        "Caption: a red house", "Here is a caption: a red house",
        "Here's a detailed caption for the image: a red house",
        "Sure! a red house", "Sure, I can help with that! a red house",
        "I'd be happy to describe the image: a red house", "Here is a caption for your image.\n\na red house",
        '"a red house".', "Sure, here is a caption: a red house",
        "Certainly! Here is a description of the image:\n\na red house",
        "Description: a red house", "Image description: a red house", "Sure! Here's a caption:\n\"a red house\"",
        "The caption is: a red house",
        "Here is the caption you asked for:\n\na red house\n\nLet me know if you need more!",
        "Of course! a red house", "Tags: a red house", "Output: a red house", "Final caption: a red house",
        "Alt text: a red house",
        "Here's a short one-sentence caption for this image: a red house", "Okay, here's the description: a red house",
        "Based on the image, here is a caption: a red house",
        "A possible caption for this image could be: \"a red house\"",
        "**Caption:** a red house", "Assistant: a red house", "Absolutely! Here's the prompt: a red house",
        '"a red house"', "'a red house'", "“a red house”", "«a red house»", 'Caption: "a red house"',
        "\"Caption: a red house\"",
    ),
    *rows(
        "nothing", None,
        "None", "N/A", "null", "nan", "NaN", "n/a", "none.", "NONE", "undefined", "None</s>", '"None"',
        "No caption available.",
        "[none]", "Caption: None", "<null>", "no description", "(none)", "Caption: N/A", "</s>", "<pad><pad>",
        "[object Object]", "NA",
    ),
    *rows(
        "errors", None,
        "Error: 429 Too Many Requests", "error: timeout", "ERROR: CUDA out of memory", "Error code: 500 - {}",
        "RuntimeError: CUDA out of memory. Tried",
        "Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: x",
        "[ERROR] could not load", "Exception: no", "Failed to generate caption", "HTTP Error 502: Bad Gateway",
        "API Error: overloaded",
        "openai.RateLimitError: Rate limit reached", "An error occurred while processing", "Request timed out.",
        '{"error": {"message": "quota exceeded"}}', "503 Service Unavailable", "CUDA out of memory.",
    ),
    *rows(
        "refusals", None,
        "I'm sorry, I can't help with that.", "I’m sorry, but I can’t assist with that request.",
        "I'm unable to describe this image.",
        "I am sorry, but I cannot identify people.", "Sorry, I can't describe this.", "I cannot assist with that.",
        "I can't see the image.",
        "I'm not able to help with that.", "As an AI language model, I cannot see images.",
        "I apologize, but I cannot provide a caption.",
        "Unfortunately, I can't view images.", "I'm sorry, I can't help with that.\nPlease upload another image.",
        "I do not feel comfortable describing this.",
        "Caption: I'm sorry, I can't help with that.", "\"I'm sorry, but I can't help with that.\"",
        "I won't provide a description of this image.",
        "No image was provided.", "Please provide the image.", "There is no image attached.",
        "It looks like you haven't uploaded an image.",
        "I'm just an AI, I can't see.", "Apologies, but I am unable to process this.",
        "I must decline to describe this.", "I cannot fulfill this request.",
        "This content violates our usage policies.", "抱歉，我无法描述这张图片。",
        "Lo siento, pero no puedo ayudar con eso.",
        "I don't have the ability to view images.",
    ),
    *rows("what describes", "The image shows a red house.", "Sure! The image shows a red house."),
]  # fmt: skip
MARKUP = [
    *rows(
        "HTML", "a red house & a cat",
        "a red house &amp; a cat", "<p>a red house &amp; a cat</p>", "a red house<br>&amp; a cat",
        "<b>a red house</b> &amp; a cat",
        "a red house &#38; a cat", "a red house &#x26; a cat", "a red house &amp;amp; a cat",
        "<div class=\"x\">\n<p>a red house</p>\n<p>&amp; a cat</p>\n</div>",
        "<!DOCTYPE html><html><body>a red house &amp; a cat</body></html>",
        "<script>x()</script>a red house &amp; a cat",
        "<a href=\"https://x.org/?a=1&amp;b=2\">a red house</a>&nbsp;&amp; a cat",
        "<!-- by bob -->a red house &amp; a cat",
    ),
    *rows("an apostrophe", "a dog's house", "a dog&#39;s house", "a dog&apos;s house", "a dog&#x27;s house"),
    *rows(
        "XMP", HOUSE,
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{RDF}<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/">'
        '<dc:description><rdf:Alt><rdf:li '
        'xml:lang="x-default">a red house</rdf:li>'
        "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>",
        "<?xml version=\"1.0\"?>\n<image>\n<name>a.png</name>\n<caption>a red house</caption>\n</image>",
        f'<?xpacket begin="" id="W5M0"?><x:xmpmeta xmlns:x="adobe:ns:meta/">{RDF}'
        '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" '
        'exif:UserComment="a red house&#10;Negative prompt: b&#10;Steps: 20, Seed: 4"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>',
    ),
    *rows("XML about something else", None,
    "<annotation><filename>a.png</filename><size><width>4</width></size></annotation>"),
]  # fmt: skip
BOORUS = [
    *rows(
        "boorus", "1girl, long hair",
        json.dumps({"id": 3, "tags": "1girl long_hair", "rating": "s", "md5": "x", "source": "y"}),
        json.dumps({"tags": "1girl long_hair"}),
        json.dumps({"tag_string": "1girl long_hair", "rating": "s"}),
        json.dumps({"tags": {"general": "1girl long_hair", "artist": "bob"}}),
        json.dumps({"post": {"tags": {"general": ["1girl", "long_hair"], "meta": ["highres"], "lore": ["x"]}}}),
        json.dumps({"post": [{"id": 1, "tags": "1girl long_hair", "score": 3}]}),
        json.dumps({"tags_general": "1girl long_hair", "tags_meta": "highres"}),
        json.dumps({"tags": ["creator:bob", "1girl", "long_hair", "rating:safe"], "md5": "x", "rating": "s"}),
        json.dumps({"tags": [{"name": "1girl", "type": 0}, {"name": "bob", "type": 1}, {"name": "long_hair",
        "category": "general"}]}),
        json.dumps({"tags": {"my tags": {"storage_tags": {"0": ["creator:bob", "1girl", "long_hair"]}}}}),
        "1girl long_hair rating:s score:12 artist:bob",
        "1girl, long hair, score:12, rating:s, artist:bob, meta:highres, lore:old",
        json.dumps(["creator:bob", "1girl", "long hair", "page:3"]), "1girl\nlong hair\nrating:s\nscore:12",
        json.dumps({"@attributes": {"count": 1}, "post": [{"id": 1, "tags": " 1girl long_hair ", "score": 3,
        "md5": "a"}]}),
    ),
    *rows("what is to be seen", "ink, miku, cat", "medium:ink, character:miku, species:cat",
    "medium:ink, medium:highres, character:miku, species:cat"),
    *rows("headings", "1girl, solo", "artist: bob, 1girl, solo", "1girl, Artist: bob smith, solo",
    "creator: bob, 1girl, solo", "1girl, solo, uploader: bob", "artist: bob\n1girl\nsolo\nrating:s"),
    *rows("nothing but marks", None, "artist: bob", "rating:s, score:12", "artist:bob",
    json.dumps({"tags": "artist:bob rating:s", "id": 3, "md5": "x"})),
]  # fmt: skip
MORE = [
    *rows(
        "programs", HOUSE,
        "a red house | Steps: 20 | Seed: 2", '{"positive": "a red house", "negative": "ugly"}',
        '{"v4_prompt": {"caption": {"base_caption": "a red house", "char_captions": []}}, "steps": 28}',
        '{"v4_prompt": {"caption": {"base_caption": "", "char_captions": [{"char_caption": "a red house"}]}}}',
        '{"metadata": {"prompt": "a red house"}}',
        "https://i.imgur.com/a.jpeg https://i.imgur.com/b.png a red house --iw .5",
        "a red house --seed 123 --hd", "a red house\nWidth: 512, Height: 512, Seed: 3", "Prompt: \"a red house\"",
        "a red house\nSampling steps: 20\nSampling method: Euler\nGuidance: 7", "a red house, Negative prompt: lowres",
    ),
    *rows(
        "NovelAI's characters", "a park, 1girl, red hat, 1boy",
        json.dumps(V4), json.dumps({"Comment": json.dumps(V4), "Description": "a park"}),
        json.dumps({"v4_prompt": V4["v4_prompt"], "v4_negative_prompt": V4["v4_negative_prompt"]}),
    ),
    *rows(
        "scores in other forms", "tree, sky",
        "tree:0.91 sky:0.88", "tree (91%) sky (88%)", "tree, 0.91\nsky, 0.88", "tree;0.91\nsky;0.88",
        "0.91\ttree\n0.88\tsky",
        "name,category,score\ntree,general,0.91\nsky,general,0.88", '{"tree": 91.2, "sky": 88.1}',
        "tree~0.91, sky~0.88",
        "tree (confidence: 0.91), sky (confidence: 0.88)", "rating: general (0.9), tree (0.91), sky (0.88)",
        '["tree: 0.91", "sky: 0.88"]', "tree: 91.2%, sky: 88%", '{"tree": "0.91", "sky": "0.88"}',
    ),
    *rows(
        "answers in other forms", HOUSE,
        "### Instruction: describe\n### Response:\na red house", "<image>a red house</image>", "a red house[/INST]",
        "[think]hm[/think] a red house", "*a red house*", '""a red house""', '\\"a red house\\"',
        "<|assistant|> a red house",
    ),
    *rows(
        "no captions in other forms", None,
        "[]", "{}", "-", "...", "undefined, undefined", "Error", "error 500", "Error generating caption: timeout",
        "Exception in thread main", "ConnectionError", "It seems that the image is not available.",
        "The image was not provided.", "Your request was rejected by our safety system.",
        "I must respectfully decline.",
        "我无法描述这张图片。",
    ),
    *rows("pairs of a tag and its kind", "castle", '{"tags": [["castle", "general"], ["bob", "artist"]]}'),
]  # fmt: skip
FOREIGN = [*MORE, *PARAMETERS, *SCORED, *ANSWERS, *MARKUP, *BOORUS]

#: text with syntax → the captions with data.syntax=read
SYNTAX = [
    ("a (red house:1,3) here", ("a red house here",)), ("a cat :1.2 AND a dog :0.8", ("a cat, a dog",)),
    ("red house:1.2, a tree", ("red house, a tree",)),
    ("(:1.2) a cat", ("a cat",)), ("(embedding:bad:1.2), a cat", ("a cat",)),
    ("{2$$a|b|c} cat", ("a, b cat", "a, c cat", "b, c cat")), ("{2$$ and $$a|b|c}", ("a and b", "a and c", "b and c")),
    ("{2-$$a|b|c}", ("a, b", "a, c", "b, c", "a, b, c")), ("{-2$$a|b}", ("a", "b", "a, b")), ("{9$$a|b}", ("a, b",)),
    ("{2$$0.5::a|{b|c}|2::d}", ("a, b", "a, c", "a, d", "b, d", "c, d")), ("{$$a|b} cat", ("a cat", "b cat")),
    ('("a cat", "a dog").blend(.5,.5)', ("a cat, a dog",)), ('("a cat","a dog").and()', ("a cat, a dog",)),
    ('("a cat", "a dog").and(1, 0.5)', ("a cat, a dog",)),
    ("a cat.swap(dog) here", ("a dog here",)), ("(a cat).swap(a dog)", ("a dog",)), ("a cat.blend(1,1)", ("a cat",)),
    ("cat++, a dog", ("cat, a dog",)), ("a (b)-- cat", ("a b cat",)), ("a cat+++ here", ("a cat here",)),
    ("cat--, dog", ("cat, dog",)),
    ("a [red:blue:0,5] cat", ("a blue cat",)), ("a [red|blue] cat", ("a red cat", "a blue cat")), ("x BREAK y",
    ("x, y",)), ("x AND y", ("x, y",)),
    ("a cat <hypernet:ink:1>", ("a cat",)), ("a cat <wildcard:animal>", ("a cat",)), ("a <random:red|blue> cat",
    ("a red cat", "a blue cat")),
    ("a <LORA:x:1> cat", ("a cat",)), ("__wild__ cat", ("cat",)), ("a house::2 hill::1", ("a house, hill",)),
    ("((a (b:1.1) c))", ("a b c",)),
    ("a <fromto[0.5]:red|blue> cat", ("a blue cat",)), ("a cat, embedding:name:1.1", ("a cat",)), ("(a cat)1.2, dog",
    ("a cat, dog",)),
    ("(red:-0.5) cat", ("red cat",)), ("a (cat:.5) here", ("a cat here",)), ("{a|b}", ("a", "b")), ("<lyco:x:1>a cat",
    ("a cat",)),
]  # fmt: skip

#: sentences that are no syntax of any program
ORDINARY = """
a clock at 10:30 above a door
a small (red) house on a hill
a house (left) and a tree (right)
Cafe – sign says "None"
a sign reads "Error: 404" in neon
some fruit, e.g. apples, on a table
a price tag of $4.99 on a shirt
two shirts, 5 € each
a photo in the ratio 3:2, on a wall
a smiling man :) with a hat
a sad face :( drawn on a cup
a happy face :-D, a heart <3 and a wink ;)
a shop sign with www.example.com on it
http://example.com painted on a wall
a dog -- asleep -- on a mat
a house--old and small--by the sea
a thermometer at -5 degrees
a temperature of -12 °C on a display
Steps: a staircase in stone
a cat: black, white, and small
title: the sea, year: 1920
a man in a C++ shirt
the Disney+ logo on a screen
a grade of A+ on a paper
a mother & her child
AT&T on a building
a 50% off sign in a window
a label that says 50% cotton, 50% wool
a coat of 50% wool and 50% cotton
an open book [page torn] on the floor of a room
a "small" house and a "big" one
'Tis the season, a tree
"Stop" and "Go" on two signs
the score is 2:1 on a board
a train at platform 9 3/4
a man who can't see in the dark
I love NY on a shirt
a sorry sight: I cannot on a banner
a house, no people
a girl with long hair, blue eyes
SALT AND PEPPER
1 + 1 = 2 on a blackboard
a < b on a blackboard
x^2 + y^2 on a blackboard
a * on a door
a #1 mug
a @ sign
50mm, f/1.8, ISO 100
a map at 1:25000
a box 3x4x5 cm
a table; a chair; a lamp
a bottle (0.5 l) on a table
a 0.5 l bottle, a 0.75 l bottle
The image shows a cat.
caption on a photo: "hello"
a prompt reply: yes on a card
positive: a plus sign on a battery
Note: a yellow paper on a door
Okay, a sign in a shop
Answer: a play by nobody, on a poster
a negative: dark trees on film
a woman saying "Sure!" to a man
a person's name tag: Bob
Matthew 5:14 on a stone
a URL, https://example.com/a?b=1&c=2, on a poster
a tattoo of -273.15
re:zero, a girl
a seed, a stem, a leaf
Size: 38 on a shoe box
a model: Anna in a dress
a_b on a sign
A sign says "Open: 9:00-17:00".
A clock shows 10:30, and a cat sleeps.
A ratio of 16:9 on a TV.
A "For Sale" sign (red) in front of a house.
A man [left] and a woman [right] in a park.
A price of $3.99 (half off).
€5.00, a ticket
A cup of coffee – black – on a table.
A cup -- black -- on a table
--a note pinned to a board
The temperature is -10°C outside.
Step 1: mix; Step 2: bake, in a cookbook
Steps: 3 steps lead to a door
Seed: a sunflower seed in a hand
Model: a plastic model of a car
Size: small, Color: red, on a tag
Prompt service at a counter
Caption contest on a poster
Error on a screen
An error message on a screen: "404"
None of the people are smiling.
Nan bread on a plate
N/A Street sign
null and void, stamped on paper
Sure, the sky is blue.
I'm at the beach, says a postcard
A dog says: "I can't see!"
Sorry! We're closed, on a door
Thank you note on a table
Let me know, a neon sign
a heart <3 on a wall
>_< face, 1girl
a :3 face, cat
a girl with :D face
;) wink
(: upside down
A+ on a test
Google+ logo
C++ code on a screen
a 5++ rating
e.g., a cat
i.e. a dog
U.S.A. flag
Dr. Smith's office
rock'n'roll
Tom & Jerry
R&D department
a&b on a wall
fish & chips, 2 for 1
www.shop.com
https://www.example.com/path on a van
a QR code linking to https://a.b/c.png
user@example.com on a card
#1 dad mug
# hashtag sign
50% wool, 50% cotton
100% cotton
50/50
a 0.5 mm pen, a 0.7 mm pen
f/1.8, 1/125 s, ISO 100
f/2.8, 0.25 s, a night
version 1.5 of a poster
iPhone 12, a hand
a 3x3 grid
2 x 4 plank
1:1
1:64 scale model car
John 3:16 on a sign
x = 0.98, y = 0.95 on a graph
a graph with x: 0.5, y: 0.75
f(x) = x^2 on a blackboard
a[0] in code on a screen
print("hello") on a screen
<html> written on a shirt
a <b> button
AND gate diagram
BREAK dance poster
"quoted" text and "more"
'single' words
“Hello”, he said
a sentence ending with a colon:
a_file_name.txt on a screen
snake_case in code
1girl, solo, long hair, blue eyes
masterpiece, best quality, 1girl
the letters a.b.c.
A: an answer, Q: a question
User: admin on a login form
Human: a figure
Answer the phone, a sign
Description of Egypt, a book
tags on clothes: red, blue
Positive vibes only, a poster
Negative space in a painting
negative: film strip
-5 on a thermometer
- a list item
* starred note
5 * 3 = 15
a**b
~ tilde ~
a|b on paper
year: 1920, title: the sea
artist unknown, a painting
score: 3-2 on a board
rating 5 stars
page 3 of a book
source of a river
set: a table for two
medium: oil on canvas
character: Hamlet, on a stage
group: five people at a table
id: 12345 on a badge
title:The Sea on a book
The image shows a red house.
This image depicts a cat.
In this image, a dog runs.
there is no image on the wall
It looks like rain over a field
Please close the door, a sign
No text, no people
the photo was not developed well
okay hand sign
Great! a banner
text: 5 > 3 & 2 < 4
5 < 6 > 4
Note: a house
a.k.a. the house
:-) and :-(
T_T, crying, girl
a woman (aged 30) with a child (5)
a house (built in 1920: still standing)
the numbers 0.98 and 0.95 on a wall
tree 1, tree 2, tree 3
room 0.1, room 0.2
beer 0.5, wine 0.2
apples: 3, pears: 4
a cat; a dog; a bird
Nan, an old woman, on a chair
OK! a magazine on a table
a man saying I need you on a poster
Text: "hello" on a wall
I can see a house from here
a girl in a "None" shirt
null island on a map
the word nan on a wall
milk: 1.5%, butter: 80%
butter: 80%, milk: 30%
milk 1.5%, butter 80%, salt 0.1%
battery: 80%, volume: 50%
humidity: 45.5%, battery: 97%, tide: 12%
wool: 60%, silk: 30%
fat: 12.5%, sugar: 10.1%, salt: 0.9%
artist: a painter in a studio, oil on canvas
the artist: bob on a wall
creator: who is it, a poster
""".strip().splitlines()

#: pieces that are slow to read over and over, if they are read carelessly
HOSTILE = [
    '<think>', '</think>', '```', '<script>', '<!--', '<p ', '&amp;', '**', 'Caption: ', 'Here is ', '"', 'a: 0.98, ',
    'a,0.98,', "('a', 0.9),", '[[', '{"a":', 'Prompt: ', 'prompt:\n', 'Seed: 4 ', '-s 5 ', ' --ar',
    'https://x.org/a.png ', 'a:1.2 ', '("a",', '.swap(', 'a++ ', 'a--', '<random:', '[a:b:0.5]', 'rating:s ', 'a_b, ',
    '<a>', 'USER: ', 'let me know if ', 'short ', '\t', '\n', ' ', 'a\t0.9\n', 'Description: ', ':(', '&#', '1. ',
    '__a']  # fmt: skip
