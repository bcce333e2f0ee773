"""Rebuilds the embedded base from nothing: VAE, text encoder, UNet, judge, and the folder that ships.

    python -m benchmarks.tiny_base.build WORK [--processes N] [--out FOLDER] [--as-it-is]

Run it at the root of the repository. WORK keeps the rendered pictures and the checkpoints; started again, the build
resumes. The budget is in steps, so that a rebuild is the same build. While `benchmarks/tiny_base/snapshots` exists, a
WORK without checkpoints goes on from the averaged weights there; remove that folder to build from nothing.
`--as-it-is` trains nothing: it writes the folder from the latest checkpoints, also beside a build that runs; then
`python benchmarks/base_model.py --base WORK/base` says how far it has come.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from benchmarks.tiny_base import build_judge, build_unet, build_vae
from benchmarks.tiny_base.build_text import save_tokenizer


def assemble(learner: build_unet.Learner, vae: AutoencoderKL, tokenizer: CLIPTokenizer, out: Path) -> None:
    """Write the pipeline folder in float16, loadable by plain diffusers with and without a dtype."""
    absent: Any = None
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=learner.encoder,
        tokenizer=tokenizer,
        unet=learner.unet,
        scheduler=cast(Any, build_unet.new_scheduler()),
        safety_checker=absent,
        feature_extractor=absent,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16)
    pipe.save_pretrained(out, safe_serialization=True)
    save_tokenizer(tokenizer, out / "tokenizer")
    # diffusers loads its parts as float32 by default, transformers in the dtype of the config: make them agree.
    _edit(out / "text_encoder" / "config.json", {"dtype": "float32"})
    for part in ("unet", "vae"):
        _edit(out / part / "config.json", {"_name_or_path": None})
    _edit(out / "model_index.json", {"_name_or_path": None})


def _edit(file: Path, changes: dict[str, Any]) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(file.read_text("utf-8"))
    merged = {key: value for key, value in {**content, **changes}.items() if not (key in changes and value is None)}
    file.write_text(json.dumps(merged, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for pictures and checkpoints")
    parser.add_argument("--processes", type=int, default=1, help="processes that train the UNet together")
    parser.add_argument("--out", type=Path, help="the pipeline folder to write; default: WORK/base")
    parser.add_argument("--as-it-is", action="store_true", help="only write the folder, from the latest checkpoints")
    options = parser.parse_args()
    out = options.out or options.work / "base"
    options.work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.tiny_base.build_unet", str(options.work)]
    train = not options.as_it_is
    if train:
        subprocess.run([*command, "--processes", str(options.processes)], check=True)
    learner, tokenizer, scaling_factor = build_unet.build(options.work, train=train)
    vae = build_vae.build_fine(options.work, train=train)
    vae.register_to_config(scaling_factor=scaling_factor)
    assemble(learner, vae, tokenizer, out)
    if train:
        build_judge.build(options.work)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
