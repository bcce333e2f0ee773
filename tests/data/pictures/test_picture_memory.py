"""Large pictures: what they take of memory and time, and that working on them in squares changes no pixel."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from picture_makers import noise, saved
from picture_refusals import REFUSED
from picture_table import SEEN
from PIL import Image, TiffImagePlugin

from sd_lora.data.pictures import decode as pictures
from sd_lora.data.pictures import pixels
from sd_lora.data.pictures.decode import PictureError, decode, read_bytes, read_picture

FILES = [(case.name, case.content) for case in (*SEEN, *REFUSED) if isinstance(case.content, bytes)]
#: peak of memory, in bytes for each pixel, of decoding a picture of 36 megapixels
DECODE = """
import resource, sys
from pathlib import Path
from sd_lora.data.pictures.decode import decode
content = Path(sys.argv[1]).read_bytes()
decode(Path(sys.argv[2]).read_bytes(), "small.tif")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode(content, sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 6000**2)
"""


def outcome(file: tuple[str, bytes]) -> object:
    try:
        picture = decode(file[1], file[0], "teal")
    except PictureError as error:
        return error.code, error.detail
    return picture.image.tobytes(), picture.image.size, picture.remarks


def test_the_squares_that_are_worked_on_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [outcome(file) for file in FILES]
    monkeypatch.setattr(pixels, "_TILE", 7)
    assert [outcome(file) for file in FILES] == whole


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in kB")
@pytest.mark.parametrize(("mode", "most"), [("F", 11), ("RGBA", 10.5), ("I;16", 8), ("P", 7)])
def test_decoding_takes_few_bytes_for_each_pixel(mode: str, most: float, tmp_path: Path) -> None:
    """A gigabyte for 100 megapixels; with copies of the whole it is half as much again."""
    image = Image.new(mode, (6000, 6000))
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    kind, options = ("TIFF", {"compression": "tiff_lzw"}) if mode == "F" else ("PNG", {"compress_level": 1})
    file, small = tmp_path / f"a.{kind.lower()}", tmp_path / "small.tif"
    image.save(file, kind, **options, **({"transparency": 0} if mode == "P" else {}))
    Image.new("F", (8, 8)).save(small, "TIFF")
    done = subprocess.run([sys.executable, "-c", DECODE, file, small], capture_output=True, text=True, check=True)
    assert float(done.stdout) < most  # with what a decoder itself takes


def test_a_file_that_is_no_picture_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(990_000_000)  # sparse
    assert len(read_bytes(tmp_path / "a.png")) < 10_000
    with pytest.raises(PictureError, match="not an image"):
        read_picture(tmp_path / "a.png")
    content = saved(noise(), "PNG") + bytes(5000)
    (tmp_path / "b.png").write_bytes(content)
    assert read_bytes(tmp_path / "b.png") == content


def test_large_files_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(saved(noise(), "PNG"))
    inside, most, guard, original = [0], [0], threading.Lock(), pictures.read_bytes

    def watched(file: Path) -> bytes:
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.02)
        with guard:
            inside[0] -= 1
        return original(file)

    monkeypatch.setattr(pictures, "read_bytes", watched)
    for limit, expected in ((10**8, False), (1000, True)):
        monkeypatch.setattr(pictures, "_LARGE_BYTES", limit)
        most[0] = 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read_picture, [tmp_path / "a.png"] * 8))
        assert (most[0] == 1) is expected


def test_the_frames_of_a_tiff_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    Image.new("L", (2, 2)).save(out, "TIFF", save_all=True, append_images=[Image.new("L", (2, 2))] * 50)
    loaded, original = [0], TiffImagePlugin.ImageFileDirectory_v2.load

    def load(self: TiffImagePlugin.ImageFileDirectory_v2, file: io.BytesIO) -> None:
        loaded[0] += 1
        original(self, file)

    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", load)
    assert [code for code, _ in decode(out.getvalue(), "a.tif").remarks] == ["image-animated"]
    assert loaded[0] < 10
