"""Mutate good metadata, dataset and caption files and list their folders: each gives a Listing or a DataError.

python tests/attacks/listing_fuzzing.py --count 20000 [--seed 0]
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sd_lora.config.schema import DataConfig
from sd_lora.data.findings import sentences
from sd_lora.data.folders.listing import list_folder
from sd_lora.errors import DataError

ROWS = [
    {"file_name": "a.png", "text": "a red house, 20°C"},
    {"file_name": "ink/b.png", "text": ["one", "two \U0001f408"], "mask": "ink/b_mask.png"},
    {"file_name": "a.png", "text": "", "width": 3},
]
TOML = """[general]
shuffle_caption = true
keep_tokens = 1
resolution = [512, 512]

[[datasets]]
batch_size = 2
  [[datasets.subsets]]
  image_dir = 'ink'
  num_repeats = 10
  class_tokens = "ink wash"
  caption_extension = ".txt"
  [[datasets.subsets]]
  image_dir = "./kohya"
  metadata_file = "kohya/meta.json"
  caption_prefix = "p"
  caption_tag_dropout_rate = 0.1
  is_reg = true
"""
TOKENS = (
    b"..", b"../../etc/passwd", b"/", b"\\", b"C:\\", b"\x00", b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"\xff\xfe",
    b"\xef\xbb\xbf", b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000,
    b"[[a]]\n", b"a." * 2000, b'"', b"'", b'"""', b",", b";", b"\t", b"\r", b"\n", b"\xe2\x80\xa8",
    b"~root/", b"~nobody/",
    b"x" * 5000, b"0x" + b"f" * 5000,
    b"[datasets]\n", b"is_reg=true\n", b"image_dir='.'\n", b"file_name", b"{}", b"\x1b[2J",
)  # fmt: skip
#: what is mutated: the file's place → its good content
SEEDS: dict[str, bytes] = {
    "metadata.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    "metadata.csv": 'file_name,text,mask\na.png,"a red house, 20°C",\nink/b.png;x,two,ink/b_mask.png\n'.encode(),
    "dataset.toml": TOML.encode(),
    "kohya/meta.json": b'{"k": {"caption": "one", "tags": "two, three"}, "k.png": {"tags": null}}',
    "a.txt": "a red house\r\nun château\u2028\U0001f408\n".encode(),
    "ink/b.caption": "un château près de la rivière".encode("cp1252"),
    "c.txt": "بيت أحمر\n赤い家".encode("utf-16"),
}


def parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet as pq

    out = io.BytesIO()
    columns = {"file_name": ["a.png", "ink/b.png"], "text": [["one", "two"], None], "mask": [None, "ink/b_mask.png"]}
    pq.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def folder_of_pictures(top: Path) -> Path:
    """Where the mutants are put: empty pictures, and good files beside the one that is mutated."""
    for name in ("a.png", "c.png", "ink/b.png", "ink/b_mask.png", "10_x/d.png", "kohya/k.png"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return top


def flipped(content: bytes, rng: random.Random) -> bytes:
    mutant = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if mutant else 0):
        mutant[rng.randrange(len(mutant))] = rng.randrange(256)
    return bytes(mutant)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def grown(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.randrange(1, 200)) + content[place:]


def planted(content: bytes, rng: random.Random) -> bytes:
    """Tokens that readers stumble over, put in place of one to three stretches."""
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(content) + 1)
        content = content[:place] + rng.choice(TOKENS) + content[place + rng.choice((0, 0, 1, 5, 20)) :]
    return content


def spliced(content: bytes, rng: random.Random) -> bytes:
    place, start = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
    return content[:place] + content[start:]


def repeated(content: bytes, rng: random.Random) -> bytes:
    """One line many times."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    return b"\n".join([*lines[:place], *[lines[place]] * rng.choice((2, 100, 5000)), *lines[place + 1 :]])


def recoded(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(
        rng.choice(("utf-16", "utf-32", "utf-16-le", "cp1252", "cp932", "utf-7", "utf-8-sig")), "replace"
    )


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped, flipped, cut, grown, planted, planted, planted, spliced, repeated, recoded,
)  # fmt: skip


@dataclass
class Tally:
    """How the mutants of one file fared."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def on_one_line(text: str) -> bool:
    return not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in text)


def outcome(folder: Path, what: str = "") -> str:
    """ "read", "nothing" or "refused"; AssertionError for a listing that is not whole, anything else for a fault."""
    try:
        found = list_folder(DataConfig(folder=str(folder / what)))
    except DataError as error:
        return "refused" if on_one_line(str(error)) else "broke its line"
    texts = [found.summary, *(f.message for f in found.findings), *sentences(found.findings, "error")]
    assert all(map(on_one_line, texts)), texts
    names = [entry.name for entry in found.entries]
    assert names == sorted(names)
    root = folder.resolve()
    for entry in found.entries:
        assert entry.file.resolve().is_relative_to(root)
        assert entry.mask is None or entry.mask.resolve().is_relative_to(root)
        assert entry.repeats >= 1
        assert 0 <= entry.rules.dropout < 1
        assert all(c and c == " ".join(c.split()) and "\0" not in c for c in entry.captions)
        "".join(entry.captions).encode()  # what holds half a character cannot be tokenised
    assert found.entries or any(f.severity == "error" for f in found.findings)
    return "read" if found.entries else "nothing"


def fuzz(count: int, seed: int, top: Path) -> dict[str, Tally]:
    """List `count` folders with one mutated file each. The one that fails stays in `top`."""
    rng, seeds = random.Random(seed), {**SEEDS, "metadata.parquet": parquet()}
    tallies = {name: Tally() for name in seeds}
    for number in range(count):
        name = list(seeds)[number % len(seeds)]
        folder = folder_of_pictures(top / "folder")
        if name == "kohya/meta.json":
            (folder / "dataset.toml").write_bytes(seeds["dataset.toml"])
        (folder / name).write_bytes(rng.choice(MUTATIONS)(seeds[name], rng))
        start = time.process_time()  # of this process alone, however busy the machine is
        tallies[name].outcomes[outcome(folder, name if name.endswith("toml") and number % 3 == 0 else "")] += 1
        seconds = time.process_time() - start
        tallies[name].slowest = max(tallies[name].slowest, seconds)
        for made in (name, "dataset.toml"):
            (folder / made).unlink(missing_ok=True)
    shutil.rmtree(top / "folder", ignore_errors=True)
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    started = time.perf_counter()
    for name, tally in fuzz(asked.count, asked.seed, Path(tempfile.mkdtemp(prefix="listing-fuzz-"))).items():
        print(f"{name:18} slowest {tally.slowest * 1000:5.0f} ms  {dict(tally.outcomes)}")
    print(f"{asked.count} mutants from seed {asked.seed} in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
