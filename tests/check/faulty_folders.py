"""A good folder of five captioned pictures, and for each finding that reading a layout does not give a fault that
earns it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter, ImageOps

from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene


def five_pictures(folder: Path) -> Path:
    """Five pictures of 128 pixels, 0.png to 4.png, with nothing wrong about them."""
    for i in range(5):
        scene(i, 128).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(sample_scene(i, pair=False).caption, "utf-8")
    return folder


def scene(number: int, side: int) -> Image.Image:
    return render(sample_scene(number, pair=False), "woodcut", 256).resize((side, side), Image.Resampling.LANCZOS)


def picture(change: Callable[[Image.Image], Image.Image], **saved: Any) -> Callable[[Path], None]:
    """0.png changed, and saved with options."""

    def act(folder: Path) -> None:
        with Image.open(folder / "0.png") as image:
            changed = change(image.convert("RGB"))
        changed.save(folder / "0.png", saved.pop("format", "PNG"), **saved)

    return act


def replaced(image: Image.Image, name: str = "0.png", **saved: Any) -> Callable[[Path], None]:
    """Another picture in the place of 0.png."""

    def act(folder: Path) -> None:
        (folder / "0.png").unlink()
        image.save(folder / name, **saved)

    return act


def beside(image: Image.Image, name: str) -> Callable[[Path], None]:
    return lambda folder: image.save(folder / name)


def text(content: str, name: str = "0.txt") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content, "utf-8") and None


def all_texts(content: str) -> Callable[[Path], None]:
    """The same caption for each picture but for its number, which stands for {}."""
    return lambda folder: [text(content.format(i), f"{i}.txt")(folder) for i in range(5)] and None


def without_captions(folder: Path) -> None:
    for file in folder.glob("*.txt"):
        file.unlink()


def nothing(folder: Path) -> None:
    """The fault is in the settings."""


def cut_short(folder: Path) -> None:
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:900])


def foreign(folder: Path) -> None:
    (folder / "0.png").unlink()
    (folder / "0.psd").write_bytes(b"8BPS")


def copied(folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "9.png")
    text("another caption", "9.txt")(folder)


def brighter(folder: Path) -> None:
    with Image.open(folder / "0.png") as image:
        image.convert("RGB").point(lambda level: min(255, level + 9)).save(folder / "9.png")
    text("another caption", "9.txt")(folder)


def in_numbered_folders(folder: Path) -> None:
    for i in range(5):
        target = folder / ("1_few" if i == 0 else "9999_many")
        target.mkdir(exist_ok=True)
        for ending in ("png", "txt"):
            (folder / f"{i}.{ending}").rename(target / f"{i}.{ending}")


def in_a_reg_folder(folder: Path) -> None:
    (folder / "reg" / "1_house").mkdir(parents=True)
    (folder / "1_style").mkdir()
    for i in range(5):
        target = folder / ("reg/1_house" if i == 0 else "1_style")
        for ending in ("png", "txt"):
            (folder / f"{i}.{ending}").rename(target / f"{i}.{ending}")
    text("a zwq house", "reg/1_house/0.txt")(folder)


def two_left(folder: Path) -> None:
    for i in range(3):
        (folder / f"{i}.png").unlink()
        (folder / f"{i}.txt").unlink()


def with_alpha(level: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        image.putalpha(level)
        return image

    return change


#: the code of a finding: what is done to the folder, and the settings under which it is examined
FAULTS: dict[str, tuple[Any, ...]] = {
    "captions-none": (without_captions,),
    "dataset-broken": (text("[[datasets]\n", "set.toml"), "data.layout=kohya-toml"),
    "repeats-large": (in_numbered_folders,),
    "setting-idle": (nothing, "data.prior_weight=0.5"),
    "image-unreadable": (cut_short,),
    "image-unsupported": (foreign,),
    "image-oversized": (replaced(Image.new("1", (11_000, 10_000))),),
    "image-extension": (picture(lambda image: image, format="JPEG"),),
    "image-animated": (replaced(scene(0, 128), "0.gif", save_all=True, append_images=[scene(9, 128)]),),
    "image-alpha": (picture(with_alpha(100)),),
    "image-transparent": (picture(with_alpha(0)),),
    "image-profile": (picture(lambda image: image, icc_profile=b"no profile at all"),),
    "image-skipped": (cut_short, "data.skip_bad=true"),
    "mask-size": (beside(Image.new("L", (128, 64), 255), "0_mask.png"),),
    "mask-empty": (beside(Image.new("L", (128, 128), 0), "0_mask.png"),),
    "image-tiny": (picture(lambda image: image.resize((30, 30))),),
    "image-small": (picture(lambda image: image.resize((100, 100))),),
    "image-huge": (picture(lambda image: image.resize((2100, 2100))),),
    "image-blurred": (picture(lambda image: image.filter(ImageFilter.GaussianBlur(4))),),
    "image-compressed": (replaced(scene(0, 128), "0.jpg", quality=10),),
    "image-bordered": (picture(lambda image: ImageOps.expand(image, 12, "white")),),
    "image-blank": (picture(lambda image: Image.new("RGB", image.size, "white")),),
    "image-aspect": (picture(lambda image: image.resize((512, 70))),),
    "image-duplicate": (copied,),
    "image-near-duplicate": (brighter,),
    "caption-dialect": (text("a boat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler"),),
    "caption-syntax": (text("a (red:1.3) boat"),),
    "caption-read": (text("a (red:1.3) boat"), "data.syntax=read"),
    "caption-escaped": (text(r"a boat \(red\)"),),
    "caption-many": (text("\n".join(f"caption {i}" for i in range(257))),),
    "caption-long": (text("a red house on a hill " * 20),),
    "caption-style": (text("a watercolor painting of a boat"),),
    "caption-same": (all_texts("a photo taken"),),
    "subject-bias": (all_texts("a lighthouse number 7{}"),),
    "trigger-none": (nothing, "data.trigger="),
    "trigger-known": (nothing, "data.trigger=boat"),
    "trigger-partly": (text("[trigger] of a boat"),),
    "trigger-prior": (in_a_reg_folder,),
    "trigger-unusable": (nothing, "data.trigger='zwq '"),
    "trigger-unset": (text("[trigger] of a boat"), "data.trigger="),
    "images-unseen": (nothing, "training.steps=1", "training.batch_size=1"),
    "set-small": (two_left,),
}
