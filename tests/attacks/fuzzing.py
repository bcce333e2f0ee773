"""Mutate good adapter files and read them: each is read whole, or refused in one line; nothing else ever happens.

python tests/attacks/fuzzing.py COUNT [SEED]
"""

from __future__ import annotations

import copy
import json
import math
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.keys import understood
from sd_lora.adapters.writing import write_adapter
from sd_lora.errors import AdapterError

sys.path.insert(0, str(Path(__file__).parents[1]))  # where it is run as a command
from small_weights import weights_of

LINEAR = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
CONV = "unet.mid_block.resnets.0.conv1"
WORDS = [None, True, -1, 0, 1, 2**31, 2**63, 1.5, float("nan"), "", "F16", "BF16", "I64", "F8_E4M3", [], {}, [0, 4]]
BYTES = (b"\xff\xff\xff\x7f", b"\x00\x7c\x00\x7c", b"\x80\x7f\x80\xff")
ENDINGS = (
    ".lora_down.weight",
    ".lora_up",
    ".lora_A.weight",
    ".alpha",
    ".diff",
    ".hada_w1_a",
    ".weight",
    ".x",
    "_lora.up",
)
RENAMES = (
    ("mid_block", "down_blocks_0"),
    ("lora_unet_", "unet."),
    ("unet", "module.unet"),
    ("to_k", "to_q"),
    ("_", "."),
)
OLD = f"{LINEAR.replace('.to_k', '.processor.to_k_lora')}."


def seeds(folder: Path) -> list[bytes]:
    """Good files of every layout, of DoRA, conv and text modules, in two types."""
    files = []
    for number, (layout, dtype, family, magnitude) in enumerate(
        [("kohya", "float32", "sd", None), ("kohya", "float16", "sdxl", None), ("diffusers", "bfloat16", "sd", None),
         ("kohya", "float32", "sd", torch.ones(8)), ("diffusers", "float32", "sdxl", torch.ones(8))]
    ):  # fmt: skip
        weights = {name: weights_of(torch.ones(2, 6), torch.ones(8, 2), 2.0, magnitude) for name in (LINEAR, TEXT)}
        weights[CONV] = weights_of(torch.ones(2, 6, 3, 3), torch.ones(8, 2, 1, 1), 1.0)
        path = folder / f"seed-{number}.safetensors"
        write_adapter(path, weights, {"sdlora.family": family, "ss_tag_frequency": "{}"}, dtype, layout)
        files.append(path.read_bytes())
    files.append(save({f"{OLD}down.weight": torch.ones(2, 6), f"{OLD}up.weight": torch.ones(8, 2)}))
    return files + [save(of_kind) for of_kind in other_kinds()]


def other_kinds() -> list[dict[str, torch.Tensor]]:
    """Good files of the kinds that LyCORIS writes, with two modules each."""
    stems = [f"lora_unet_{name.removeprefix('unet.').replace('.', '_')}" for name in (LINEAR, f"{LINEAR[:-1]}v")]
    alpha = torch.tensor(2.0)
    kinds: list[dict[str, torch.Tensor]] = [
        {"hada_w1_a": torch.ones(8, 2), "hada_w1_b": torch.ones(2, 6), "hada_w2_a": torch.ones(8, 2),
         "hada_w2_b": torch.ones(2, 6), "alpha": alpha},
        {"lokr_w1": torch.ones(2, 3), "lokr_w2_a": torch.ones(4, 2), "lokr_w2_b": torch.ones(2, 2), "alpha": alpha},
        {"lora_down.weight": torch.ones(2, 6, 1, 1), "lora_mid.weight": torch.ones(2, 2, 3, 3),
         "lora_up.weight": torch.ones(8, 2, 1, 1), "alpha": alpha},
        {"lora_down.weight": torch.ones(2, 6), "lora_up.weight": torch.ones(8, 2), "dora_scale": torch.ones(1, 6)},
        {"diff": torch.ones(8, 6), "diff_b": torch.ones(8)},
        {"w_norm": torch.ones(8), "b_norm": torch.ones(8)},
        {"weight": torch.ones(8), "on_input": torch.tensor(0)},
        {"a1.weight": torch.ones(6, 2), "a2.weight": torch.ones(2, 6), "b1.weight": torch.ones(8, 2),
         "b2.weight": torch.ones(2, 6), "alpha": alpha},
        {"oft_blocks": torch.ones(2, 4, 4), "alpha": torch.tensor(0.1)},
    ]  # fmt: skip
    return [{f"{stem}.{key}": tensor.clone() for stem in stems for key, tensor in kind.items()} for kind in kinds]


def flipped(content: bytes, rng: random.Random) -> bytes:
    mutant = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        mutant[rng.randrange(len(mutant))] = rng.randrange(256)
    return bytes(mutant)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def grown(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + rng.randbytes(rng.randrange(1, 40)) + content[place:]


def spliced(content: bytes, rng: random.Random) -> bytes:
    place, start = rng.randrange(len(content)), rng.randrange(len(content))
    return content[:place] + content[start:]


def lengthened(content: bytes, rng: random.Random) -> bytes:
    return struct.pack("<Q", rng.choice((0, 1, 2, 2**32, 2**63, rng.randrange(len(content))))) + content[8:]


def rebuilt(content: bytes, rng: random.Random) -> bytes:
    """The header as JSON, changed in one to three places."""
    length = struct.unpack("<Q", content[:8])[0]
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    for _ in range(rng.randrange(1, 4)):
        key = rng.choice(list(header) or ["x"])
        action = rng.randrange(7)
        if action == 0:
            header.pop(key, None)
        elif action == 1:
            header[key + rng.choice((".alpha", "x", ".weight", "_", "\x00"))] = header.pop(key, 1)
        elif action == 2:
            header[key] = copy.deepcopy(rng.choice(WORDS))
        elif action == 3:
            header[key.replace("down", "up").replace("lora_A", "lora_B")] = header.get(key)
        elif isinstance(header.get(key), dict) and header[key]:
            part = rng.choice(list(header[key]))
            if isinstance(header[key][part], list) and header[key][part] and action > 4:
                header[key][part][rng.randrange(len(header[key][part]))] = copy.deepcopy(rng.choice(WORDS))
            else:
                header[key][part] = copy.deepcopy(rng.choice(WORDS))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def poisoned(content: bytes, rng: random.Random) -> bytes:
    """Bytes of the body set to patterns that are NaN, infinite or huge in some type."""
    start = 8 + struct.unpack("<Q", content[:8])[0]
    place = rng.randrange(start, len(content) - 4)
    return content[:place] + rng.choice(BYTES) + content[place + 4 :]


def retensored(content: bytes, rng: random.Random) -> bytes:
    """A whole file with one tensor of zeros, of another type or shape, under another key, or gone."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(content)
        file.flush()
        tensors = load_file(file.name)
        with safe_open(file.name, "pt") as opened:
            metadata = opened.metadata()
    key = rng.choice(list(tensors))
    tensor, action = tensors[key], rng.randrange(6)
    if action == 0:
        tensors[key] = torch.zeros_like(tensor)
    elif action == 1:
        tensors[key] = tensor.to(rng.choice((torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool)))
    elif action == 2:
        tensors[key] = tensor.flatten()[: rng.randrange(1, 4)].clone()
    elif action == 3:
        tensors[rng.choice(ENDINGS).join(key.rsplit(key[key.rindex(".") :], 1))] = tensors.pop(key)
    elif action == 4:
        tensors[key.replace(*rng.choice(RENAMES))] = tensors.pop(key)
    else:
        del tensors[key]
    return save(tensors, metadata) if tensors else content


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped, cut, grown, spliced, lengthened, rebuilt, rebuilt, rebuilt, poisoned, *[retensored] * 6,
)  # fmt: skip


def outcome(path: Path) -> str:
    """ "read" or "refused"; raises AssertionError for a reading that is not whole, anything else for a fault."""
    try:
        weights, metadata = read_adapter(path)
    except AdapterError as error:
        return "refused" if str(error).isprintable() else "broke its line"
    assert weights
    assert all(isinstance(value, str) for value in metadata.values())
    keys, unknown = understood(load_file(path))
    assert not unknown  # every tensor of the file is of a module that is read
    assert {key.name for key in keys.values()} == set(weights)
    for w in weights.values():
        assert all(bool(torch.isfinite(tensor).all()) for tensor in w.tensors.values())
        assert 0 < w.alpha < float("inf")
        assert w.rank > 0
        product = w.row.product(w.tensors)
        assert product.numel() == math.prod(w.shape) or w.row.needs_base
        assert w.row.problem(w.shapes, "kohya") == "" or "magnitude" in w.tensors or w.variant in ("ia3", "oft")
    return "read"


def fuzz(count: int, seed: int, folder: Path) -> Counter[str]:
    """`count` mutants; how many were read and how many refused. The one that fails stays in `folder`."""
    rng, files, found = random.Random(seed), seeds(folder), Counter[str]()
    path = folder / "mutant.safetensors"
    for _ in range(count):
        path.write_bytes(rng.choice(MUTATIONS)(rng.choice(files), rng))
        found[outcome(path)] += 1
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    started = time.perf_counter()
    counts = fuzz(asked, first, Path(tempfile.mkdtemp(prefix="adapter-fuzz-")))
    print(f"{asked} mutants from seed {first} in {time.perf_counter() - started:.1f} s: {dict(counts)}")
