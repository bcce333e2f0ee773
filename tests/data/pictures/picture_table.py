"""The table of pictures people bring, each with its verdict: what is seen, or why it is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from picture_makers import (
    BLUE,
    QUARTERS,
    RED,
    chunk,
    cmyk_profile,
    grey_profile,
    noise,
    oriented,
    png,
    quarters,
    saved,
    stored,
    tiff,
    wide_profile,
    without_segment,
)  # fmt: skip
from PIL import Image, ImageCms

Colour = tuple[int, int, int]
Content = bytes | Callable[[Path], object]
NAME = {
    "PNG": "a.png", "JPEG": "a.jpg", "TIFF": "a.tif", "WEBP": "a.webp", "GIF": "a.gif", "BMP": "a.bmp",
    "AVIF": "a.avif",
}  # fmt: skip
FILES = Path(__file__).parent / "files"
# an orientation that is a word
SIX = b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x112, 2, 4, b"six\0", 0)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Case:
    """A file called `name` with `content`, or made by it; refused with `code` and `words`, or seen with `pixels` at
    places, give or take `near`, and with `remarks`."""

    title: str
    name: str
    content: Content
    pixels: dict[tuple[int, int], Colour] = field(default_factory=dict)
    near: int = 1
    size: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()
    code: str = ""
    words: str = ""


def flat(colour: Colour) -> dict[tuple[int, int], Colour]:
    return {(0, 0): colour}


def orientations() -> Iterator[Case]:
    kinds = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "AVIF": {}}
    for kind, options in kinds.items():
        for turn in range(1, 9):
            content = saved(stored(quarters(), turn), kind, exif=oriented(turn), **options)
            name = NAME[kind]
            yield Case(f"{kind} EXIF {turn}", name, content, QUARTERS, 6, size=(48, 32))
    turned = saved(stored(quarters(), 6), "TIFF", exif=oriented(6), compression="tiff_lzw")
    yield Case("compressed TIFF EXIF 6", "a.tif", turned, QUARTERS, size=(48, 32))
    yield Case("turned HEIC", "a.heic", (FILES / "turned.heic").read_bytes(), QUARTERS, 6, size=(48, 32))
    for title, exif in (("0", oriented(0)), ("9", oriented(9)), ("text", SIX), ("junk", b"Exif\0\0junk")):
        for kind in ("JPEG", "PNG"):
            content = saved(quarters(), kind, exif=exif)
            yield Case(f"{kind} EXIF {title}", NAME[kind], content, QUARTERS, 30, size=(48, 32))
    xmp = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/>'
    content = saved(stored(quarters(), 3), "WEBP", lossless=True, xmp=xmp)
    yield Case("WebP turned by XMP", "a.webp", content, QUARTERS, size=(48, 32))


def modes() -> Iterator[Case]:
    grey = {place: (tone,) * 3 for place, tone in {(4, 4): 94, (44, 4): 125, (4, 28): 71, (44, 28): 208}.items()}
    ink = {(4, 4): BLACK, (44, 28): WHITE}
    black = Image.new("1", (48, 32))
    black.paste(1, (24, 16, 48, 32))
    for kind in ("PNG", "BMP", "TIFF", "GIF"):
        name = NAME[kind]
        yield Case(f"{kind} 1", name, saved(black, kind), ink)
        yield Case(f"{kind} L", name, saved(quarters("L"), kind), grey)
        yield Case(f"{kind} P", name, saved(quarters().quantize(), kind), QUARTERS)
        yield Case(f"{kind} RGB", name, saved(quarters(), kind), QUARTERS, 4)
    for mode in ("RGBA", "LA", "PA"):  # an alpha channel that is opaque all over is no news
        for kind in ("PNG", "TIFF") if mode != "PA" else ("TIFF",):
            image = quarters().quantize().convert("PA") if mode == "PA" else quarters(mode)
            seen = grey if mode == "LA" else QUARTERS
            yield Case(f"{kind} {mode} opaque", NAME[kind], saved(image, kind), seen)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"):
        yield Case(f"TIFF {compression}", "a.tiff", saved(quarters(), "TIFF", compression=compression), QUARTERS)
    yield Case("TIFF group4", "a.tiff", saved(black, "TIFF", compression="group4"), ink)
    yield Case("TIFF jpeg", "a.tiff", saved(quarters(), "TIFF", compression="jpeg"), QUARTERS, 30)
    yield Case("TIFF YCbCr", "a.tif", saved(quarters("YCbCr"), "TIFF", compression="tiff_lzw"), QUARTERS, 6)
    yield Case("TIFF LAB", "a.tif", tiff((1, 1), 8, bytes((128, 10, 246)), photometric=8, channels=3),
               flat((130, 114, 137)), 3)  # fmt: skip
    yield Case("DIB", "a.dib", saved(quarters(), "DIB"), QUARTERS)
    yield Case("WebP lossy", "a.webp", saved(quarters(), "WEBP", quality=95), QUARTERS, 12)
    yield Case("AVIF", "a.avif", saved(quarters(), "AVIF", quality=95), QUARTERS, 6)
    yield Case("AVIF grey", "a.avif", saved(quarters("L"), "AVIF", quality=95), grey, 6)
    yield Case("HEIC", "a.heic", (FILES / "small.heic").read_bytes(), QUARTERS, 6, size=(48, 32))
    heic = (FILES / "small.heic").read_bytes()
    yield Case("HEIC of brand mif1", "a.hif", heic[:8] + b"mif1" + heic[12:], QUARTERS, 6)


def jpegs() -> Iterator[Case]:
    for title, options in {"444": {"subsampling": 0}, "422": {"subsampling": 1}, "420": {"subsampling": 2},
                           "progressive": {"progressive": True}, "RGB": {"keep_rgb": True}, "restarts": {
                               "restart_marker_blocks": 1}}.items():  # fmt: skip
        yield Case(f"JPEG {title}", "a.jpeg", saved(quarters(), "JPEG", quality=95, **options), QUARTERS, 12)
    yield Case("JPEG grey", "a.jpe", saved(Image.new("L", (8, 8), 90), "JPEG"), flat((90, 90, 90)))
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    adobe = saved(inks, "JPEG", quality=95)
    yield Case("CMYK JPEG by Adobe", "a.jpg", adobe, flat((255, 0, 0)), 6)
    # without it the inks might as well be meant upright; Pillow and most others read them as Adobe writes them
    yield Case("CMYK JPEG without Adobe's marker", "a.jpg", without_segment(adobe, 0xEE), flat((255, 0, 0)), 6)
    views = saved(quarters(), "MPO", save_all=True, quality=95, append_images=[noise()])
    yield Case("MPO of two views", "a.jpg", views, QUARTERS, 12)
    yield Case("JPEG and rubbish after it", "a.jpg", saved(quarters(), "JPEG", quality=95) + b"rubbish", QUARTERS, 12)


def depths() -> Iterator[Case]:
    tones = np.array([[0, 64, 128, 255]])
    row = {(x, 0): (tone,) * 3 for x, tone in enumerate(tones[0].tolist())}
    for kind, mode, values in (("PNG", "I;16", "<u2"), ("TIFF", "I;16", "<u2"), ("TIFF", "I;16B", ">u2"),
                               ("TIFF", "I", "<i4")):  # fmt: skip
        image = Image.frombytes(mode, (4, 1), (tones * 257).astype(values).tobytes())
        yield Case(f"{kind} {mode}", NAME[kind], saved(image, kind), row)
    wide = Image.fromarray((tones * 257).astype("<u2"))
    yield Case("16-bit LZW TIFF", "a.tif", saved(wide, "TIFF", compression="tiff_lzw"), row)
    zero = (65535 - tones * 257).astype("<u2").tobytes()
    yield Case("16-bit TIFF, white is 0", "a.tif", tiff((4, 1), 16, zero, photometric=0), row)
    yield Case("8-bit TIFF, white is 0", "a.tif", tiff((4, 1), 8, zero[::2], photometric=0), row)
    yield Case("12-bit TIFF", "a.tif", tiff((2, 1), 12, bytes((0xFF, 0xF0, 0))), {(0, 0): WHITE, (1, 0): BLACK})
    yield Case("TIFF 0..1", "a.tif", saved(Image.fromarray((tones / 255).astype(np.float32)), "TIFF"), row)
    pink, cyan = struct.pack("<3H", 65535, 0, 128 * 257), struct.pack("<4H", 65535, 0, 0, 0)
    yield Case("16-bit RGB TIFF", "a.tif", tiff((1, 1), 16, pink, photometric=2, channels=3), flat((255, 0, 128)))
    yield Case("16-bit RGB PNG", "a.png", png((1, 1), 16, 2, b"\0" + pink), flat((255, 0, 128)))
    yield Case("16-bit CMYK TIFF", "a.tif", tiff((1, 1), 16, cyan, photometric=5, channels=4), flat((0, 255, 255)))
    for depth, byte, seen in ((1, 0x40, 255), (2, 0x60, 170), (4, 0x5A, 170)):
        content = png((2, 1), depth, 0, bytes((0, byte)))
        yield Case(f"{depth}-bit grey PNG", "a.png", content, {(1, 0): (seen,) * 3})


def alphas() -> Iterator[Case]:
    hole = quarters("RGBA")
    hole.putpixel((0, 0), (0, 0, 0, 0))
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    ghost = Image.new("RGBA", (10, 10), (200, 10, 10, 3))
    partly, wholly = ("image-alpha",), ("image-transparent",)
    for kind, options in {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.items():
        name = NAME[kind]
        yield Case(f"{kind} with a hole", name, saved(hole, kind, **options), flat(WHITE) | QUARTERS, 8, remarks=partly)
    yield Case("half transparent black", "a.png", saved(half, "PNG"), flat((127, 127, 127)), remarks=partly)
    yield Case("a ghost", "a.png", saved(ghost, "PNG"), flat((254, 252, 252)), 2, remarks=wholly)
    grey = Image.new("LA", (1, 1), (90, 51))
    yield Case("PNG LA", "a.png", saved(grey, "PNG"), flat((222, 222, 222)), remarks=partly)
    yield Case("16-bit PNG LA", "a.png", png((1, 1), 16, 4, bytes(5)), flat(WHITE), remarks=wholly)
    palette = chunk(b"PLTE", bytes((*RED, *BLUE)))
    for title, key, remarks, seen in (
        ("as a number", b"\0", partly, WHITE), ("as bytes", b"\x80\xff", partly, (238, 147, 147)),
        ("that is opaque", b"\xff\xff", (), RED),
    ):  # fmt: skip
        content = png((2, 1), 8, 3, b"\0\0\1", palette, chunk(b"tRNS", key))
        yield Case(f"palette with tRNS {title}", "a.png", content, {(0, 0): seen, (1, 0): BLUE}, 2, remarks=remarks)
    for depth, kind, row, key in (
        (8, 0, b"\7Z", b"\0\7"), (16, 0, b"\0\7ZZ", b"\0\7"), (4, 0, b"\x7a", b"\0\7"), (2, 0, b"\x70", b"\0\1"),
        (1, 0, b"\x40", b"\0\0"), (8, 2, b"\7\7\7ZZZ", b"\0\7" * 3), (16, 2, b"\t\7" * 3 + b"Z" * 6, b"\t\7" * 3),
    ):  # fmt: skip
        content = png((2, 1), depth, kind, b"\0" + row, chunk(b"tRNS", key))
        yield Case(f"{depth}-bit PNG of type {kind} with tRNS", "a.png", content, flat(WHITE), remarks=partly)
    four = quarters().quantize()
    gif = saved(four, "GIF", transparency=four.getpixel((0, 0)))
    yield Case("GIF with a clear colour", "a.gif", gif, flat(WHITE) | {(4, 28): BLUE}, remarks=partly)
    assoc = tiff((1, 1), 8, bytes((100, 0, 0, 100)), photometric=2, channels=4, extra=1)
    yield Case("TIFF with premultiplied alpha", "a.tif", assoc, flat((255, 155, 155)), remarks=partly)


def profiles() -> Iterator[Case]:
    patch, wide = Image.new("RGB", (4, 4), (200, 100, 50)), wide_profile()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind, options in {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "TIFF": {},
                          "AVIF": {"quality": 100}}.items():  # fmt: skip
        content = saved(patch, kind, icc_profile=wide, **options)
        yield Case(f"{kind} in wide gamut", NAME[kind], content, flat((227, 100, 42)), 4)
    yield Case("sRGB", "a.png", saved(patch, "PNG", icc_profile=srgb), flat((200, 100, 50)), 0)
    palette = saved(patch.quantize(), "PNG", icc_profile=wide)
    yield Case("palette in wide gamut", "a.png", palette, flat((227, 100, 42)))
    clear = saved(Image.new("RGBA", (4, 4), (200, 100, 50, 51)), "PNG", icc_profile=wide)
    yield Case("alpha in wide gamut", "a.png", clear, flat((249, 224, 212)), 2, remarks=("image-alpha",))
    grey = Image.new("L", (4, 4), 128)
    yield Case("grey of gamma 1.8", "a.png", saved(grey, "PNG", icc_profile=grey_profile(1.8)), flat((146,) * 3))
    yield Case("grey with an RGB profile", "a.png", saved(grey, "PNG", icc_profile=srgb), flat((128,) * 3))
    faint = saved(Image.new("LA", (4, 4), (128, 51)), "PNG", icc_profile=grey_profile(1.8))
    yield Case("grey of gamma 1.8 with alpha", "a.png", faint, flat((233,) * 3), 2, remarks=("image-alpha",))
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for kind in ("TIFF", "JPEG"):
        content = saved(cyan, kind, icc_profile=cmyk_profile())
        yield Case(f"CMYK {kind} with its profile", NAME[kind], content, flat((185,) * 3), 6)
    yield Case("CMYK TIFF without a profile", "a.tif", saved(cyan, "TIFF"), flat((0, 255, 255)))
    told = ("image-profile",)
    for title, icc in {"junk": b"no profile at all", "cut short": wide[:200], "for CMYK": cmyk_profile(),
                       "without tables": wide.replace(b"TRC", b"xxx")}.items():  # fmt: skip
        content = saved(patch, "PNG", icc_profile=icc)
        yield Case(f"a profile {title}", "a.png", content, flat((200, 100, 50)), 0, remarks=told)
    content = saved(cyan, "TIFF", icc_profile=srgb)
    yield Case("CMYK with an RGB profile", "a.tif", content, flat((0, 255, 255)), remarks=told)


def animations() -> Iterator[Case]:
    frames = [Image.new("RGB", (48, 32), colour) for colour in ("black", "red")]
    for name, kind, options in (("a.gif", "GIF", {}), ("a.png", "PNG", {}), ("a.webp", "WEBP", {"lossless": True}),
                                ("a.tif", "TIFF", {}), ("a.avif", "AVIF", {"quality": 95})):  # fmt: skip
        content = saved(quarters(), kind, save_all=True, append_images=frames, **options)
        yield Case(f"{kind} of 3 frames", name, content, QUARTERS, 6, remarks=("image-animated",))


def endings() -> Iterator[Case]:
    told = ("image-extension",)
    contents = {kind: saved(quarters(), kind, quality=95) for kind in ("PNG", "JPEG", "GIF", "WEBP")}
    contents["HEIF"] = (FILES / "small.heic").read_bytes()
    for kind, name in (("PNG", "a.jpg"), ("JPEG", "a.png"), ("GIF", "a.png"), ("WEBP", "a.jpg"), ("HEIF", "a.jpg"),
                       ("PNG", "a"), ("PNG", "a.psd"), ("JPEG", "a.heic")):  # fmt: skip
        yield Case(f"{kind} called {name}", name, contents[kind], QUARTERS, 12, remarks=told)
    for kind, name in (("PNG", "A.PNG"), ("PNG", "a.apng"), ("JPEG", "a.JFIF"), ("JPEG", "a.b.jpg"),
                       ("JPEG", "ä ö.jpg"), ("JPEG", "a.mpo")):  # fmt: skip
        yield Case(f"{kind} called {name}", name, contents[kind], QUARTERS, 12)


_GROUPS = (orientations, modes, jpegs, depths, alphas, profiles, animations, endings)
SEEN = [case for group in _GROUPS for case in group()]
