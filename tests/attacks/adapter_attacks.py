"""Files that are not a complete LoRA adapter, each made by code, with the reason its refusal must name."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

NAME = "mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
STEM, OTHER = f"lora_unet_{NAME}", "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_mid_block_resnets_0_conv1"
DOTTED = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
Tensors = dict[str, Tensor]


def good(stem: str = STEM, rank: int = 2) -> Tensors:
    return {
        f"{stem}.lora_down.weight": torch.ones(rank, 6), f"{stem}.lora_up.weight": torch.ones(8, rank),
        f"{stem}.alpha": torch.tensor(2.0),
    }  # fmt: skip


def conv(kernel: int = 3) -> Tensors:
    down, up = torch.ones(2, 6, kernel, kernel), torch.ones(8, 2, 1, 1)
    return {f"{CONV}.lora_down.weight": down, f"{CONV}.lora_up.weight": up, f"{CONV}.alpha": torch.tensor(2.0)}


def with_part(role: str, tensor: Tensor, stem: str = STEM) -> Tensors:
    return good(stem) | {f"{stem}.{role}": tensor}


def raw(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of a header (text or what becomes JSON) and a body."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: Any = (2, 2), begin: Any = 0, end: Any = 16, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


def edited(edit: Callable[[dict[str, Any]], Any], tensors: Tensors | None = None) -> bytes:
    """A good file whose header was edited."""
    content = save(tensors or good())
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    changed = edit(header)
    return raw(changed if changed is not None else header, content[8 + length :])


def holes(key: str, value: float) -> bytes:
    tensors = good()
    tensors[f"{STEM}.{key}"].view(-1)[0] = value
    return save(tensors)


def archive() -> bytes:
    content = io.BytesIO()
    torch.save(good(), content)
    return content.getvalue()


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("data.pkl", b"x")
    return content.getvalue()


def foreign(*roles: str, stem: str = STEM) -> bytes:
    return save({f"{stem}.{role}": torch.ones(2, 2) for role in roles})


def repeated(pairs: str) -> bytes:
    """A header with a key twice, which no dict can hold."""
    item = json.dumps(entry())
    return raw(("{" + pairs.replace("ITEM", item) + "}").encode(), bytes(16))


def moved(key: str, begin: Any, end: Any) -> bytes:
    return edited(lambda header: header[f"{STEM}.{key}"].__setitem__("data_offsets", [begin, end]))


def shaped(key: str, shape: Any) -> bytes:
    return edited(lambda header: header[f"{STEM}.{key}"].__setitem__("shape", shape))


def typed(key: str, dtype: Any) -> bytes:
    return edited(lambda header: header[f"{STEM}.{key}"].__setitem__("dtype", dtype))


def record(value: str) -> bytes:
    keys = {f"{DOTTED}.lora_A.weight": torch.ones(2, 6), f"{DOTTED}.lora_B.weight": torch.ones(8, 2)}
    return save(keys, {"lora_adapter_metadata": value})


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
PARTIAL = r"has no (up|down)"
SHAPES = "cannot be multiplied"
HEADER = "damaged safetensors header"
CUT = "is cut short: "
NOT_ONE = "is not a safetensors file, nor in any other known format"
MIXED = "mixes keys of the layouts"
UNKNOWN = "keys in no layout that sd_lora reads"

ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    # other formats under this name
    "empty": (lambda: b"", "it is empty"),
    "seven bytes": (lambda: b"\x00" * 7, "nothing but zeros"),
    "zeros": (lambda: bytes(4096), "nothing but zeros"),
    "pickle": (lambda: pickle.dumps({"a": 1}), "it is a pickle .*never loaded"),
    "torch archive": (archive, "it is a PyTorch pickle in a zip archive .*never loaded"),
    "zip": (zipped, "a zip archive"),
    "gzip": (lambda: gzip.compress(save(good())), "a gzip archive"),
    "gguf": (lambda: b"GGUF\x03\x00\x00\x00" + bytes(64), "a GGUF file"),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(64), "a PNG picture"),
    "web page": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "it is an HTML page"),
    "pointer to a stored file": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                                 'git-LFS pointer.*; run "git lfs pull"'),
    # headers
    "length beyond the file": (lambda: raw({}, length=10**6),
                               f"{CUT}its header alone announces 1,000,008 bytes, and the file has 10"),
    "length of 2^63": (lambda: raw({}, length=2**63), NOT_ONE),
    "length of all ones": (lambda: raw({}, length=2**64 - 1), NOT_ONE),
    "length zero": (lambda: raw(b"", bytes(16)), "nothing but zeros"),
    "length one": (lambda: raw(b"{", bytes(16)), NOT_ONE),
    "blank before the header": (lambda: raw(b"   " + json.dumps({"a": entry()}).encode(), bytes(16)), NOT_ONE),
    "header of 101 MB": (lambda: raw(b"{" + b" " * 101_000_000 + b"}"),
                         "has a header of 101 MB; an adapter has at most 100"),
    "400,000 empty tensors": (lambda: raw({f"t{i}": EMPTY for i in range(400_000)}), "declares 400,000 tensors"),
    "30,000 empty tensors": (lambda: raw({f"t{i}": EMPTY for i in range(30_000)}), "declares 30,000 tensors"),
    "nested without end": (lambda: raw(b'{"a":' + b"[" * 100_000), HEADER),
    "nested objects": (lambda: raw(b'{"a":' * 50_000), HEADER),
    "not JSON": (lambda: raw(b"{nothing}"), HEADER),
    "cut in the header": (lambda: save(good())[:60], f"{CUT}its header alone"),
    "not UTF-8": (lambda: raw(b'{"\xff\xfe": 1}'), HEADER),
    "a list": (lambda: raw(b"[1]"), NOT_ONE),
    "NaN in the header": (lambda: raw(b'{"a": NaN}'), HEADER),
    "a number of 5,000 digits": (lambda: raw(b'{"a": ' + b"9" * 5000 + b"}"), HEADER),
    "nothing in it": (lambda: raw({}), "holds no tensors"),
    "metadata only": (lambda: raw({"__metadata__": {"a": "b"}}), "holds no tensors"),
    "metadata is a list": (lambda: edited(lambda h: h.update(__metadata__=["a"])), HEADER),
    "metadata holds numbers": (lambda: edited(lambda h: h.update(__metadata__={"a": 1})), HEADER),
    "metadata twice": (
        lambda: repeated('"__metadata__":{"a":"b"},"__metadata__":{"a":"c"},"x":ITEM'), "duplicate field"),
    "a key twice": (lambda: repeated('"x":ITEM,"x":ITEM'), r"a key occurs twice \(x\)"),
    "the last of 200,000 keys twice": (
        lambda: raw(("{" + ",".join(f'"{i}":0' for i in [*range(200_000), 199_999]) + "}").encode()), HEADER),
    "dtype twice": (lambda: raw(b'{"x":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
                    "duplicate field"),
    "an entry is a number": (lambda: raw({"x": 1}), HEADER),
    "an entry without shape": (lambda: raw({"x": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)), HEADER),
    "three offsets": (lambda: raw({"x": entry() | {"data_offsets": [0, 8, 16]}}, bytes(16)), HEADER),
    "unknown type": (lambda: typed("lora_up.weight", "F31"), "unknown variant"),
    "type is a number": (lambda: typed("lora_up.weight", 32), HEADER),
    "type is a list": (lambda: typed("lora_up.weight", ["F32"]), HEADER),
    "negative offset": (lambda: moved("alpha", -4, 0), HEADER),
    "fractional offset": (lambda: moved("alpha", 0.0, 4.0), HEADER),
    "offset is true": (lambda: moved("alpha", False, 4), HEADER),
    "offset is text": (lambda: moved("alpha", "0", "4"), HEADER),
    "negative shape": (lambda: shaped("lora_up.weight", [-8, -2]), HEADER),
    "shape is text": (lambda: shaped("lora_up.weight", "82"), HEADER),
    "shape is a number": (lambda: shaped("lora_up.weight", 16), HEADER),
    "shape larger than its bytes": (lambda: shaped("lora_up.weight", [8, 20]), HEADER),
    "shape of 2^40": (lambda: shaped("lora_up.weight", [2**40, 2**40]), HEADER),
    "overlapping tensors": (lambda: moved("lora_up.weight", 0, 64), "invalid offset"),
    "a gap": (lambda: edited(lambda h: [e.__setitem__("data_offsets", [o + 8 for o in e["data_offsets"]])
                                        for k, e in h.items() if k.endswith("up.weight")] and None), "invalid offset"),
    "bytes at the end": (lambda: save(good()) + b"hidden", "has bytes after its last tensor: it announces"),
    "body cut short": (lambda: save(good())[:-8], f"{CUT}it announces [0-9,]+ bytes and has"),
    "no body": (lambda: save(good())[:-116], CUT),
    # tensors
    "NaN in down": (lambda: holes("lora_down.weight", float("nan")), "NaN or infinite"),
    "NaN in up": (lambda: holes("lora_up.weight", float("nan")), "NaN or infinite"),
    "infinity in up": (lambda: holes("lora_up.weight", float("inf")), "NaN or infinite"),
    "minus infinity in down": (lambda: holes("lora_down.weight", float("-inf")), "NaN or infinite"),
    "infinite float16": (lambda: save({k: t.half() * 1e5 for k, t in good().items()}), "NaN or infinite"),
    "NaN alpha": (lambda: holes("alpha", float("nan")), "NaN or infinite"),
    "infinite alpha": (lambda: holes("alpha", float("inf")), "NaN or infinite"),
    "huge alpha": (lambda: holes("alpha", 1e30), r"has alpha 1e\+30 for rank 2"),
    "negative alpha": (lambda: holes("alpha", -2.0), "has alpha -2 for rank 2"),
    "two alphas": (lambda: save(with_part("alpha", torch.ones(2))), "an alpha of 2 values"),
    "empty alpha": (lambda: save(with_part("alpha", torch.ones(0))), "an alpha of 0 values"),
    "NaN magnitude": (lambda: save(with_part("dora_scale", torch.full((8, 1), float("nan")))), "NaN or infinite"),
    "magnitude of another size": (lambda: save(with_part("dora_scale", torch.ones(5, 1))), "a magnitude of shape"),
    "whole numbers": (lambda: save({k: t.to(torch.int32) for k, t in good().items()}), "holds values of type I32"),
    "truth values": (lambda: save({k: t.bool() for k, t in good().items()}), "holds values of type BOOL"),
    "ranks that differ": (lambda: save(with_part("lora_up.weight", torch.ones(8, 3))), SHAPES),
    "rank 0": (lambda: save({f"{STEM}.lora_down.weight": torch.ones(0, 6), f"{STEM}.lora_up.weight": torch.ones(8, 0)}),
               SHAPES),
    "rank 100,000": (lambda: save({f"{STEM}.lora_down.weight": torch.ones(100_000, 1).half(),
                                   f"{STEM}.lora_up.weight": torch.ones(1, 100_000).half()}), "has rank 100000"),
    "one dimension": (lambda: save(with_part("lora_down.weight", torch.ones(12))), SHAPES),
    "three dimensions": (lambda: save(with_part("lora_down.weight", torch.ones(2, 6, 1))), SHAPES),
    "five dimensions": (lambda: save(with_part("lora_down.weight", torch.ones(2, 6, 1, 1, 1))), SHAPES),
    "no dimension": (lambda: save(with_part("lora_down.weight", torch.tensor(1.0))), SHAPES),
    "kernel in up": (lambda: save(conv() | {f"{CONV}.lora_up.weight": torch.ones(8, 2, 3, 3)}), SHAPES),
    "down and up swapped": (
        lambda: save({f"{STEM}.lora_down.weight": torch.ones(8, 2), f"{STEM}.lora_up.weight": torch.ones(2, 6)}),
        SHAPES),
    "up transposed": (lambda: save(with_part("lora_up.weight", torch.ones(2, 8))), SHAPES),
    # halves
    "down without up": (lambda: save({f"{STEM}.lora_down.weight": torch.ones(2, 6)}), PARTIAL),
    "up without down": (lambda: save({f"{STEM}.lora_up.weight": torch.ones(8, 2)}), PARTIAL),
    "alpha alone": (lambda: save({f"{STEM}.alpha": torch.tensor(1.0)}), "has no down and no up"),
    "magnitude alone": (lambda: save({f"{STEM}.dora_scale": torch.ones(8, 1)}), "has no down and no up"),
    "one module without up": (lambda: save(good() | {f"{OTHER}.lora_down.weight": torch.ones(2, 6)}), PARTIAL),
    "A without B": (lambda: save({f"{DOTTED}.lora_A.weight": torch.ones(2, 6)}), PARTIAL),
    "B without A": (lambda: save({f"{DOTTED}.lora_B.weight": torch.ones(8, 2)}), PARTIAL),
    "modules gone": (lambda: save(good(), {"sdlora.modules": f"{DOTTED} unet.mid_block.resnets.0.conv1"}),
                     "1 of the modules it was saved with are missing"),
    # keys of others
    "13 unknown keys": (lambda: save(good() | {f"extra.{i}": torch.ones(1) for i in range(13)}), f"13 of 16 {UNKNOWN}"),
    "one unknown key": (lambda: save(good() | {"optimizer.state": torch.ones(1)}), f"1 of 4 {UNKNOWN}"),
    "third text encoder": (lambda: save(good("lora_te3_text_model_encoder_layers_0_mlp_fc1")), UNKNOWN),
    "double underscore": (lambda: save(good("lora_unet_mid_block__resnets_0_conv1")), UNKNOWN),
    "path as a key": (lambda: save({"../../etc/passwd": torch.ones(1)}), UNKNOWN),
    "key of 100,000 letters": (lambda: save({"k" * 100_000: torch.ones(1)}), UNKNOWN),
    "key with NUL and newline": (lambda: save({"a\x00b\nc": torch.ones(1)}), UNKNOWN),
    "empty key": (lambda: save({"": torch.ones(1)}), UNKNOWN),
    "LoHa without a part": (lambda: foreign("hada_w1_a", "hada_w1_b", "hada_w2_a"), "has no w2_b"),
    "LoKr without a factor": (lambda: foreign("lokr_w1"), "has no lokr_w2"),
    "a core that does not fit": (
        lambda: save(conv() | {f"{CONV}.lora_mid.weight": torch.ones(2, 2, 3, 3)}), "a core of",
    ),
    "flat OFT blocks": (lambda: foreign("oft_blocks"), "blocks of shape"),
    "GLoRA without a part": (lambda: foreign("a1.weight", "a2.weight", "b1.weight"), "has no b2"),
    "a gain of two sides": (lambda: foreign("weight", "on_input"), "a gain of shape"),
    "a bias of two sides": (lambda: foreign("diff", "diff_b"), "no weight and bias"),
    "parts of two kinds": (lambda: foreign("lora_down.weight", "hada_w1_a"), "do not belong together"),
    "textual inversion": (lambda: save({"emb_params": torch.ones(1, 768)}), "embeddings"),
    "Flux of kohya": (lambda: save(good("lora_unet_double_blocks_0_img_attn_qkv")), "cannot be divided among"),
    "half a module of SD3": (
        lambda: save({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 6)}), "has no up"),
    "PixArt": (lambda: save(good("lora_transformer_transformer_blocks_0_attn1_to_q")), "without a UNet"),
    "base checkpoint": (lambda: save({"model.diffusion_model.out.2.weight": torch.ones(4, 4)}), "a base model"),
    "VAE": (lambda: save({"first_stage_model.encoder.conv_in.weight": torch.ones(4, 4)}), "a base model"),
    # two of a kind
    "two layouts": (lambda: save(good() | {"unet.conv_in.lora_A.weight": torch.ones(2, 6),
                                           "unet.conv_in.lora_B.weight": torch.ones(8, 2)}), MIXED),
    "two namings": (lambda: save(good() | good("lora_unet_input_blocks_1_1_proj_in")), MIXED),
    "one module in two spellings": (
        lambda: save({f"{DOTTED}.lora_A.weight": torch.ones(2, 6), f"{DOTTED}.lora_B.weight": torch.ones(8, 2),
                      f"{DOTTED}.lora_A.default.weight": torch.ones(2, 6)}), "twice, in two spellings"),
    # diffusers' record of alphas
    "record is no JSON": (lambda: record("{"), "damaged record of its alphas"),
    "record is a list": (lambda: record("[]"), "damaged record of its alphas"),
    "record of a text alpha": (lambda: record('{"unet.lora_alpha": "two"}'), "damaged record of its alphas"),
    "record of NaN": (lambda: record('{"unet.lora_alpha": NaN}'), "has alpha nan"),
    "record of a huge alpha": (lambda: record('{"unet.lora_alpha": 1e40}'), r"has alpha 1e\+40"),
    "record of an alpha beyond floats": (lambda: record(f'{{"unet.lora_alpha": 1{"0" * 400}}}'), "has alpha inf"),
    "record nested without end": (lambda: record('{"a":' * 50_000), "damaged record of its alphas"),
    "record of broken patterns": (lambda: record('{"unet.alpha_pattern": 3}'), "damaged record of its alphas"),
}  # fmt: skip
