"""The second half of the table: damage, claims, strangers and places, most of them refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from picture_makers import QUARTERS, noise, png, quarters, saved, tiff, with_size
from picture_table import FILES, NAME, WHITE, Case, Content, flat
from PIL import Image


def refused(title: str, name: str, content: Content, words: str, code: str = "unreadable") -> Case:
    return Case(title, name, content, code=f"image-{code}", words=words)


def cuts() -> Iterator[Case]:
    for title, kind, options in (
        ("JPEG", "JPEG", {}), ("progressive JPEG", "JPEG", {"progressive": True}), ("PNG", "PNG", {}),
        ("WebP", "WEBP", {}), ("lossless WebP", "WEBP", {"lossless": True}), ("TIFF", "TIFF", {}), ("GIF", "GIF", {}),
        ("LZW TIFF", "TIFF", {"compression": "tiff_lzw"}), ("AVIF", "AVIF", {}), ("BMP", "BMP", {}),
    ):  # fmt: skip
        whole, name = saved(noise(), kind, **options), NAME[kind]
        for percent in (1, 10, 50, 90):
            yield refused(f"{title} cut at {percent} %", name, whole[: len(whole) * percent // 100], "")
    for kind in ("JPEG", "PNG", "TIFF", "BMP", "GIF"):
        whole = saved(noise(), kind)
        yield refused(f"{kind} cut says so", NAME[kind], whole[: len(whole) * 3 // 4], "the file is truncated")
    heic = (FILES / "small.heic").read_bytes()
    for cut in (40, 300, len(heic) - 1):
        yield refused(f"HEIC cut at {cut} bytes", "a.heic", heic[:cut], "")
    yield refused("PNG with a broken checksum", "a.png", saved(noise(), "PNG").replace(b"IDAT", b"IDAT\0", 1), "")
    yield refused("cut PNG called .psd", "a.psd", saved(noise(), "PNG")[:10], "PNG data that is damaged")
    yield Case("PNG without its end", "a.png", saved(quarters(), "PNG")[:-12], QUARTERS)


def sizes() -> Iterator[Case]:
    for size in ((1, 1), (1, 5000), (5000, 1), (2, 3), (17, 13)):
        for kind in ("PNG", "JPEG", "WEBP"):
            content = saved(Image.new("RGB", size, WHITE), kind)
            yield Case(f"{kind} {size[0]} × {size[1]}", NAME[kind], content, flat(WHITE), size=size)
    # just over the cap, and so far over it that Pillow itself refuses
    for said, size in (("12000 × 10000", (12000, 10000)), ("more than 100 megapixels", (20000, 20000))):
        small = Image.new("RGB", (4, 4))
        jpeg, bmp, gif = (saved(small, kind) for kind in ("JPEG", "BMP", "GIF"))
        for kind, content in {
            "PNG": png(size, 8, 2, b"\0"), "TIFF": tiff(size, 8, bytes(9)), "BMP": with_size(bmp, 18, "<ii", size),
            "JPEG": with_size(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", size[::-1]),
            "GIF": with_size(gif, 6, "<HH", size),
        }.items():  # fmt: skip
            yield refused(f"{kind} claiming {size[0]} × {size[1]}", NAME[kind], content, said, "oversized")
    yield refused("PNG of no width", "a.png", png((0, 4), 8, 2, b"\0" * 4), "PNG data")
    yield refused("PNG that is nearly all missing", "a.png", png((4000, 6000), 8, 2, b"\0"), "truncated")
    yield refused("PNG of a huge claim", "a.png", png((9000, 9000), 8, 2, b"\0"), "9000 × 9000 pixels claimed in ")


def strangers() -> Iterator[Case]:
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "a")
    for title, content, words in (
        ("nothing", b"", "0 bytes"), ("HTML", b"<html><body>404", "<html>"), ("zeros", bytes(99), "an image"),
        ("a zip", packed.getvalue(), "an image"), ("PDF", b"%PDF-1.4\n", "%PDF"), ("text", b"no picture", '"no pict'),
        ("one byte", b"\x89", "an image"), ("an LFS pointer", b"version https://git-lfs.github.com/", '"version http'),
        ("a line break", b"\n\r\x1b[2J", "an image"),
    ):  # fmt: skip
        yield refused(f"{title} called .png", "a.png", content, words)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    for title, name, content, words in (
        ("EPS", "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "drawing"),
        ("SVG", "a.svg", svg, "drawing"), ("SVG after a head", "a.png", b'<?xml version="1.0"?>\n' + svg, "drawing"),
        ("JPEG XL", "a.jxl", b"\xff\x0a" + bytes(20), "JPEG XL"), ("EXR", "a.exr", b"v/1\x01" + bytes(20), "light"),
        ("JPEG XL in boxes", "a.png", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"), ("RAF", "a.raf", b"FUJIFILM", "raw"),
        ("PSD", "a.jpg", b"8BPS\0\1", "layers"), ("ICO", "a.ico", saved(quarters(), "ICO"), "icon"),
        ("JPEG 2000", "a.jp2", saved(quarters(), "JPEG2000"), "2000"),
        ("TGA", "a.tga", saved(quarters(), "TGA"), "rare"), ("PPM", "a.ppm", saved(quarters(), "PPM"), "rare"),
        ("a raw file that opens as TIFF", "a.nef", saved(quarters(), "TIFF"), "raw"),
    ):  # fmt: skip
        yield refused(title, name, content, words, "unsupported")


def widths() -> Iterator[Case]:
    for title, value in (("0..200", 200), ("NaN", float("nan")), ("below 0", -0.1)):
        content = saved(Image.new("F", (2, 1), value), "TIFF")
        yield refused(f"floats {title}", "a.tif", content, "floating-point pixels from", "unsupported")
    yield refused("32-bit whole", "a.tif", tiff((1, 1), 32, b"\0\0\0\x10"), "whole-number pixels", "unsupported")
    yield refused("16-bit signed below 0", "a.tif", tiff((1, 1), 16, b"\xf0\xff", kind=2), "from -16", "unsupported")
    yield refused("64-bit float", "a.tif", tiff((1, 1), 64, bytes(8), kind=3), "TIFF data that is")


def places() -> Iterator[Case]:
    def link(path: Path) -> None:
        (path.parent / "aside.jpg").write_bytes(saved(quarters(), "PNG"))
        path.symlink_to("aside.jpg")

    def huge(path: Path) -> None:
        path.touch()
        os.truncate(path, 1_000_000_001)

    yield Case("a link to a good file", "a.png", link, QUARTERS)
    yield refused("a folder", "a.png", Path.mkdir, "a folder, not a file")
    yield refused("a link to a folder", "a.png", lambda path: path.symlink_to("."), "a folder, not a file")
    yield refused("a link that leads nowhere", "a.png", lambda path: path.symlink_to("none.png"), "leads nowhere")
    yield refused("a link to itself", "a.png", lambda path: path.symlink_to("a.png"), "in a circle")
    yield refused("a pipe", "a.png", os.mkfifo, "a pipe or device")
    yield refused("a link to a device", "a.png", lambda path: path.symlink_to("/dev/zero"), "a pipe or device")
    yield refused("no file", "a.png", os.fspath, "no such file")
    yield refused("a name that is too long", f"{'a' * 300}.png", os.fspath, "file name too long")
    yield refused("a file over 1 GB", "a.tif", huge, "1.0 GB", "oversized")


REFUSED = [case for group in (cuts, sizes, widths, strangers, places) for case in group()]
