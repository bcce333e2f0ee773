"""The cache: what changed is encoded again, what did not is not, and damaged entries are never believed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sd_lora.config.schema import DataConfig
from sd_lora.data import encoded
from sd_lora.data.cache import Cache, cache_folder, check_cache, key_of
from sd_lora.data.encoded import EncodedSet, Encoders
from sd_lora.data.examples import Example
from sd_lora.data.exposures import Schedule, Seen
from sd_lora.data.pictures.views import views_of
from sd_lora.errors import DataError, StorageError

COUNT = 6


class Setting:
    """A folder of pictures, and how many of them and of their captions an `EncodedSet` made or found."""

    def __init__(self, home: Path) -> None:
        self.folder, self.cache, self.images = home / "photos", home / "cache", [f"{i}.png" for i in range(COUNT)]
        self.folder.mkdir()
        for i, name in enumerate(self.images):
            draw(self.folder / name, i)
        self.captions = [f"caption {i}" for i in range(COUNT)]
        self.config, self.side, self.keys, self.masks = DataConfig(), 32, ("vae 1", "text 1"), dict[int, Path]()
        self.background, self.size = "", (48, 32)

    def examples(self) -> list[Example]:
        return [
            Example(
                self.folder / name, name, *self.size, (caption,), mask=self.masks.get(i), background=self.background
            )
            for i, (name, caption) in enumerate(zip(self.images, self.captions, strict=True))
        ]

    def encoded(self) -> EncodedSet:
        examples = self.examples()
        seen = [
            Seen((views_of(e.width, e.height, self.side, 8, self.config),), 2 if self.config.flip else 1)
            for e in examples
        ]
        encoders = Encoders(
            shrunk, lambda texts: {"states": torch.tensor([[float(len(texts[0]))]])}, lambda _: {}, *self.keys
        )
        data = EncodedSet(examples, Schedule(seen, 2, 0), encoders, Cache(self.cache))
        data.encode()
        return data

    def made(self) -> tuple[int, int]:
        """How many entries were made, and how many found, by encoding everything once more."""
        cache = self.encoded().cache
        return cache.made, cache.reused


def shrunk(pixels: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(pixels, 4)


def draw(file: Path, seed: int, *, like: Path | None = None) -> None:
    """Write a picture of its own; in the size and with the time of `like`, if given."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, compress_level=0)
    if like is not None:
        os.utime(file, ns=(like.stat().st_atime_ns, like.stat().st_mtime_ns))


def other_pixels(s: Setting) -> None:
    """Other pixels, with the same size and time of the file."""
    file = s.folder / "2.png"
    before = file.stat()
    draw(file, 99)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def one_byte(s: Setting) -> None:
    content = bytearray((s.folder / "1.png").read_bytes())
    (s.folder / "1.png").write_bytes(bytes(content) + b"\0")


def two_pictures(s: Setting) -> None:
    draw(s.folder / "0.png", 70)
    draw(s.folder / "5.png", 71)


def swapped(s: Setting) -> None:
    """Two pictures change names: both are known already, nothing is made."""
    a, b = (s.folder / name for name in ("0.png", "1.png"))
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


def add_picture(s: Setting) -> None:
    draw(s.folder / "new.png", 50)
    s.images.append("new.png")
    s.captions.append("a new one")


def copy_picture(s: Setting) -> None:
    (s.folder / "copy.png").write_bytes((s.folder / "0.png").read_bytes())
    s.images.append("copy.png")
    s.captions.append("a caption of its own")


def mask(s: Setting, level: int = 255) -> None:
    Image.new("L", (48, 32), level).save(s.folder / "0_mask.png")
    s.masks = {0: s.folder / "0_mask.png"}


def other_mask(s: Setting) -> None:
    mask(s)
    s.made()
    mask(s, 100)


def truncate(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])


def entries(s: Setting) -> list[Path]:
    return sorted(s.cache.glob("*/*.tensors"))


def damage(which: Callable[[bytes], bytes], count: int = 1) -> Callable[[Setting], None]:
    def act(s: Setting) -> None:
        for file in entries(s)[:count]:
            file.write_bytes(which(file.read_bytes()))

    return act


def setting(**facts: object) -> Callable[[Setting], None]:
    def act(s: Setting) -> None:
        for name, value in facts.items():
            setattr(s, name, value)

    return act


def data(**facts: object) -> Callable[[Setting], None]:
    return lambda s: setattr(s, "config", replace(s.config, **facts))


def caption(index: int, text: str) -> Callable[[Setting], None]:
    return lambda s: s.captions.__setitem__(index, text)


#: what is done → how many entries are made again
CHANGES: dict[str, tuple[Callable[[Setting], None], int]] = {
    "other pixels, same size and time": (other_pixels, 1),
    "a byte more": (one_byte, 1),
    "two pictures": (two_pictures, 2),
    "a picture more": (add_picture, 2),
    "a copy with a caption of its own": (copy_picture, 1),
    "a mask": (mask, 1),
    "another mask": (other_mask, 1),
    "one caption": (caption(3, "another caption"), 1),
    "one letter of a caption": (caption(3, "caption 3."), 1),
    "a caption in capitals": (caption(3, "Caption 3"), 1),
    "other VAE weights": (setting(keys=("vae 2", "text 1")), COUNT),
    "other text-encoder weights": (setting(keys=("vae 1", "text 2")), COUNT + 1),
    "both": (setting(keys=("vae 2", "text 2")), 2 * COUNT + 1),
    "a larger size": (setting(side=40), COUNT),
    "squares": (data(buckets=False), COUNT),
    "no mirror images": (data(flip=False), COUNT),
    "another colour behind": (setting(background="red"), COUNT),
    "an entry cut to nothing": (damage(lambda _: b""), 1),
    "an entry cut short": (damage(lambda content: content[:-1]), 1),
    "an entry with another byte": (damage(lambda c: c[:40] + bytes([c[40] ^ 1]) + c[41:]), 1),
    "an entry with another checksum": (damage(lambda c: bytes(32) + c[32:]), 1),
    "three entries that are text": (damage(lambda _: b"hello" * 20, 3), 3),
    "all entries cut within the checksum": (damage(lambda c: c[:20], 99), 2 * COUNT + 1),
    "an entry removed": (lambda s: entries(s)[0].unlink(), 1),
}


def touch(s: Setting) -> None:
    for file in s.folder.iterdir():
        os.utime(file)


def rename_folder(s: Setting) -> None:
    s.folder = s.folder.rename(s.folder.with_name("elsewhere"))


def copy_folder(s: Setting) -> None:
    target = s.folder.with_name("copied")
    target.mkdir()
    for file in s.folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    s.folder = target


def rename_pictures(s: Setting) -> None:
    for i, name in enumerate(s.images):
        s.images[i] = (s.folder / name).rename(s.folder / f"renamed {name}").name


def link_pictures(s: Setting) -> None:
    for i, name in enumerate(s.images):
        (s.folder / f"link-{i}.png").symlink_to(s.folder / name)
        s.images[i] = f"link-{i}.png"


def rewrite(s: Setting) -> None:
    for name in s.images:
        content = (s.folder / name).read_bytes()
        (s.folder / name).unlink()
        (s.folder / name).write_bytes(content)


def move_cache(s: Setting) -> None:
    s.cache = s.cache.rename(s.cache.with_name("moved"))


def old_times(s: Setting) -> None:
    for file in s.folder.iterdir():
        os.utime(file, (0, 0))


def permissions(s: Setting) -> None:
    for file in s.folder.iterdir():
        file.chmod(0o600)


def reverse(s: Setting) -> None:
    s.images.reverse()
    s.captions.reverse()


def fewer(s: Setting) -> None:
    del s.images[4:], s.captions[4:]


def file_beside(s: Setting) -> None:
    (s.folder / "notes.md").write_text("x")


def copy_with_known_caption(s: Setting) -> None:
    copy_picture(s)
    s.captions[-1] = "caption 0"


def partial_file(s: Setting) -> None:
    (s.cache / "ab").mkdir(exist_ok=True)
    (s.cache / "ab" / ".partial-x").write_bytes(b"x")


def foreign_entry(s: Setting) -> None:
    (s.cache / "zz").mkdir()
    (s.cache / "zz" / "x.tensors").write_bytes(b"x")


NO_OPS: dict[str, Callable[[Setting], None]] = {
    "nothing": setting(),
    "touch": touch,
    "old times": old_times,
    "permissions": permissions,
    "rename the folder": rename_folder,
    "copy the folder": copy_folder,
    "rename the pictures": rename_pictures,
    "links to the pictures": link_pictures,
    "write the same bytes": rewrite,
    "two pictures swap names": swapped,
    "move the cache": move_cache,
    "another order": reverse,
    "captions go to other pictures": lambda s: s.captions.reverse(),
    "two pictures fewer": fewer,
    "one caption for all": setting(captions=["caption 1"] * COUNT),
    "a caption goes": caption(2, ""),
    "another file beside": file_beside,
    "a copy under the same caption": copy_with_known_caption,
    "a setting that is not of the encoding": data(default_caption="unused"),
    "a partial file of another run": partial_file,
    "old entries of others": foreign_entry,
}


@pytest.fixture
def ready(tmp_path: Path) -> Setting:
    s = Setting(tmp_path)
    assert s.made() == (2 * COUNT + 1, 0)
    return s


@pytest.mark.parametrize("change", CHANGES)
def test_exactly_what_changed_is_made_again(change: str, ready: Setting) -> None:
    act, expected = CHANGES[change]
    act(ready)
    assert ready.made()[0] == expected
    assert ready.made()[0] == 0


@pytest.mark.parametrize("what", NO_OPS)
def test_what_changes_nothing_makes_nothing(what: str, ready: Setting) -> None:
    NO_OPS[what](ready)
    assert ready.made()[0] == 0


def test_there_are_as_many_cases_as_promised() -> None:
    assert len(CHANGES) >= 20
    assert len(NO_OPS) >= 20


def test_changed_pixels_are_what_is_loaded(ready: Setting) -> None:
    before = ready.encoded().batch(ready.encoded().schedule.groups(0)[0], 0, 0.0, range(2))
    for name in ready.images:
        draw(ready.folder / name, 200)
    data = ready.encoded()
    after = data.batch(data.schedule.groups(0)[0], 0, 0.0, range(2))
    assert before is not None
    assert after is not None
    assert not torch.equal(before.latents, after.latents)


def test_a_damaged_entry_is_rebuilt_as_it_was(ready: Setting) -> None:
    wholes = {file: hashlib.sha256(file.read_bytes()).digest() for file in entries(ready)}
    for number, file in enumerate(wholes):
        truncate(file, number * 7)
    ready.made()
    assert {file: hashlib.sha256(file.read_bytes()).digest() for file in entries(ready)} == wholes


def test_an_entry_lost_while_training_is_named(ready: Setting) -> None:
    data = ready.encoded()
    data.cache = Cache(ready.cache)
    for file in entries(ready):
        truncate(file, 50)
    with pytest.raises(DataError, match="removed or damaged during training"):
        data.batch(data.schedule.groups(0)[0], 0, 0.0, range(2))


def test_two_runs_may_fill_one_cache(tmp_path: Path) -> None:
    s, failures = Setting(tmp_path), list[BaseException]()

    def run() -> None:
        try:
            s.made()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert s.made() == (0, 2 * COUNT + 1)
    assert not list(s.cache.glob("*/.partial-*"))


def test_memory_is_bounded(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", memory=10 * 4 * 100)
    keys = [key_of(number=i) for i in range(40)]
    for key in keys:
        cache.ensure(key, lambda: {"x": torch.zeros(100)})
    for key in keys:
        assert cache.load(key)["x"].shape == (100,)
        assert len(cache._recent) <= 10
    assert cache.load(keys[-1]) is cache.load(keys[-1])


def test_half_written_files_of_long_ago_are_removed(tmp_path: Path) -> None:
    (tmp_path / "cache" / "ab").mkdir(parents=True)
    old, new = (tmp_path / "cache" / "ab" / f".partial-{name}" for name in ("old", "new"))
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (time.time() - 10**6,) * 2)
    Cache(tmp_path / "cache")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_cache_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"cache folder .*file.* data.cache"):
        Cache(tmp_path / "file")


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match=r"No space left on device; make room, or name another with data\.cache"):
        cache.ensure(key_of(x=1), lambda: {"x": torch.zeros(3)})
    assert not list((tmp_path / "cache").glob("*/*"))


@pytest.mark.parametrize(("number", "advice"), [(28, "make room, or name another"), (30, "; name another")])
def test_a_folder_that_cannot_be_made_is_the_disk_s_fault(
    number: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(StorageError, match=f"cannot be written: {os.strerror(number)}.*{advice}"):
        Cache(tmp_path / "cache")


def test_keys_depend_on_every_fact_and_on_nothing_else() -> None:
    assert key_of(a=1, b=[1, 2]) == key_of(b=[1, 2], a=1)
    assert len({key_of(), key_of(a=1), key_of(a="1"), key_of(a=[1]), key_of(b=1), key_of(a=1.5)}) == 6


def test_a_mask_that_changes_while_it_is_encoded_is_not_kept_as_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = Setting(tmp_path)
    mask(s, 255)
    original = encoded.read_bytes

    def read(file: Path) -> bytes:
        content = original(file)
        if file == s.masks[0]:
            mask(s, 0)  # as soon as it was read
        return content

    monkeypatch.setattr(encoded, "read_bytes", read)
    s.encoded()
    monkeypatch.undo()
    for level in (255, 0):
        mask(s, level)
        data = s.encoded()
        assert data.cache.load(data._latents[0, 0])["mask"].unique().tolist() == [level / 255]


@pytest.mark.parametrize("known", [False, True])
def test_an_image_replaced_since_it_was_looked_at_is_refused(known: bool, ready: Setting) -> None:
    Image.new("RGB", (96, 64), "teal").save(ready.folder / "0.png")
    if known:  # encoded before, as what it is
        (ready.folder / "1.png").write_bytes((ready.folder / "0.png").read_bytes())
        ready.size = (96, 64)
        ready.images, ready.captions = ["1.png"], ["a"]
        ready.made()
        ready.size, ready.images = (48, 32), ["0.png"]
    with pytest.raises(DataError, match=r"0\.png was replaced .*48 × 32 pixels, now 96 × 64"):
        ready.encoded()


@pytest.mark.parametrize(
    ("configured", "why"),
    [
        ("*/file", "it is a file"), ("*/file/in/it", "*/file is a file"), ("/dev/null", "it is a file"),
        ("*/gone", "a link that leads nowhere"), ("a\0b", "its name holds a NUL"), ("~nosuchuser/x", "no such user"),
        (f"*/{'a' * 300}", "file name too long"), ("*/shut/x", "writing to */shut is not allowed"),
    ],
)  # fmt: skip
def test_a_cache_that_will_not_do_is_told_before_anything_is_written(
    configured: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "shut").mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "shut" and allowed(path, mode))
    before = sorted(tmp_path.rglob("*"))
    for use in (check_cache, lambda text: Cache(cache_folder(text, tmp_path))):
        with pytest.raises(DataError) as caught:
            use(configured.replace("*", str(tmp_path)))
        assert why.replace("*", str(tmp_path)) in str(caught.value)
        assert str(caught.value).endswith("name another with data.cache")
        assert str(caught.value).isprintable()
    check_cache("")
    check_cache(str(tmp_path / "new" / "one"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("parent", [False, True])
def test_what_lies_where_an_entry_belongs_is_named(parent: bool, ready: Setting) -> None:
    entry = entries(ready)[0]
    if parent:
        shutil.rmtree(entry.parent)
        entry.parent.write_text("x")
    else:
        entry.unlink()
        entry.mkdir()
    said = f"{entry.parent} is a file where a folder" if parent else f"{entry} is a folder where an entry"
    with pytest.raises(DataError, match=re.escape(said)):
        ready.made()
