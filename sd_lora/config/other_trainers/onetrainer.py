"""OneTrainer: what its settings are here. Those of a part have its name and a dot before them, and those of the first
concept ``concepts.``."""

from __future__ import annotations

from sd_lora.config.other_trainers import onetrainer_values as v
from sd_lora.config.other_trainers import prompts
from sd_lora.config.other_trainers.kohya_layers import MOST, TEXT, UNET
from sd_lora.config.other_trainers.optimizers import OWN_SETTINGS, optimizer
from sd_lora.config.other_trainers.row import (
    above,
    accumulated,
    batch,
    choice,
    flag,
    is_off,
    no,
    number,
    one,
    sizes,
    some,
)

#: models that can be trained here
MODELS = frozenset({
    "STABLE_DIFFUSION_15", "STABLE_DIFFUSION_20", "STABLE_DIFFUSION_20_BASE", "STABLE_DIFFUSION_21",
    "STABLE_DIFFUSION_21_BASE", "STABLE_DIFFUSION_XL_10_BASE",
})  # fmt: skip
DEFAULTS = {
    "lora_alpha": 1.0, "lora_rank": 16, "learning_rate_scheduler": "CONSTANT", "learning_rate_warmup_steps": 200,
    "epochs": 100, "optimizer.optimizer": "ADAMW", "layer_filter_preset": "full", "concepts.text.keep_tags_count": 1,
    "text_encoder.dropout_probability": 0.0, "learning_rate": 3e-6, "resolution": "512",
    "masked_training": False,
}  # fmt: skip
ROWS = (
    one("base_model_name", "model.base", str, "runwayml/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
    no("model_type training_method", "the family is read from the base model itself, and a LoRA is trained"),
    no("extra_model_name", "the base model's own parts are used"),
    one("vae.model_name", "model.vae", str, "vae.safetensors", "vae.safetensors", "a file or folder on this machine"),
    some("force_v_prediction", v.prediction("v_prediction"), True, {"model.prediction_type": "v_prediction"}),
    some("force_epsilon_prediction", v.prediction("epsilon"), True, {"model.prediction_type": "epsilon"}),
    some("train_dtype", choice("model.dtype", v.DTYPES), "BFLOAT_16", {"model.dtype": "bfloat16"}),
    some("output_dtype", choice("output.dtype", v.DTYPES), "FLOAT_16", {"output.dtype": "float16"}),
    some("unet.weight_dtype unet_weight_dtype", v.quantized, "NFLOAT_4", {"model.quantize": "nf4"}),
    no("weight_dtype text_encoder.weight_dtype text_encoder_weight_dtype text_encoder_2.weight_dtype "
       "text_encoder_2_weight_dtype vae.weight_dtype vae_weight_dtype lora_weight_dtype fallback_train_dtype",
       "model.dtype is one for all parts, and layers are always float32"),
    # images and captions
    one("concepts.path", "data.folder", str, "photos", "photos", "everything below it is read"),
    no("concept_file_name", "its first concept is read as data.folder, if that file is there"),
    no("concepts.name concepts.seed concepts.enabled concepts.include_subdirectories concepts.image_variations "
       "concepts.text_variations concepts.validation_concept concepts.balancing concepts.balancing_strategy "
       "concepts.repeats concepts.loss_weight", "a folder is read with all below it; folders such as 10_name give "
       "repeats"),
    some("resolution", sizes, "512,768", {"data.resolution": 512, "data.more_resolutions": [768]}),
    one("aspect_ratio_bucketing", "data.buckets", flag, False, False),
    one("masked_training", "data.masks", flag, False, False),
    no("unmasked_probability unmasked_weight normalize_masked_area_loss masked_prior_preservation_weight "
       "custom_conditioning_image", "what a mask leaves out is not learned at all"),
    one("concepts.image.enable_random_flip", "data.flip", flag, False, False, "every second exposure, in turn"),
    some("concepts.image.enable_crop_jitter", lambda value, _: {"data.crops": 4 if flag(value) else 1}, False,
         {"data.crops": 1}),
    one("concepts.text.enable_tag_shuffling", "data.shuffle_tags", flag, True, True),
    some("concepts.text.tag_delimiter", v.separator, ";", {"data.tag_separator": ";"},
         {"concepts.text.enable_tag_shuffling": True}),
    some("concepts.text.keep_tags_count", v.keep, 2, {"data.keep_tags": 2},
         {"concepts.text.enable_tag_shuffling": True}),
    some("concepts.text.tag_dropout_probability", v.tag_dropout, 0.1, {"data.tag_dropout": 0.1}),
    no("concepts.text.tag_dropout_enable concepts.text.tag_dropout_mode", "data.tag_dropout says it"),
    some("concepts.text.prompt_source", v.captions, "filename", {"data.captions_from": "name"}),
    no("concepts.text.prompt_path", "captions are read beside the images or from a table"),
    some("text_encoder.dropout_probability", lambda value, _: {
        "training.caption_dropout": number(value)}, 0.05, {"training.caption_dropout": 0.05}),
    no("latent_caching latent_caching_epochs image_caching text_caching cache_dir clear_cache_before_training "
       "only_cache", "encoded images and captions are always kept; data.cache names a folder that runs share"),
    # the adapter
    some("lora_rank", v.rank, 32, {"lora.rank": 32}),
    some("lora_alpha", v.alpha, 1.0, {"lora.alpha": 1}),
    some("lora_decompose", v.decompose, True, {"lora.variant": "dora"}),
    no("lora_decompose_norm_epsilon lora_decompose_output_axis", "DoRA's norm is as its paper has it"),
    some("peft_type", v.variant, "LOHA", {"lora.variant": "loha"}),
    some("lokr_dim", v.lokr_rank, 8, {"lora.rank": 8}, {"peft_type": "LOKR"}),
    some("lokr_decompose_factor lokr_factor", v.factor, 8, {"lora.factor": 8}, {"peft_type": "LOKR"}),
    some("lokr_full_matrix", v.full_matrix, True, {"lora.rank": MOST, "lora.alpha": MOST}, {"peft_type": "LOKR"}),
    some("layer_filter_preset", v.targets, "attn-mlp", {"lora.targets": UNET}),
    no("layer_filter layer_filter_regex", "lora.targets has groups and patterns"),
    some("text_encoder.train train_text_encoder", v.text, True, {"lora.targets": [*UNET, *TEXT]}),
    no("text_encoder_2.train train_text_encoder_2 unet.train train_unet", "lora.targets says what is trained"),
    some("text_encoder.stop_training_after", v.text_stop, 500, {"training.text_steps": 500},
         {"text_encoder.stop_training_after_unit": "STEP"}),
    no("text_encoder.stop_training_after_unit train_text_encoder_epochs "
       "text_encoder_2.stop_training_after text_encoder_2.stop_training_after_unit train_text_encoder_2_epochs",
       "training.text_steps says after how many steps"),
    no("unet.stop_training_after unet.stop_training_after_unit train_unet_epochs", "the UNet is trained to the end"),
    no("text_encoder_layer_skip text_encoder_2_layer_skip",
       "prompts are encoded as the base model's own pipeline does"),
    above("lora.dropout", "dropout_probability", 0.1, 0.1),
    one("lora_model_name", "lora.init", str, "old.safetensors", "old.safetensors"),
    # how long and how fast
    one("epochs", "training.epochs", number, 10, 10),
    some("batch_size", batch, 4, {"training.batch_size": 4}),
    some("gradient_accumulation_steps", accumulated("batch_size"), 2,
         {"training.batch_size": 8, "training.micro_batch": 4}, {"batch_size": 4}),
    some("learning_rate", v.rate, 3e-4, {"optimizer.learning_rate": 3e-4}),
    some("unet.learning_rate unet_learning_rate", v.unet_rate, 3e-4, {"optimizer.learning_rate": 3e-4}),
    some("text_encoder.learning_rate text_encoder_learning_rate", v.text_rate, 1e-5,
         {"optimizer.text_learning_rate": 1e-5}),
    no("text_encoder_2.learning_rate text_encoder_2_learning_rate", "the text encoders have one rate"),
    some("optimizer.optimizer optimizer", optimizer, "PRODIGY",
         {"optimizer.name": "prodigy", "optimizer.weight_decay": 0.0}),
    one("optimizer.weight_decay weight_decay", "optimizer.weight_decay", number, 0.1, 0.1),
    some("optimizer.beta1", v.betas, 0.8, {"optimizer.betas": [0.8, 0.999]}),
    some("optimizer.beta2", v.betas, 0.99, {"optimizer.betas": [0.9, 0.99]}),
    some("learning_rate_scheduler", v.schedule, "COSINE", {"optimizer.schedule": "cosine", "optimizer.final": 0}),
    no("learning_rate_cycles custom_learning_rate_scheduler scheduler_params learning_rate_min_factor "
       "learning_rate_scaler", "the rate falls once, to optimizer.final"),
    some("learning_rate_warmup_steps", v.warmup, 0.1, {"optimizer.warmup": 0.1}),
    above("optimizer.clip_norm", "clip_grad_norm", 1.0, 1),
    some("ema", v.ema, "GPU", {"training.average": "ema"}),
    some("ema_decay", v.decay, 0.999, {"training.ema_decay": 0.999}, {"training.average": "ema"}),
    no("ema_update_step_interval", "the average is updated in every step"),
    one("gradient_checkpointing", "training.gradient_checkpointing", lambda value: not is_off(value), "ON", True),
    # objectives
    some("loss_weight_fn", v.weighting, "DEBIASED_ESTIMATION", {"training.weighting": "debiased"}),
    no("loss_weight_strength", "training.min_snr_gamma has it, for min-SNR"),
    some("mse_strength mae_strength huber_strength", v.loss, 1.0, {"training.loss": "l1"},
         {"mae_strength": 2.0, "mse_strength": 0, "huber_strength": 0}),
    no("huber_delta log_cosh_strength vb_loss_strength loss_scaler", "losses are l2, l1 and pseudo-Huber"),
    above("training.noise_offset", "offset_noise_weight", 0.05, 0.05),
    above("training.input_perturbation", "perturbation_noise_weight", 0.1, 0.1),
    some("rescale_noise_scheduler_to_zero_terminal_snr", v.terminal, True, {"training.zero_terminal_snr": True}),
    some("min_noising_strength", v.range, 0.2, {"training.timestep_range": [0.2, 1.0]}),
    some("max_noising_strength", v.range, 0.8, {"training.timestep_range": [0.0, 0.8]}),
    some("timestep_distribution", choice("training.timesteps", {"uniform": "uniform"}), "UNIFORM",
         {"training.timesteps": "uniform"}),
    no("noising_weight noising_bias timestep_shift dynamic_timestep_shifting generalized_offset_noise",
       "training.timesteps is uniform or mixed"),
    # what is kept and shown
    some("output_model_destination", v.destination, "models/ink.safetensors",
         {"output.folder": "models/ink", "output.name": "ink"}),
    no("output_model_format", "adapters are .safetensors files in kohya's keys, with a diffusers export beside them"),
    no("workspace_dir debug_mode debug_dir include_train_config continue_last_backup prevent_overwrites "
       "save_filename_prefix rolling_backup rolling_backup_count backup_before_save save_skip_first",
       "a run has one folder, output.folder, with all that it writes"),
    some("save_every save_after", v.every("training.save_every", "save_every_unit"), 200, {"training.save_every": 200}),
    some("backup_after", v.every("training.checkpoint_every", "backup_after_unit"), 50,
         {"training.checkpoint_every": 50}),
    some("sample_after", v.every("preview.every", "sample_after_unit"), 100, {"preview.every": 100}),
    no("save_every_unit save_after_unit backup_after_unit sample_after_unit", "all is counted in steps"),
    no("sample_definition_file_name", "its prompts are read as preview.prompts, if that file is there"),
    some("samples", prompts.samples, [{"prompt": "a cat", "negative_prompt": "bad", "width": 512, "seed": 42}],
         {"preview.prompts": ["a cat --n bad --w 512 --d 42"]}),
    no("sample_skip_first sample_image_format samples_to_tensorboard non_ema_sampling",
       "preview.* says what is drawn"),
    some("tensorboard", lambda value, _: {"training.trackers": ["tensorboard"]} if flag(value) else {}, True,
         {"training.trackers": ["tensorboard"]}),
    no("tensorboard_expose tensorboard_always_on tensorboard_port", "log.jsonl and loss.png are in the run folder"),
    no("validation validate_after validate_after_unit",
       "training.hold_out and training.validate_every measure the validation loss"),
    one("train_device", "model.device", lambda value: str(value).partition(":")[0], "cuda:0", "cuda"),
    no("temp_device attention_mechanism dataloader_threads caching_threads prefetch_next_batch multi_gpu "
       "device_indexes async_offloading enable_autocast_cache enable_async_offloading enable_activation_offloading "
       "layer_offload_fraction gradient_reduce_precision fused_gradient_reduce async_gradient_reduce "
       "async_gradient_reduce_buffer", "how a step is computed follows from the memory of this machine"),
    one("compile", "training.compile", flag, True, True),
    no("force_circular_padding circular_mask_generation random_rotate_and_crop frames",
       "images are only cropped and mirrored"),
    no("token_count initial_embedding_text embedding_weight_dtype embedding_learning_rate preserve_embedding_norm "
       "embedding_model_name train_embedding additional_embeddings bundle_additional_embeddings",
       "embeddings are not trained"),
)  # fmt: skip
#: parts of the file that have no like here, whatever is in them
NOT_READ = {
    "prior.": "that part belongs to another family", "transformer.": "that part belongs to another family",
    "text_encoder_3.": "that part belongs to another family", "text_encoder_4.": "that part belongs to another family",
    "effnet_encoder.": "that part belongs to another family", "decoder": "that part belongs to another family",
    "unconditional_transformer.": "that part belongs to another family",
    "embedding.": "embeddings are not trained", "cloud.": "a run is on this machine", "secrets.": "a run is on this "
    "machine", "optimizer_defaults.": "only the chosen optimizer counts", "optimizer.": OWN_SETTINGS,
    "concepts.image.": "images are only cropped and mirrored",
    "concepts.text.": "captions are used as they are written",
    "concepts.concept_stats.": "statistics of that program", "oft_": "there is no OFT here",
    "lokr_": "LoKr's smaller matrix is always complete, without a core, and its norm is not split off",
    "quantization.": "model.quantize chooses the type for all linear layers",
    "vae.": "the VAE is not trained", "unet.": "lora.targets says what is trained", "text_encoder": "lora.targets says "
    "what is trained", "__version": "the version of that file",
}  # fmt: skip
