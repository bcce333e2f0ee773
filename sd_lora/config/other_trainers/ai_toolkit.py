"""ai-toolkit: what its settings are here, by their path below a process, ``datasets`` standing for the first."""

from __future__ import annotations

from sd_lora.config.other_trainers import ai_toolkit_values as t
from sd_lora.config.other_trainers import kohya_values as v
from sd_lora.config.other_trainers import prompts
from sd_lora.config.other_trainers.kohya_layers import CONV, MOST, UNET
from sd_lora.config.other_trainers.optimizers import OWN_SETTINGS, optimizer
from sd_lora.config.other_trainers.row import above, accumulated, batch, flag, no, number, one, sizes, some, suffix

DEFAULTS = {
    "network.type": "lora", "network.alpha": 1.0, "train.steps": 1000, "train.lr": 1e-6, "train.optimizer": "adamw",
    "train.lr_scheduler": "constant", "datasets.caption_dropout_rate": 0.0, "datasets.flip_x": False,
    "datasets.random_crop": False, "datasets.resolution": 512,
}  # fmt: skip
#: flags and architectures of other families
OTHER_FAMILIES = ("is_flux", "is_v3", "is_pixart", "is_auraflow", "is_lumina2", "is_ssd", "is_vega")
ARCHITECTURES = ("sd1", "sd15", "sd2", "sd", "sdxl", "sd_xl")

ROWS = (
    one("name", "output.name", str, "ink", "ink"),
    some("training_folder", t.folder, "output", {"output.folder": "output/ink"}, {"name": "ink"},
         "a run has a folder of its own, which must not exist yet"),
    some("device", t.device, "cuda:0", {"model.device": "cuda"}),
    one("trigger_word", "data.trigger", str, "inkwash", "inkwash", "it comes last in captions: in inkwash style"),
    no("type job meta.name meta.version performance_log_every sqlite_db_path log_dir logging.log_every "
       "logging.verbose", "it is about the other program"),
    some("logging.use_wandb", lambda value, _: {"training.trackers": ["wandb"]} if flag(value) else {}, True,
         {"training.trackers": ["wandb"]}),
    no("logging.project_name logging.run_name logging.use_ui_logger", "training.trackers sends losses elsewhere"),
    # the base model
    one("model.name_or_path", "model.base", str, "stabilityai/sdxl", "stabilityai/sdxl"),
    no("model.is_xl model.is_v2 model.arch", "the family is read from the base model itself"),
    some("model.is_v_pred", v.v_prediction, True, {"model.prediction_type": "v_prediction"}),
    some("model.quantize", t.quantize, True, {"model.quantize": "int8"}, why="on CUDA devices only"),
    no("model.qtype model.quantize_te model.qtype_te", "model.quantize is none, int8, fp8 or nf4, for the denoiser"),
    one("model.vae_path", "model.vae", str, "vae.safetensors", "vae.safetensors", "a file or folder on this machine"),
    no("model.refiner_name_or_path", "the base model's own parts are used"),
    no("model.low_vram model.dtype model.attn_masking model.layer_offloading model.assistant_lora_path "
       "model.use_text_encoder_1 model.use_text_encoder_2 model.model_kwargs",
       "how a step is computed follows from the memory of this machine"),
    some("train.dtype", t.dtype("model.dtype"), "bf16", {"model.dtype": "bfloat16"}),
    # the adapter
    some("network.type", t.targets, "lora", {"lora.targets": UNET}),
    some("network.linear network.rank", t.rank, 16, {"lora.rank": 16}),
    some("network.linear_alpha", t.linear_alpha, 8, {"lora.alpha": 8}),
    some("network.alpha", t.alpha, 8, {"lora.alpha": 8}),
    some("network.conv", t.conv, 8, {"lora.ranks": dict.fromkeys(CONV, 8), "lora.alphas": dict.fromkeys(CONV, 8.0)}),
    some("network.conv_alpha", t.conv_alpha, 4, {"lora.alphas": dict.fromkeys(CONV, 4.0)}, {"network.conv": 8}),
    above("lora.dropout", "network.dropout", 0.1, 0.1, "of a layer's inputs, where it is of its ranks there"),
    one("network.pretrained_lora_path", "lora.init", str, "old.safetensors", "old.safetensors"),
    some("network.lokr_factor", t.factor, 8, {"lora.factor": 8}, {"network.type": "lokr"}),
    some("network.lokr_full_rank", t.full_rank, True, {"lora.rank": MOST, "lora.alpha": MOST},
         {"network.type": "lokr"}),
    no("network.transformer_only network.old_lokr_format network.network_kwargs.only_if_contains "
       "network.network_kwargs.ignore_if_contains", "lora.targets says which modules have a layer"),
    no("train.train_unet train.train_text_encoder train.train_refiner", "lora.targets says what is trained"),
    # images and captions
    one("datasets.folder_path datasets.dataset_path", "data.folder", str, "photos", "photos"),
    one("datasets.caption_ext datasets.caption_type", "data.caption_suffixes", suffix, "txt", [".txt"]),
    one("datasets.default_caption", "data.default_caption", str, "a picture", "a picture"),
    one("datasets.caption_dropout_rate", "training.caption_dropout", number, 0.05, 0.05),
    one("datasets.shuffle_tokens", "data.shuffle_tags", flag, True, True),
    some("datasets.token_dropout_rate", t.tag_dropout, 0.1, {"data.tag_dropout": 0.1}),
    some("datasets.resolution", sizes, [512, 768], {"data.resolution": 512, "data.more_resolutions": [768]}),
    one("datasets.buckets", "data.buckets", flag, True, True),
    one("datasets.flip_x", "data.flip", flag, True, True),
    some("datasets.random_crop", t.crops, False, {"data.crops": 1}),
    no("datasets.flip_y", "pictures are mirrored left to right only"),
    one("datasets.mask_path", "data.mask_folder", str, "masks", "masks"),
    one("datasets.alpha_mask", "data.alpha", v.alpha, True, "mask"),
    no("datasets.mask_min_value", "what a mask leaves out is not learned at all"),
    no("datasets.cache_latents datasets.cache_latents_to_disk datasets.cache_text_embeddings "
       "train.cache_text_embeddings",
       "encoded images and captions are always kept; data.cache names a folder that runs share"),
    no("datasets.is_reg datasets.prior_reg", "name the folder of regularisation images in data.regularisation"),
    no("datasets.num_repeats", "folders such as 10_name give repeats"),
    no("datasets.type datasets.network_weight datasets.random_scale datasets.scale datasets.bucket_tolerance "
       "datasets.augments datasets.augmentations datasets.shuffle_augmentations datasets.control_path "
       "datasets.control_path_1 datasets.control_path_2 datasets.control_path_3 datasets.poi datasets.random_triggers "
       "datasets.keep_tokens datasets.num_frames datasets.shrink_video_to_frames datasets.do_i2v datasets.fps "
       "datasets.loss_multiplier datasets.square_crop", "images are only cropped and mirrored"),
    # how long and how fast
    one("train.steps", "training.steps", number, 2000, 2000),
    some("train.batch_size", batch, 1, {"training.batch_size": 4, "training.micro_batch": 1},
         {"train.gradient_accumulation_steps": 4}),
    some("train.gradient_accumulation_steps train.gradient_accumulation", accumulated("train.batch_size"), 4,
         {"training.batch_size": 8, "training.micro_batch": 2}, {"train.batch_size": 2}),
    one("train.gradient_checkpointing", "training.gradient_checkpointing", flag, True, True),
    some("train.lr", t.rate, 1e-4, {"optimizer.learning_rate": 1e-4}),
    some("train.unet_lr", t.unet_rate, 1e-4, {"optimizer.learning_rate": 1e-4}),
    some("train.text_encoder_lr", t.text_rate, 1e-5, {"optimizer.text_learning_rate": 1e-5}),
    some("train.optimizer", optimizer, "adamw8bit", {"optimizer.name": "adamw8bit"}),
    one("train.optimizer_params.weight_decay", "optimizer.weight_decay", number, 1e-4, 1e-4),
    some("train.optimizer_params.betas", v.betas, [0.9, 0.99], {"optimizer.betas": [0.9, 0.99]}),
    some("train.lr_scheduler", t.schedule, "cosine", {"optimizer.schedule": "cosine", "optimizer.final": 0,
         "optimizer.warmup": 0}),
    above("optimizer.clip_norm", "train.max_grad_norm", 1.0, 1),
    some("train.ema_config.use_ema", t.ema, True, {"training.average": "ema"}),
    some("train.ema_config.ema_decay", t.decay, 0.99, {"training.ema_decay": 0.99}, {"training.average": "ema"}),
    one("train.seed", "training.seed", number, 42, 42),
    # objectives
    some("train.min_snr_gamma train.snr_gamma", v.min_snr, 5,
         {"training.weighting": "min-snr", "training.min_snr_gamma": 5}),
    above("training.noise_offset", "train.noise_offset", 0.05, 0.05),
    some("train.loss_type", v.loss, "mae", {"training.loss": "l1"}),
    some("train.min_denoising_steps", v.timesteps, 200, {"training.timestep_range": [0.2, 1.0]}),
    some("train.max_denoising_steps", v.timesteps, 800, {"training.timestep_range": [0.0, 0.8]}),
    no("train.noise_scheduler", "the base model itself says how noise is added"),
    no("train.content_or_style train.linear_timesteps train.timestep_type train.timestep_bias_exponent "
       "train.weight_jitter train.noise_multiplier train.img_multiplier train.loss_target "
       "train.bypass_guidance_embedding train.do_cfg train.cfg_scale",
       "training.timesteps and training.weighting choose noise levels"),
    no("train.skip_first_sample train.force_first_sample train.disable_sampling", "preview.every says when samples are "
       "drawn, and the last step always draws them"),
    no("train.xformers train.sdp train.unload_text_encoder train.single_item_batching train.start_step "
       "train.merge_network_on_save train.switch_boundary_every", "how a step is computed follows from the memory of "
       "this machine"),
    no("train.inverted_mask_prior train.inverted_mask_prior_multiplier train.reg_weight train.diff_output_preservation "
       "train.diff_output_preservation_multiplier train.diff_output_preservation_class train.short_and_long_captions "
       "train.blank_prompt_preservation train.blank_prompt_preservation_multiplier",
       "data.regularisation and masks are what keeps the base model as it is"),
    # what is kept and shown
    some("save.dtype", t.dtype("output.dtype"), "float16", {"output.dtype": "float16"}),
    above("training.save_every", "save.save_every", 250, 250),
    no("save.max_step_saves_to_keep save.save_format", "no adapter is deleted, and all are .safetensors files"),
    no("save.push_to_hub save.hf_repo_id save.hf_private", "nothing is uploaded"),
    above("preview.every", "sample.sample_every", 250, 250),
    some("sample.prompts", prompts.ai_toolkit, ["[trigger], a cat --d 1"],
         {"preview.prompts": ["inkwash, a cat --d 1"]}, {"trigger_word": "inkwash"}),
    some("sample.samples", prompts.ai_toolkit, [{"prompt": "a cat", "seed": 3}], {"preview.prompts": ["a cat --d 3"]}),
    some("sample.neg", t.negative, "ugly", {"preview.negative": "ugly"}),
    one("sample.seed", "preview.seed", number, 42, 42),
    one("sample.guidance_scale", "preview.guidance", number, 4, 4),
    one("sample.sample_steps", "preview.inference_steps", number, 20, 20),
    some("sample.network_multiplier", t.strength, 0.8, {"preview.strengths": [0.0, 0.8]}),
    no("sample.sampler sample.width sample.height sample.walk_seed sample.format sample.guidance_rescale "
       "sample.sample_start_step sample.fps sample.num_frames sample.adapter_conditioning_scale",
       "samples are drawn at the size that is trained, with the base model's own scheduler"),
)  # fmt: skip
#: parts of the file that have no like here, whatever is in them
NOT_READ = {
    "train.lr_scheduler_params.": "the rate falls once, from the end of the warm-up to the last step",
    "train.optimizer_params.": OWN_SETTINGS, "meta.": "it is about the other program",
    "network.network_kwargs.": "lora.targets says which modules have a layer",
    "embedding.": "embeddings are not trained",
    "adapter.": "other kinds of adapters are not trained", "slider.": "sliders are not trained",
}  # fmt: skip
