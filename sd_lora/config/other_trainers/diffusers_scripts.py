"""Diffusers' training scripts for LoRA, accelerate, which starts them, and diffusers' pipelines: what their options are
here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sd_lora.config.other_trainers import kohya
from sd_lora.config.other_trainers import kohya_values as v
from sd_lora.config.other_trainers.row import (
    Given,
    Read,
    Row,
    above,
    choice,
    first,
    flag,
    no,
    number,
    one,
    some,
)

_ANOTHER_FAMILY = "it belongs to another family"


def _as_kohya(names: str) -> tuple[Row, ...]:
    """Rows of options that kohya's scripts have too, with the same meaning."""
    theirs = {name: row for row in kohya.ROWS for name in row.names}
    return tuple(replace(theirs[name], names=(name,)) for name in names.split())


def _on(names: str, setting: str, value: Any) -> Row:
    """A row of what is only ever switched on, and is one value of a setting here."""
    return some(names, lambda given, _: {setting: value} if flag(given) else {}, True, {setting: value})


def _betas(_: Any, given: Given) -> Read:
    return {"optimizer.betas": [number(first(given, "adam_beta1", default=0.9)),
                                number(first(given, "adam_beta2", default=0.999))]}  # fmt: skip


def _power(value: Any, given: Given) -> Read:
    return v.power(value, {"lr_scheduler": first(given, "lr_scheduler", default="polynomial")})


def _prompt(value: Any, _: Given) -> Read:
    return {"preview.prompts": [str(item) for item in (value if isinstance(value, list) else [value])]}


ROWS = (
    # the base model
    *_as_kohya("pretrained_model_name_or_path mixed_precision"),
    some("revision", lambda value, _: {"model.revision": str(value)}, "main", {"model.revision": "main"},
         {"model.base": "stabilityai/sdxl"}),
    no("variant", "files of either type are found, and model.dtype says in which type is computed"),
    one("pretrained_vae_model_name_or_path", "model.vae", str, "vae.safetensors", "vae.safetensors",
        "a file or folder on this machine"),
    some("prediction_type", choice("model.prediction_type", {"epsilon": "epsilon", "v_prediction": "v_prediction"}),
         "v_prediction", {"model.prediction_type": "v_prediction"}),
    _on("fp16", "model.dtype", "float16"),
    _on("bf16", "model.dtype", "bfloat16"),
    _on("cpu use_cpu", "model.device", "cpu"),
    _on("do_fp8_training", "model.quantize", "fp8"),
    no("bnb_quantization_config_path", "model.quantize is none, int8, fp8 or nf4"),
    no("tokenizer_name", "model.config names a folder with the tokenizer, if a checkpoint needs one"),
    # images and captions
    *_as_kohya("train_data_dir resolution prior_loss_weight cache_latents"),
    one("instance_data_dir", "data.folder", str, "photos", "photos"),
    one("class_data_dir", "data.regularisation", str, "reg", "reg"),
    one("instance_prompt", "data.default_caption", str, "a sks dog", "a sks dog", "of each image without a caption"),
    no("class_prompt num_class_images sample_batch_size prior_generation_precision",
       "regularisation images are not drawn; data.regularisation names a folder that has them"),
    no("with_prior_preservation", "data.regularisation names the folder of regularisation images"),
    no("dataset_name dataset_config_name dataset_preprocess_batch_size",
       "data sets are not downloaded; data.folder names a folder on this machine"),
    no("image_column cond_image_column", "columns of a metadata table are known by names such as file_name and image"),
    no("caption_column", "columns of a metadata table are known by names such as text and caption"),
    no("max_train_samples", "all images of data.folder are trained, but for those that training.hold_out holds out"),
    no("repeats", "training.epochs says how often each image is seen, and folders such as 10_name give repeats"),
    some("center_crop", lambda value, _: {"data.crops": 1 if flag(value) else 4}, True, {"data.crops": 1}),
    one("random_flip", "data.flip", flag, True, True, "every second exposure, in turn"),
    no("aspect_ratio_buckets", "buckets follow from the images, and data.buckets switches them off"),
    no("image_interpolation_mode interpolation_type", "filters are not varied"),
    above("training.caption_dropout", "proportion_empty_prompts", 0.1, 0.1),
    no("pre_compute_text_embeddings tokenizer_max_length text_encoder_use_attention_mask",
       "captions are encoded before the first step, as the base model's own pipeline does"),
    no("cache_dir", "base models are in the hub's own cache, and data.cache names a folder for encoded images"),
    # the adapter
    one("rank", "lora.rank", number, 16, 16),
    one("lora_alpha", "lora.alpha", number, 8, 8),
    above("lora.dropout", "lora_dropout", 0.1, 0.1),
    _on("use_dora", "lora.variant", "dora"),
    _on("train_text_encoder", "lora.targets", ["attn", "text"]),
    no("lora_layers lora_blocks lora_unet_blocks use_blora", "lora.targets says which modules have a layer"),
    no("train_text_encoder_frac train_transformer_frac", "training.text_steps says after how many steps"),
    no("token_abstraction num_new_tokens_per_abstraction initializer_concept train_text_encoder_ti enable_t5_ti "
       "train_text_encoder_ti_frac",
       "embeddings are not trained; data.trigger is the word that calls the style"),
    # how long and how fast
    *_as_kohya("train_batch_size max_train_steps gradient_accumulation_steps gradient_checkpointing learning_rate "
               "text_encoder_lr lr_scheduler lr_warmup_steps optimizer use_8bit_adam max_grad_norm seed"),
    one("num_train_epochs num_epochs", "training.epochs", number, 10, 10),
    no("scale_lr", "optimizer.learning_rate is used as it is written, whatever the batch"),
    no("lr_num_cycles", "the rate falls once, from the end of the warm-up to the last step"),
    some("lr_power", _power, 2, {"optimizer.power": 2}, {"lr_scheduler": "polynomial"}),
    some("adam_beta1", _betas, 0.8, {"optimizer.betas": [0.8, 0.999]}),
    some("adam_beta2", _betas, 0.99, {"optimizer.betas": [0.9, 0.99]}),
    one("adam_weight_decay", "optimizer.weight_decay", number, 0.1, 0.1),
    no("adam_weight_decay_text_encoder", "optimizer.weight_decay is one for all layers"),
    no("adam_epsilon prodigy_beta3 prodigy_decouple prodigy_use_bias_correction prodigy_safeguard_warmup",
       "it is the optimizer's own default here"),
    _on("use_ema", "training.average", "ema"),
    no("foreach_ema offload_ema non_ema_revision", "training.average keeps the average of the adapter, which is small"),
    # objectives
    *_as_kohya("noise_offset"),
    some("snr_gamma", v.min_snr, 5, {"training.weighting": "min-snr", "training.min_snr_gamma": 5}),
    above("training.input_perturbation", "input_perturbation", 0.1, 0.1),
    no("timestep_bias_strategy timestep_bias_multiplier timestep_bias_begin timestep_bias_end timestep_bias_portion",
       "training.timesteps, training.timestep_range and training.weighting choose noise levels"),
    no("do_edm_style_training", "noise levels are those of the base model's own schedule"),
    no("dream_training dream_detail_preservation", "the noise to learn is always what was added"),
    # what is kept and shown
    one("output_dir", "output.folder", str, "out", "out", "it must not exist yet"),
    no("output_kohya_format", "adapters are in kohya's keys, with a diffusers export beside them"),
    _on("upcast_before_saving", "output.dtype", "float32"),
    one("checkpointing_steps", "training.checkpoint_every", number, 500, 500),
    one("checkpoints_total_limit", "training.keep_checkpoints", number, 2, 2),
    no("resume_from_checkpoint", "sd-lora resume RUN continues a run of its own"),
    some("validation_prompt validation_prompts final_validation_prompt", _prompt, "a cat",
         {"preview.prompts": ["a cat"]}),
    no("num_validation_images", "each prompt is drawn once per strength in preview.strengths"),
    no("validation_epochs validation_steps", "preview.every draws samples; it is in steps here"),
    no("skip_final_inference", "samples are always drawn after the last step"),
    no("validation_images validation_image", "samples are drawn from prompts alone"),
    one("guidance_scale", "preview.guidance", number, 7.5, 7.5, "of samples"),
    one("num_inference_steps", "preview.inference_steps", number, 30, 30, "of samples"),
    one("negative_prompt", "preview.negative", str, "blurry", "blurry", "of samples"),
    some("report_to", v.trackers, "wandb", {"training.trackers": ["wandb"]}),
    no("logging_dir tracker_project_name tracker_name debug_loss",
       "log.jsonl and loss.png are in the run folder, and training.trackers sends losses elsewhere"),
    no("push_to_hub hub_token hub_model_id hub_private_repo", "nothing is uploaded"),
    # the machine
    no("enable_xformers_memory_efficient_attention enable_npu_flash_attention use_npu_flash_attention",
       "attention is computed by torch's own kernels, which need no choice"),
    no("allow_tf32", "matrices are multiplied in the type that model.dtype names"),
    no("dataloader_num_workers", "all images are encoded before the first step"),
    no("set_grads_to_none offload remote_text_encoder fsdp_text_encoder enable_model_cpu_offload use_deepspeed "
       "use_fsdp", "memory is measured, and how a step is computed follows from it"),
    no("local_rank machine_rank main_process_ip same_network rdzv_backend",
       "several processes are started with accelerate or torchrun"),
    no("class_labels_conditioning max_sequence_length text_encoder_out_layers precondition_outputs vae_encode_mode "
       "system_prompt complex_human_instruction weighting_scheme logit_mean logit_std mode_scale",
       _ANOTHER_FAMILY),
)  # fmt: skip
