"""Does a full-size Stable Diffusion fit? Random weights in the published sizes are loaded, trained for three steps at a
small resolution and saved, each base in a process of its own; prints peak memory and times.

    python benchmarks/full_size.py WORK [sd15-float32 sd15-bfloat16 sdxl-bfloat16]

WORK is a folder with room for the largest base (7 GB); a base is removed when it has been measured.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CASES = ("sd15-float32", "sd15-bfloat16", "sdxl-bfloat16")
STEPS, RESOLUTION = 3, 128
SD15_UNET: dict[str, Any] = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768,
    "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
VAE: dict[str, Any] = {
    "sample_size": 512, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}


def main() -> None:
    work, cases = Path(sys.argv[1]), sys.argv[2:] or CASES
    rows = []
    for case in cases:
        base = work / case
        subprocess.run([sys.executable, __file__, "--write", case, str(base)], check=True)
        done = subprocess.run(
            [sys.executable, __file__, "--train", case, str(base)], check=True, stdout=subprocess.PIPE
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        shutil.rmtree(base)
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, {STEPS} steps of one picture at {RESOLUTION} px\n")
    print("| base | weights | peak memory | load | a step | adapter | whole command |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        sizes = f"{row['weights']:.1f} GB | {row['peak']:.1f} GB | {row['load']:.0f} s | {row['step']:.1f} s"
        print(f"| {row['case']} | {sizes} | {row['adapter']:.1f} MB | {row['whole']:.0f} s |", flush=True)


def write(case: str, folder: Path) -> None:
    """A pipeline folder of random weights in the published sizes, made without the peak of a second copy."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    xl, dtype = case.startswith("sdxl"), getattr(torch, case.partition("-")[2])
    torch.set_default_dtype(dtype)
    tokenizer = synthetic_tokenizer()
    words = {"vocab_size": len(tokenizer), "bos_token_id": 49406, "eos_token_id": 49407}
    parts: dict[str, Any] = {
        "unet": random(UNet2DConditionModel, **(SDXL_UNET if xl else SD15_UNET)),
        "vae": random(AutoencoderKL, **VAE, scaling_factor=0.13025 if xl else 0.18215),
        "text_encoder": random(CLIPTextModel, CLIPTextConfig(**CLIP_L, projection_dim=768, **words)),
        "tokenizer": tokenizer,
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
    }  # fmt: skip
    if xl:
        second = CLIPTextConfig(**CLIP_BIG_G, projection_dim=1280, hidden_act="gelu", **words)
        parts |= {"text_encoder_2": random(CLIPTextModelWithProjection, second), "tokenizer_2": tokenizer}
        pipe: Any = StableDiffusionXLPipeline(**parts)
    else:
        pipe = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )  # fmt: skip
    pipe.save_pretrained(folder)


def random(model: Any, *arguments: Any, **facts: Any) -> Any:
    import torch

    with torch.device("meta"):
        made = model(*arguments, **facts)
    made = made.to(torch.get_default_dtype()).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*made.named_parameters(), *made.named_buffers()]:
        with torch.no_grad():
            if tensor.dtype is torch.int64:
                tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))
            elif tensor.ndim > 1:
                tensor.normal_(0, 0.02, generator=generator)
            else:
                tensor.fill_(0.0 if name.endswith("bias") else 1.0)
    return made


def synthetic_tokenizer() -> Any:
    """A CLIP tokenizer of the published size with made-up words."""
    from transformers import CLIPTokenizer

    from sd_lora.tinybase import tiny_base_path

    small = CLIPTokenizer.from_pretrained(tiny_base_path() / "tokenizer")
    symbols = sorted(word for word in small.get_vocab() if len(word.removesuffix("</w>")) == 1)
    words = [f"word{i}</w>" for i in range(49_406 - len(symbols))]
    vocab = {word: i for i, word in enumerate([*symbols, *words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def train(case: str, base: Path) -> None:
    """Train on two pictures; the last line printed is the measurement."""
    started = time.perf_counter()
    import sd_lora
    from sd_lora.tinybase.folder import demo_scenes, write_captioned_folder
    from sd_lora.training.preparation import prepare
    from sd_lora.training.run import run_training

    pictures, run_folder = base.with_name(f"{case}-pictures"), base.with_name(f"{case}-run")
    for leftover in (pictures, run_folder):
        shutil.rmtree(leftover, ignore_errors=True)
    write_captioned_folder(pictures, "woodcut", demo_scenes(2))
    config = sd_lora.load_config(
        "style", f"model.base={base}", f"model.dtype={case.partition('-')[2]}", f"data.folder={pictures}",
        f"data.resolution={RESOLUTION}", f"training.steps={STEPS}", "training.batch_size=1", "preview.strengths=1",
        "preview.inference_steps=1", 'preview.prompts=["a house"]', f"output.folder={run_folder}",
    )  # fmt: skip
    begun = time.perf_counter()
    run = prepare(config)
    loaded, seconds = time.perf_counter(), []
    run_training(run, watch=lambda report: seconds.append(report.seconds))
    row = {
        "case": case,
        "weights": sum(file.stat().st_size for file in base.rglob("*.safetensors")) / 2**30,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "load": loaded - begun,
        "step": min(seconds),
        "adapter": (run_folder / "adapter.safetensors").stat().st_size / 2**20,
        "whole": time.perf_counter() - started,
    }
    for leftover in (pictures, run_folder):
        shutil.rmtree(leftover)
    print(json.dumps(row))


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1] == "--train":
        train(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
