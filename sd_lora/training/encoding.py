"""What a run is trained on, encoded; then what only encoding needs is let go."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from accelerate import Accelerator

from sd_lora.data.cache import Cache, cache_folder
from sd_lora.data.dialects.prompts import read_prompt
from sd_lora.data.encoded import EncodedSet, Encoders
from sd_lora.data.planning import schedule_for
from sd_lora.models.device import give_back
from sd_lora.preview.previewer import Previewer
from sd_lora.training.adapter_plan import trains_text
from sd_lora.training.prepared import Encoded, Run
from sd_lora.training.resume_check import denoising_of_base, encoders_of_base
from sd_lora.training.samples import Samples, open_samples


@torch.no_grad()
def encode(run: Run, accelerator: Accelerator, watch: Callable[[int, int], None] | None) -> Encoded:
    """Encode pictures and captions that the cache lacks, and preview prompts; then let the text encoders go, empty the
    VAE and load the denoiser, so that they are not in memory together. Text encoders that are trained stay, and
    captions and prompts are encoded whenever they are used."""
    pipe, family, config = run.pipe, run.family, run.config
    pipe.vae.to(run.device)
    for encoder, _ in family.text_parts(pipe):
        encoder.to(run.device)
    text, base = trains_text(run.adapter, family), encoders_of_base(run)
    encoders = Encoders(
        lambda images: family.encode_images(pipe, images).cpu(),
        None if text else lambda captions: {k: v.cpu() for k, v in family.encode_captions(pipe, captions).items()},
        family.encode_framing,
        base["vae"],
        "" if text else base["text"],
    )
    cache = Cache(cache_folder(config.data.cache, run.path))
    data = EncodedSet(run.examples, run.schedule, encoders, cache, config.data.prior_weight)
    if accelerator.num_processes > 1:
        data.encode((accelerator.process_index, accelerator.num_processes))
        accelerator.wait_for_everyone()
    data.encode(watch=watch)
    held = None
    if run.held:
        side, grain = config.data.resolution, family.grain(pipe)
        held = EncodedSet(run.held, schedule_for(run.held, config, side, grain), encoders, cache)
        held.encode()
    previewer = Previewer(pipe, run.adapter, config.preview, size=config.data.resolution)
    if not text:
        for prompt in () if config.model.preview_base else config.preview.prompts:
            wanted, negative = (
                {key: states.to(run.device) for key, states in data.caption(text).items()}
                for text in (read_prompt(prompt).text, previewer.negative_of(prompt))
            )
            previewer.prepare(prompt, family.pipeline_arguments(wanted, negative))
        for component in family.text_encoders:
            setattr(pipe, component, None)
    pipe.vae.to("cpu")
    run.base.empty("vae")  # until samples are drawn
    gc.collect()  # text encoders refer to themselves
    give_back(run.device)
    samples = Samples(run.base, previewer, is_own=True)
    if config.model.preview_base:
        samples = open_samples(run, with_text=text)
    run.base.fill(family.denoiser)
    return Encoded(data, held, samples, base | denoising_of_base(run))
