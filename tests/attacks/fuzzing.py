"""Mutate good adapter files and read them: each is read whole, or refused in one line; nothing else ever happens.

python tests/attacks/fuzzing.py COUNT [SEED]
"""

from __future__ import annotations

import copy
import json
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
from safetensors.torch import save
from small_weights import weights_of

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.writing import write_adapter
from sd_lora.errors import AdapterError

LINEAR = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
CONV = "unet.mid_block.resnets.0.conv1"
WORDS = [None, True, -1, 0, 1, 2**31, 2**63, 1.5, float("nan"), "", "F16", "BF16", "I64", "F8_E4M3", [], {}, [0, 4]]
BYTES = (b"\xff\xff\xff\x7f", b"\x00\x7c\x00\x7c", b"\x80\x7f\x80\xff")
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
    return files


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


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped, cut, grown, spliced, lengthened, rebuilt, rebuilt, rebuilt, poisoned,
)  # fmt: skip


def outcome(path: Path) -> str:
    """ "read" or "refused"; raises AssertionError for a reading that is not whole, anything else for a fault."""
    try:
        weights, metadata = read_adapter(path)
    except AdapterError as error:
        return "refused" if str(error).isprintable() else "broke its line"
    assert weights
    assert all(isinstance(value, str) for value in metadata.values())
    for w in weights.values():
        change = w.tensors["up"].flatten(1) @ w.tensors["down"].flatten(1)
        assert w.tensors["down"].shape[0] == w.tensors["up"].shape[1] == w.rank > 0
        assert torch.isfinite(w.tensors["down"]).all()
        assert torch.isfinite(w.tensors["up"]).all()
        assert change.shape == (w.tensors["up"].shape[0], w.tensors["down"][0].numel())
        assert 0 < w.alpha < float("inf")
        assert "magnitude" not in w.tensors or w.tensors["magnitude"].shape == (w.tensors["up"].shape[0],)
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
