"""How long checking and encoding a set takes and how much memory: sets of 1,250 to 10,000 small pictures, each in a
process of its own, and 100 photographs of 2 megapixels.

    python benchmarks/dataset.py WORK [--most 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene


def write_small(folder: Path, count: int) -> None:
    """`count` different captioned pictures of about 64 px, of four shapes."""
    folder.mkdir(parents=True)
    scenes = [render(sample_scene(i), "woodcut", 64) for i in range(64)]
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = rng.integers(0, 40, (64, 64, 3), dtype=np.uint8)
        pixels = np.clip(np.asarray(scenes[i % 64], dtype=np.int16) + noise, 0, 255).astype(np.uint8)
        width, height = ((64, 64), (64, 48), (48, 64), (60, 60))[i % 4]
        Image.fromarray(pixels[:height, :width]).save(folder / f"{i:05}.png")
        (folder / f"{i:05}.txt").write_text(f"{sample_scene(i % 64).caption} {i}\n", "utf-8")


def write_photographs(folder: Path, count: int = 100) -> None:
    """`count` JPEGs of 1632 × 1224 pixels: gradients, edges and grain, as photographs have them."""
    folder.mkdir(parents=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        coarse = small.resize((1632, 1224), Image.Resampling.BICUBIC)
        scene = render(sample_scene(i), "flat", 512).resize((1632, 1224))
        pixels = np.asarray(Image.blend(coarse, scene, 0.5), dtype=np.float32) + rng.normal(0, 6, (1224, 1632, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.jpg", quality=90)
        (folder / f"{i:03}.txt").write_text(sample_scene(i).caption, "utf-8")


def measure(folder: Path, cache: Path) -> dict[str, float]:
    """Check `folder`, then encode it twice; seconds of each, and the peak memory of this process in MB."""
    import sd_lora
    from sd_lora.check.doctor import examine
    from sd_lora.commands.console import quiet_libraries
    from sd_lora.data.cache import Cache
    from sd_lora.data.encoded import EncodedSet, Encoders
    from sd_lora.data.folders.listing import list_folder

    quiet_libraries()
    pipe, family = sd_lora.load_base("tiny")
    config = sd_lora.load_config("tiny-style", f"data.folder={json.dumps(str(folder))}", "data.trigger=ours")
    clock, times = time.perf_counter(), {}
    start = peak()
    listing = list_folder(config.data)
    times["scan"], clock = time.perf_counter() - clock, time.perf_counter()
    found = examine(config, listing, family, pipe)
    assert found.schedule is not None
    times["check"], clock = time.perf_counter() - clock, time.perf_counter()
    encoders = Encoders(
        lambda images: family.encode_images(pipe, images), lambda texts: family.encode_captions(pipe, texts),
        family.encode_framing, family.images_key(pipe), family.captions_key(pipe),
    )  # fmt: skip
    import torch

    with torch.no_grad():
        for name in ("encode", "again"):
            EncodedSet(found.examples, found.schedule, encoders, Cache(cache)).encode()
            times[name], clock = time.perf_counter() - clock, time.perf_counter()
    return {**times, "start_mb": start, "peak_mb": peak()}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.inside, arguments.work)))
        return
    work: Path = arguments.work
    print("| images | scan s | check s | encode s | encode again s | per image ms | memory before MB | peak MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for count in (arguments.most // 8, arguments.most // 4, arguments.most // 2, arguments.most):
        folder = work / f"small-{count}"
        if not folder.exists():
            write_small(folder, count)
        command = [sys.executable, __file__, str(work / f"cache-{count}"), "--inside", str(folder)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        total = row["scan"] + row["check"] + row["encode"]
        print(
            f"| {count} | {row['scan']:.2f} | {row['check']:.1f} | {row['encode']:.1f} | {row['again']:.1f} "
            f"| {1000 * total / count:.1f} | {row['start_mb']:.0f} | {row['peak_mb']:.0f} |",
            flush=True,
        )
    photographs = work / "photographs"
    if not photographs.exists():
        write_photographs(photographs)
    report = ["--report", str(work / "check.html")]
    for name, more in (("sd-lora check", []), ("sd-lora check --report", report)):
        started = time.perf_counter()
        command = [sys.executable, "-m", "sd_lora", "check", str(photographs), "--base", "tiny", "--json", *more]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=os.environ)
        print(f"\n{name}, 100 photographs of 2 MP: {time.perf_counter() - started:.1f} s, exit code {done.returncode}")


if __name__ == "__main__":
    main()
