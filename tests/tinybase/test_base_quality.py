"""The embedded base keeps its promises; `benchmarks/base_model.py` measures the same on more pictures."""

import pytest
from rows import every_row

from sd_lora.tinybase import tiny_base_path
from sd_lora.tinybase.world import BASE_STYLES, HELD_OUT_STYLES


@pytest.fixture(scope="module")
def tiny():
    from sd_lora import load_base

    return load_base("tiny")[0]


@pytest.mark.slow
@every_row("style", [*BASE_STYLES, *HELD_OUT_STYLES])
def test_the_vae_can_draw_every_style(tiny, style):
    from sd_lora.evaluation.tiny_measures import reconstruction

    assert reconstruction(tiny, style, count=8) >= 21


@pytest.mark.slow
def test_prompts_never_used_in_training_are_obeyed(tiny):
    from sd_lora.evaluation.tiny_measures import generate, unseen_scenes
    from sd_lora.tinybase.judge import load_judge, recognised

    scenes = unseen_scenes(40)
    shares = recognised(load_judge(), generate(tiny, [scene.caption for scene in scenes]), scenes)
    assert min(shares[name] for name in ("subject", "colour", "background")) >= 0.95, shares


@pytest.mark.slow
def test_the_judge_reads_the_renderers_own_pictures():
    from sd_lora.evaluation.tiny_measures import unseen_scenes
    from sd_lora.tinybase.judge import load_judge, recognised
    from sd_lora.tinybase.styles import render

    scenes = unseen_scenes(60)
    for style in ("flat", "woodcut", "blueprint"):
        shares = recognised(load_judge(), [render(scene, style) for scene in scenes], scenes)
        assert min(shares["subject"], shares["background"]) >= 0.97, (style, shares)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, "float16", "float32"])
def test_plain_diffusers_loads_it(dtype):
    import torch
    from diffusers import StableDiffusionPipeline

    options = {} if dtype is None else {"torch_dtype": getattr(torch, dtype)}
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base_path(), **options)
    assert pipe.safety_checker is None
    if dtype != "float16":  # the CPU draws in float32
        picture = pipe("a red house at night", num_inference_steps=2).images[0]
        assert picture.size == (128, 128)


def test_it_stays_small():
    files = list(tiny_base_path().rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 20 * 10**6
    assert not [file for file in tiny_base_path().rglob("*") if file.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_any_text_encodes_within_its_vocabulary(tiny):
    for text in ("", "a red house", "größte Übung 猫 🐈", "x" * 500):
        ids = tiny.tokenizer(text, truncation=True).input_ids
        assert 2 <= len(ids) <= 32
        assert max(ids) < tiny.text_encoder.config.vocab_size
