"""What the runs of the configs in `foreign/` must have here."""

from __future__ import annotations

from typing import Any

CONV = {"unet.*.conv[12]": 8, "unet.*samplers.0.conv": 8}
UNET = ("attn", "ff", "proj")
TEXT = ("text", "text_ff")
#: file → what its run must have
EXPECTED: dict[str, dict[str, Any]] = {
    "kohya-flat.toml": {
        "model.base": "models/v1-5-pruned-emaonly.safetensors", "model.dtype": "bfloat16", "data.folder": "photos/img",
        "data.regularisation": "photos/reg", "data.prior_weight": 0.8, "data.resolution": 512, "data.buckets": True,
        "data.flip": False, "data.shuffle_tags": True, "data.keep_tags": 1, "data.caption_suffixes": (".txt",),
        "lora.targets": (*UNET, "conv", *TEXT), "lora.rank": 32, "lora.alpha": 16.0, "lora.ranks": CONV,
        "lora.alphas": dict.fromkeys(CONV, 4.0), "optimizer.name": "adamw8bit", "optimizer.learning_rate": 1e-4,
        "optimizer.text_learning_rate": 5e-5, "optimizer.betas": (0.9, 0.99), "optimizer.weight_decay": 0.05,
        "optimizer.schedule": "cosine", "optimizer.final": 0.0, "optimizer.warmup": 0.1, "training.epochs": 10.0,
        "training.steps": None, "training.batch_size": 8, "training.micro_batch": 2, "training.seed": 1234,
        "training.weighting": "min-snr", "training.min_snr_gamma": 5.0, "training.noise_offset": 0.0357,
        "training.caption_dropout": 0.05, "preview.every": 200, "output.folder": "out/inkwash",
        "output.name": "inkwash", "output.dtype": "float16",
    },
    "kohya-lycoris.toml": {
        "data.folder": "set.toml", "data.resolution": 1024, "data.buckets": True, "training.batch_size": 2,
        "lora.variant": "dora", "lora.targets": (*UNET, "conv"), "lora.rank": 16, "lora.alpha": 8.0, "lora.ranks": {},
        "lora.rank_dropout": 0.1, "optimizer.name": "prodigy", "optimizer.learning_rate": 1.0,
        "optimizer.text_learning_rate": None, "optimizer.weight_decay": 0.01, "optimizer.warmup": 0.05,
        "optimizer.schedule": "constant", "optimizer.max_norm": 0.0, "training.steps": 1600, "training.loss": "huber",
        "training.huber_threshold": 0.2, "training.input_perturbation": 0.05, "training.timestep_range": (0.0, 0.9),
    },
    "kohya-sections.toml": {
        "model.base": "stabilityai/stable-diffusion-2-1", "model.prediction_type": "v_prediction",
        "model.dtype": "float32", "lora.targets": UNET, "lora.rank": 64, "lora.alpha": 64.0, "optimizer.name": "lion",
        "optimizer.weight_decay": 0.0, "optimizer.learning_rate": 2e-4, "optimizer.schedule": "polynomial",
        "optimizer.power": 1.5, "data.tag_separator": ";", "data.tag_dropout": 0.1, "data.flip": True,
        "training.zero_terminal_snr": True, "training.multires_noise": 0.3, "training.caption_dropout": 0.0,
        "preview.prompts": ("a house --n blurry --s 20",), "output.folder": "out/old-photo",
    },
    "gui-standard.json": {
        "model.base": "C:/models/sd_xl_base_1.0.safetensors", "data.resolution": 1024, "data.upscale": False,
        "data.crops": 1, "lora.targets": (*UNET, *TEXT), "lora.rank": 32, "lora.ranks": {}, "training.epochs": 8.0,
        "optimizer.warmup": 0.1, "optimizer.weight_decay": 0.1, "optimizer.text_learning_rate": 5e-5,
        "training.seed": 12345, "training.caption_dropout": 0.1, "training.weighting": "min-snr",
        "training.gradient_checkpointing": True, "output.folder": "C:/lora/out/ink",
    },
    "gui-locon.json": {
        "data.resolution": 624, "lora.targets": (*UNET, "conv"), "lora.rank": 16, "lora.alpha": 1.0, "lora.ranks": CONV,
        "lora.alphas": dict.fromkeys(CONV, 4.0), "optimizer.name": "adafactor", "optimizer.learning_rate": 3e-4,
        "training.steps": 1200, "training.epochs": None, "training.batch_size": 6, "training.loss": "l1",
        "preview.prompts": ("a cat --n ugly --w 512", "a dog"), "preview.every": 100, "model.dtype": "float16",
    },
    "gui-prodigy.json": {
        "lora.variant": "dora", "lora.targets": (*UNET, "conv", *TEXT), "optimizer.name": "prodigy",
        "optimizer.text_learning_rate": None, "training.epochs": 20.0, "training.batch_size": 4,
        "training.micro_batch": 1, "training.weighting": "debiased", "lora.dropout": 0.1, "data.flip": True,
        "training.trackers": ("tensorboard",),
    },
    "onetrainer-old.json": {
        "model.base": "stabilityai/stable-diffusion-xl-base-1.0", "data.folder": "photos/grain", "data.flip": False,
        "data.shuffle_tags": True, "data.keep_tags": 2, "data.masks": False, "lora.targets": (*UNET, "conv"),
        "lora.rank": 16, "lora.alpha": 1.0, "optimizer.learning_rate": 2e-4, "optimizer.weight_decay": 0.02,
        "optimizer.schedule": "constant", "training.epochs": 100.0, "training.noise_offset": 0.05,
        "training.timestep_range": (0.0, 0.9), "training.average": "none", "output.dtype": "float32",
        "output.folder": "models/grain",
        "preview.prompts": ("a house --w 1024 --d 42", "a tree"), "model.dtype": "float16",
    },
    "onetrainer-new.json": {
        "data.folder": "photos", "data.resolution": 512, "data.more_resolutions": (640,), "data.tag_dropout": 0.2,
        "lora.variant": "dora", "lora.targets": (*UNET, *TEXT), "lora.alpha": 1.0, "optimizer.name": "adafactor",
        "optimizer.text_learning_rate": 1e-5, "optimizer.weight_decay": 0.0, "optimizer.warmup": 0.1,
        "optimizer.schedule": "cosine", "optimizer.final": 0.0, "training.batch_size": 4, "training.micro_batch": 2,
        "training.weighting": "min-snr", "training.min_snr_gamma": 4.0, "training.average": "ema",
        "training.ema_decay": 0.995, "training.save_every": 100, "training.checkpoint_every": 50,
    },
    "onetrainer-v.json": {
        "model.prediction_type": "v_prediction", "model.quantize": "nf4", "model.dtype": "bfloat16",
        "data.folder": "C:\\photos\\ink", "data.buckets": False, "lora.targets": (*UNET, "conv"), "lora.rank": 8,
        "lora.dropout": 0.05, "optimizer.name": "prodigy", "optimizer.betas": (0.9, 0.99), "optimizer.final": 0.2,
        "optimizer.schedule": "linear", "training.loss": "huber", "training.zero_terminal_snr": True,
    },
    "ai-toolkit-xl.yaml": {
        "model.base": "stabilityai/stable-diffusion-xl-base-1.0", "model.device": "cuda", "model.dtype": "bfloat16",
        "data.trigger": "inkwash", "data.resolution": 768, "data.more_resolutions": (1024,), "data.flip": False,
        "lora.targets": UNET, "lora.rank": 32, "lora.alpha": 16.0, "optimizer.learning_rate": 1e-4,
        "optimizer.schedule": "constant", "optimizer.warmup": 0.0, "training.steps": 2000, "training.average": "ema",
        "training.save_every": 250, "training.caption_dropout": 0.05, "preview.every": 250, "preview.guidance": 7.0,
        "preview.prompts": ("inkwash, a house by the sea", "a horse"), "output.folder": "output/ink_xl_v1",
    },
    "ai-toolkit-sd1.yaml": {
        "lora.targets": (*UNET, "conv", *TEXT), "lora.rank": 16, "lora.alpha": 8.0, "lora.ranks": CONV,
        "lora.alphas": dict.fromkeys(CONV, 4.0), "optimizer.name": "lion", "optimizer.learning_rate": 1e-4,
        "optimizer.text_learning_rate": 5e-5, "optimizer.betas": (0.9, 0.95), "optimizer.weight_decay": 0.1,
        "optimizer.schedule": "linear", "training.batch_size": 4, "training.micro_batch": 2, "training.steps": 1500,
        "training.loss": "l1", "training.timestep_range": (0.0, 0.9), "data.caption_suffixes": (".caption",),
    },
    "ai-toolkit-v.json": {
        "model.prediction_type": "v_prediction", "data.default_caption": "a picture", "data.tag_dropout": 0.1,
        "lora.rank": 4, "lora.alpha": 1.0, "optimizer.name": "prodigy", "optimizer.weight_decay": 0.0,
        "training.steps": 500, "preview.prompts": ("a cat", "a dog"), "preview.strengths": (0.0, 0.8),
    },
}  # fmt: skip
