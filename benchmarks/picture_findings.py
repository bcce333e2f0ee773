"""How often the checks of picture quality are right: false alarms on clean pictures, and damaged copies that are found.

    python benchmarks/picture_findings.py [--scenes 12] [--clean FOLDER]

The pictures are of 512 px, in the renderer's styles and as synthetic photographs; `--clean` adds pictures of your own
that have nothing wrong with them. The styles `pastel` and `watercolour` are soft at this size and stand apart.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from sd_lora.check.quality import duplicates, look_at
from sd_lora.data.pictures.decode import IMAGE_SUFFIXES, read_picture
from sd_lora.tinybase.styles import STYLES, render
from sd_lora.tinybase.world import sample_scene

SIDE = 512
SOFT = ("pastel", "watercolour")
FOUND = ("image-blurred", "image-compressed", "image-bordered", "image-blank")
Damage = Callable[[Image.Image], Image.Image]


def photograph(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """A scene in light and shade under the noise of natural pictures, which falls with the frequency, and grain."""
    rng = np.random.default_rng(seed)
    width, height = size
    scene = np.asarray(render(sample_scene(seed), "soft", 512).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 1 / max(size)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency, (height, width))
    pixels = 0.6 * scene + 40 + 25 * (noise / noise.std())[..., None] + rng.normal(0, 2, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def blurred(image: Image.Image, share: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def framed(image: Image.Image, across: float, down: float, colour: str) -> Image.Image:
    width, height = round(across * image.width), round(down * image.height)
    return ImageOps.expand(image, (width, height), colour)


def empty(image: Image.Image) -> Image.Image:
    """The picture's first colour with a little grain, and a mark of one pixel in 4,000."""
    rng = np.random.default_rng(0)
    pixels = np.asarray(image, dtype=np.float32)[:1, :1] + rng.normal(0, 1.5, (*image.size[::-1], 3))
    pixels[: max(1, image.height // 64), : max(1, image.width // 64)] = 255 - pixels[0, 0]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


DAMAGES: dict[str, tuple[str, Damage]] = {
    "blurred by 1 % of the side": ("image-blurred", lambda i: blurred(i, 0.01)),
    "… and saved as JPEG of quality 75": ("image-blurred", lambda i: jpeg(blurred(i, 0.01), 75)),
    "… and with grain of 2 levels": ("image-blurred", lambda i: grain(blurred(i, 0.01))),
    "blurred by 2 %": ("image-blurred", lambda i: blurred(i, 0.02)),
    "JPEG of quality 25, saved as PNG": ("image-compressed", lambda i: jpeg(i, 25)),
    "JPEG of quality 10, saved as PNG": ("image-compressed", lambda i: jpeg(i, 10)),
    "JPEG of quality 25, then of 90": ("image-compressed", lambda i: jpeg(jpeg(i, 25), 90)),
    "a white frame of 5 %": ("image-bordered", lambda i: framed(i, 0.05, 0.05, "white")),
    "black bars of 12 % above and below": ("image-bordered", lambda i: framed(i, 0, 0.12, "black")),
    "grey bars of 8 % left and right, JPEG 75": ("image-bordered", lambda i: jpeg(framed(i, 0.08, 0, "#777777"), 75)),
    "nothing but grain and a speck": ("image-blank", empty),
}
HARMLESS: dict[str, tuple[str, Damage]] = {
    "JPEG of quality 75, saved as PNG": ("image-compressed", lambda i: jpeg(i, 75)),
    "JPEG of quality 90, saved as PNG": ("image-compressed", lambda i: jpeg(i, 90)),
    "blurred by 0.2 % of the side": ("image-blurred", lambda i: blurred(i, 0.002)),
    "JPEG of quality 75": ("image-bordered", lambda i: jpeg(i, 75)),
}
COPIES: dict[str, Damage] = {
    "scaled to 70 %": lambda i: i.resize((i.width * 7 // 10, i.height * 7 // 10)),
    "JPEG of quality 40": lambda i: jpeg(i, 40),
    "brighter": lambda i: i.point(lambda v: min(255, round(v * 0.9 + 25))),
    "2 % cut off": lambda i: ImageOps.crop(i, max(i.size) // 100),
    "mirrored": ImageOps.mirror,
}


def grain(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, 2, (*image.size[::-1], 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def codes(image: Image.Image) -> set[str]:
    return {code for code, _ in look_at(image, trained=(SIDE, SIDE)).remarks}


def share(code: str, pictures: Sequence[Image.Image], damage: Damage = lambda i: i) -> str:
    hits = sum(code in codes(damage(picture)) for picture in pictures)
    return f"{hits / len(pictures):.1%} of {len(pictures)}"


def matches(pictures: Sequence[Image.Image]) -> int:
    hashes = [look_at(picture, trained=(SIDE, SIDE)).phash for picture in pictures]
    return len(duplicates([str(i) for i in range(len(hashes))], [str(i) for i in range(len(hashes))], hashes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--clean", type=Path)
    arguments = parser.parse_args()
    count: int = arguments.scenes
    drawn = {style: [render(sample_scene(i), style, SIDE) for i in range(count)] for style in STYLES}
    drawn["photograph"] = [photograph(i) for i in range(3 * count)]
    if arguments.clean:
        files = sorted(f for f in arguments.clean.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        drawn["own"] = [read_picture(file).image for file in files]
    clean = [picture for style, pictures in drawn.items() if style not in SOFT for picture in pictures]
    soft = [picture for style in SOFT for picture in drawn[style]]

    print("| finding | pictures | has it |\n| --- | --- | --- |")
    for code in FOUND:
        print(f"| `{code}` | clean | {share(code, clean)} |")
        print(f"| `{code}` | clean, of a soft style | {share(code, soft)} |", flush=True)
    for what, (code, damage) in (HARMLESS | DAMAGES).items():
        print(f"| `{code}` | {what} | {share(code, clean, damage)} |", flush=True)
    apart = sum(matches(pictures) for pictures in drawn.values())
    print(f"| `image-near-duplicate` | different scenes of one style | {apart / (len(clean) + len(soft)):.1%} |")
    for what, damage in COPIES.items():
        found = sum(matches([picture, damage(picture)]) for picture in clean)
        print(f"| `image-near-duplicate` | {what} | {found / len(clean):.1%} of {len(clean)} |", flush=True)

    large = [photograph(i, (1632, 1224)) for i in range(8)]
    started = time.perf_counter()
    for picture in large:
        look_at(picture, trained=(SIDE, SIDE))
    print(f"\na look at a picture of 2 megapixels: {1000 * (time.perf_counter() - started) / len(large):.0f} ms")


if __name__ == "__main__":
    main()
