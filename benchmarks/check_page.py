"""The report that `sd-lora check --report` writes of a folder with a few problems, and its picture in docs/images.

python benchmarks/check_page.py WORK [--height 1180] [--browser chromium]
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from sd_lora import check_folder, load_config
from sd_lora.check.report import write_report
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene

SHAPES = [(512, 512), (512, 384), (384, 512), (512, 448)]


def write_folder(folder: Path) -> None:
    """Twenty captioned pictures of one style, of which some have something wrong with them."""
    folder.mkdir(parents=True)
    for i in range(20):
        scene = sample_scene(i)
        picture = ImageOps.fit(render(scene, "woodcut", 512), SHAPES[i % 4])
        if i == 3:
            picture = picture.resize((176, 154))
        elif i == 7:
            picture = picture.filter(ImageFilter.GaussianBlur(8))
        elif i == 10:
            picture = ImageOps.expand(picture, 30, "white")
        caption = f"a woodcut print of {scene.caption}" if i == 5 else scene.caption
        name = f"{scene.subject}-{i + 1:02}"
        picture.save(folder / f"{name}.png")
        if i != 12:
            (folder / f"{name}.txt").write_text(caption, "utf-8")
        if i == 1:
            picture.point(lambda value: min(255, value + 8)).save(folder / f"{name}-copy.png")
            (folder / f"{name}-copy.txt").write_text(caption, "utf-8")
    (folder / "scan.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "scan.txt").write_text("a lighthouse at dusk", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--browser", default="chromium")
    options = parser.parse_args()
    folder, page, picture = (options.work / name for name in ("photos", "check.html", "check.png"))
    write_folder(folder)
    with contextlib.chdir(options.work):  # so that the page names the folder as a user would
        config = load_config("tiny-style", f"data.folder={folder.name}", "data.trigger=inkwash", "data.resolution=256")
        write_report(check_folder(config, thumbnails=True), Path(page.name))
    subprocess.run(
        [options.browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-sync",
         f"--window-size=1200,{options.height}", f"--screenshot={picture.absolute()}", page.absolute().as_uri()],
        check=True,
    )  # fmt: skip
    shot = Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    shot.save(Path(__file__).parents[1] / "docs" / "images" / "check.png", optimize=True)


if __name__ == "__main__":
    main()
