"""The UNet's training set: scenes rendered at 128 and 64 px, encoded and captioned once, in chunks that are kept.

    python -m benchmarks.tiny_base.training_set WORK

Made in a process of its own: pictures are drawn while the VAE trains, and encoded while the UNet trains on the first;
twice, since the UNet begins with the latents of a rough VAE.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.tiny_base import build_text, build_vae
from benchmarks.tiny_base.build_text import caption_labels, tokenize
from benchmarks.tiny_base.stage import has_snapshot
from sd_lora.tinybase.styles import SIZE, render, render_mask
from sd_lora.tinybase.world import BASE_STYLES, Scene, sample_caption, sample_scene

CHUNKS, CHUNK, CAPTIONS = 32, 1_000, 4
SIDES = (SIZE // build_vae.STRIDE, SIZE // 2 // build_vae.STRIDE)
_PAIRS = 0.4  # two subjects are harder than one


def style_of(index: int) -> str:
    """The style of training scene `index`: half of them flat."""
    return random.Random(f"style {index}").choices(list(BASE_STYLES), (5, 1, 1, 1, 1, 1))[0]


def scene_of(index: int) -> Scene:
    return sample_scene(index, pair=random.Random(f"pair {index}").random() < _PAIRS)


def chunk_file(work: Path, number: int, vae: str) -> Path:
    """The file of chunk `number` encoded by the VAE of that name."""
    return work / f"unet_set_{vae}_{number:02}.npz"


def draw_chunk(number: int) -> dict[str, NDArray[Any]]:
    """Pictures and subject masks (n, side, side) at both sizes: what is known before the VAE is trained."""
    scenes = [(scene_of(index), style_of(index)) for index in range(number * CHUNK, (number + 1) * CHUNK)]
    arrays: dict[str, NDArray[Any]] = {}
    for side in SIDES:
        size = side * build_vae.STRIDE
        arrays[f"pictures{side}"] = np.stack([np.asarray(render(scene, style, size)) for scene, style in scenes])
    masks = [render_mask(scene) for scene, _ in scenes]
    for side in SIDES:
        arrays[f"mask{side}"] = np.stack([np.asarray(mask.reduce(SIZE // side)) for mask in masks])
    return arrays


def encode_chunk(
    number: int, arrays: dict[str, NDArray[Any]], vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> dict[str, NDArray[Any]]:
    """Chunk `number`: latents and masks at both sizes, token ids (n, 4, 32), labels (n, 4, questions)."""
    chunk = {name: array for name, array in arrays.items() if name.startswith("mask")}
    for side in SIDES:
        pictures = np.array_split(arrays[f"pictures{side}"], CHUNK // 20)
        chunk[f"latents{side}"] = np.concatenate([_encode(vae, part) for part in pictures])
    ids, labels = [], []
    for index in range(number * CHUNK, (number + 1) * CHUNK):
        scene, style = scene_of(index), style_of(index)
        captions = [sample_caption(scene, style, index * CAPTIONS + i) for i in range(CAPTIONS)]
        ids.append(tokenize(tokenizer, captions).numpy().astype(np.int16))
        labels.append([caption_labels(scene, style, caption) for caption in captions])
    return chunk | {"ids": np.stack(ids), "labels": np.array(labels, dtype=np.int8)}


def _save(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    np.savez(file.with_suffix(".partial.npz"), **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(file.with_suffix(".partial.npz"), file)


def _load(file: Path) -> dict[str, NDArray[Any]]:
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


@torch.inference_mode()
def _encode(vae: AutoencoderKL, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.autocast("cpu", torch.bfloat16):
        mean = vae.encode(batch).latent_dist.mean
    return mean.float().numpy().astype(np.float16)


def load_chunk(work: Path, number: int, vae: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in _load(chunk_file(work, number, vae)).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    names = ("vae",) if has_snapshot("vae") else ("vae_rough", "vae")
    for number in range(CHUNKS):
        if not _pictures(work, number).exists():
            _save(_pictures(work, number), draw_chunk(number))
        for name in names:
            _encode_drawn(work, name, number + 1)
    while not all(_encode_drawn(work, name, CHUNKS) for name in names):
        time.sleep(5)


def _pictures(work: Path, number: int) -> Path:
    return work / f"unet_pictures_{number:02}.npz"


def _encode_drawn(work: Path, name: str, drawn: int) -> bool:
    """Encode the first `drawn` chunks if the VAE `name` exists; says whether it does."""
    if not build_vae.is_built(work, name):
        return False
    missing = [number for number in range(drawn) if not chunk_file(work, number, name).exists()]
    if missing:
        vae, (tokenizer, _) = AutoencoderKL.from_pretrained(work / name), build_text.build(work)
        for number in missing:
            arrays = encode_chunk(number, _load(_pictures(work, number)), vae, tokenizer)
            _save(chunk_file(work, number, name), arrays)
            print(f"training set of {name}: {number + 1}/{CHUNKS}", flush=True)
    return True


if __name__ == "__main__":
    main()
