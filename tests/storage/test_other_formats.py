"""What is no safetensors file is named by its first bytes, for adapters and base models alike."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rows import every_row
from safetensors.torch import save_file

from sd_lora.errors import AdapterError, BaseModelError
from sd_lora.storage.other_formats import FORMATS, other_format
from sd_lora.storage.safetensors_header import ADAPTER, BASE_MODEL, Limits, read_header


def picture(kind: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, kind)
    return content.getvalue()


def zipped(name: str, content: bytes = b"x") -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, content)
    return archive.getvalue()


def of_torch(old: bool) -> bytes:
    content = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, content, _use_new_zipfile_serialization=not old)
    return content.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 151123456\n"
#: what a file holds, and words of its sentence; every row of FORMATS occurs
FILES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty; download it again"),
    "a pointer": (POINTER, 'git-LFS pointer, .*; run "git lfs pull" in its folder'),
    "an old pointer": (POINTER.replace(b"git-lfs.github.com/spec", b"hawser.github.com/spec"), "git-LFS pointer"),
    "a page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page.* login"),
    "a page after blanks": (b"\xef\xbb\xbf\r\n  <html lang=en>", "an HTML page"),
    "an error of a store": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "XML, .*download the file",
    ),
    "an error as JSON": (b'{"error":"Unauthorized","message":"requires a token"}', "JSON, .*download the file itself"),
    "an index": (b'{\n  "metadata": {},\n  "weight_map": {}\n}', "JSON, such as an index"),
    "torch's": (of_torch(old=False), "a PyTorch pickle in a zip archive .*pickles can run code and are never loaded"),
    "torch's older": (of_torch(old=True), "a pickle .*never loaded"),
    "a pickle": (pickle.dumps({"a": 1}), "a pickle"),
    "a zip": (zipped("style.safetensors"), "a zip archive; unpack it"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(64), "a GGUF file"),
    "ggml": (b"lmgg" + bytes(64), "an older GGML file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(64), "a numpy array"),
    "png": (picture("PNG"), "a PNG picture; name the .safetensors file"),
    "jpeg": (picture("JPEG"), "a JPEG picture"),
    "webp": (picture("WEBP"), "a WebP picture"),
    "gif": (picture("GIF"), "a GIF picture"),
    "pdf": (b"%PDF-1.7\n", "a PDF"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(8), "a gzip archive; unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(32), "a compressed archive"),
    "tar": (b"a.safetensors".ljust(257, b"\0") + b"ustar\x0000" + bytes(300), "a tar archive"),
    "zeros": (bytes(100_000), "nothing but zeros .*; download it again"),
    "a message": (b"Access denied: log in to download this model\n", "text; download the file itself"),
    "a message in another language": ("Zugriff verweigert: für dieses Modell\n".encode() * 40, "text;"),
}


@every_row("limits, content, words", [(limits, *row) for limits in (ADAPTER, BASE_MODEL) for row in FILES.values()])
def test_it_is_named_with_what_to_do(limits: Limits, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        (AdapterError, BaseModelError), match=f"{path} is not a safetensors file: it is .*{words}"
    ) as no:
        read_header(path, limits)
    assert isinstance(no.value, limits.error)
    assert str(no.value).isprintable()


def test_every_format_has_its_file(tmp_path: Path) -> None:
    named = set[Any]()
    for content, _ in FILES.values():
        (tmp_path / "file").write_bytes(content)
        named.add(other_format(tmp_path / "file"))
    assert named == set(FORMATS)


def test_a_large_table_of_tags_is_read(tmp_path: Path) -> None:
    """Adapters of large sets have headers of tens of megabytes, almost all of it ``ss_tag_frequency``."""
    tags = ", ".join(f"tag {number}" for number in range(1_500_000))
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"ss_tag_frequency": tags})
    assert read_header(tmp_path / "a.safetensors")[1]["ss_tag_frequency"] == tags


def test_a_header_with_many_entries_takes_no_memory_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({f"{i}": torch.zeros(1) for i in range(9)}, tmp_path / "a.safetensors")
    monkeypatch.setattr("json.loads", None)
    with pytest.raises(AdapterError, match="declares 9 tensors; an adapter has at most 8"):
        read_header(tmp_path / "a.safetensors", replace(ADAPTER, tensors=8))
