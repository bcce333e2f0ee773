"""Kohya's scripts, their dataset TOML, musubi's, and kohya_ss, their GUI: what its settings are here."""

from __future__ import annotations

from sd_lora.config.other_trainers import kohya_layers as layers
from sd_lora.config.other_trainers import kohya_rates as rates
from sd_lora.config.other_trainers import kohya_values as v
from sd_lora.config.other_trainers import prompts
from sd_lora.config.other_trainers.optimizers import OWN_SETTINGS, optimizer
from sd_lora.config.other_trainers.row import (
    above,
    accumulated,
    batch,
    choice,
    flag,
    no,
    not_flag,
    number,
    one,
    resolution,
    some,
    suffix,
)

_IN_STEPS = "it is in steps here; sd-lora plan shows how many an epoch has"

#: what counts there where nothing is set
DEFAULTS = {
    "network_module": "networks.lora", "network_dim": 4, "network_alpha": 1, "max_train_steps": 1600,
    "lr_scheduler": "constant", "lr_warmup_steps": 0, "optimizer_type": "AdamW", "learning_rate": 2e-6,
    "caption_dropout_rate": 0, "caption_extension": ".caption", "flip_aug": False, "random_crop": False,
    "enable_bucket": False, "masked_loss": False,
}  # fmt: skip

ROWS = (
    # the base model
    one("pretrained_model_name_or_path", "model.base", str, "models/sd15.safetensors", "models/sd15.safetensors"),
    some("v_parameterization", v.v_prediction, True, {"model.prediction_type": "v_prediction"}),
    no("v2 sdxl", "the family is read from the base model itself"),
    no("model_list", "a list of the GUI; pretrained_model_name_or_path names the model"),
    some("mixed_precision", v.precision, "bf16", {"model.dtype": "bfloat16"}),
    some("fp8_base fp8_base_unet", v.fp8, True, {"model.quantize": "fp8"}, why="on CUDA devices only"),
    one("torch_compile", "training.compile", flag, "true", True),
    one("vae vae_path", "model.vae", str, "vae.safetensors", "vae.safetensors", "a file or folder on this machine"),
    no("full_fp16 full_bf16", "layers and optimizer are always float32, which costs little memory"),
    no("no_half_vae sdxl_no_half_vae", "the VAE computes in a type that it can"),
    no("clip_skip", "prompts are encoded as the base model's own pipeline does, so draw without clip skip"),
    no("tokenizer_cache_dir", "model.config names a folder with the tokenizer, if a checkpoint needs one"),
    no("base_weights base_weights_multiplier", "fuse those adapters into a base first, with sd-lora fuse"),
    # images and captions
    one("train_data_dir", "data.folder", str, "img", "img", "its folders such as 10_name are read as there"),
    one("dataset_config", "data.folder", str, "set.toml", "set.toml", "of that file, subsets are read"),
    one("reg_data_dir", "data.regularisation", str, "reg", "reg"),
    no("in_json", "name it as metadata_file in a subset of a dataset TOML, and that as data.folder"),
    no("dataset_repeats", "training.epochs says how often each image is seen"),
    some("resolution max_resolution", resolution, "768,512", {"data.resolution": 624}),
    one("enable_bucket", "data.buckets", flag, True, True),
    one("bucket_no_upscale", "data.upscale", not_flag, True, False),
    no("min_bucket_reso max_bucket_reso bucket_reso_steps",
       "a bucket has the area of data.resolution squared, and a shape that follows from the images"),
    some("random_crop", v.crops, False, {"data.crops": 1}, why="a fixed number of positions, seen in turn"),
    one("flip_aug", "data.flip", flag, False, False),
    no("color_aug face_crop_aug_range resize_interpolation", "colours, faces and filters are not varied"),
    no("skip_image_resolution", "small images are upscaled, or trained at their size with data.upscale=false"),
    one("caption_extension caption_extention", "data.caption_suffixes", suffix, "txt", [".txt"]),
    one("shuffle_caption", "data.shuffle_tags", flag, "True", True),
    some("keep_tokens", v.keep, "2", {"data.keep_tags": 2}, {"shuffle_caption": True}),
    some("caption_separator", v.separator, ";", {"data.tag_separator": ";"}, {"shuffle_caption": True}),
    no("keep_tokens_separator", "three bars are read as one anyway; write another into a subset of a dataset TOML"),
    no("caption_prefix caption_suffix class_tokens", "write it into a subset of a dataset TOML, where it is read"),
    no("secondary_separator", "each tag is one, so that tags cannot be moved together"),
    no("enable_wildcard", "several lines in a caption file are several captions, and data.syntax=read reads {a|b}"),
    above("data.tag_dropout", "caption_tag_dropout_rate", 0.1, 0.1),
    one("caption_dropout_rate", "training.caption_dropout", number, "0.05", 0.05),
    no("caption_dropout_every_n_epochs", "training.caption_dropout leaves out captions at random instead"),
    no("token_warmup_min token_warmup_step", "all tags are there from the first step"),
    no("weighted_captions", "weights such as (red:1.2) are trained as written, or with data.syntax=read left out"),
    no("max_token_length", "captions are cut at what the text encoder reads, 75 tokens, with a warning"),
    some("prior_loss_weight", v.weight, 0.5, {"data.prior_weight": 0.5}),
    one("masked_loss", "data.masks", flag, True, True,
        "masks are used wherever there are any, such as cat_mask.png beside cat.png or masks/cat.png; data.masks=false "
        "ignores them"),
    one("alpha_mask", "data.alpha", v.alpha, True, "mask"),
    some("conditioning_data_dir conditioning_image_dir", v.masks, "masks", {"data.mask_folder": "masks"}),
    no("cache_latents cache_latents_to_disk cache_text_encoder_outputs cache_text_encoder_outputs_to_disk cache_info "
       "sdxl_cache_text_encoder_outputs skip_cache_check vae_batch_size cache_directory",
       "encoded images and captions are always kept; data.cache names a folder that runs share"),
    no("video_directory video_jsonl_file target_frames frame_extraction frame_stride frame_sample max_frames "
       "source_fps", "videos are not trained"),
    no("control_directory control_resolution no_resize_control multiple_target fp_latent_window_size",
       "each image is trained alone, without a second one that steers it"),
    no("network_multiplier custom_attributes debug_dataset dataset_class", "it is not used here"),
    # the adapter
    some("network_dim", layers.rank, "32", {"lora.rank": 32}),
    some("network_alpha", layers.alpha, "16", {"lora.alpha": 16}),
    some("network_module LoRA_type", layers.module, "networks.lora",
         {"lora.targets": ["attn", "ff", "proj", "text", "text_ff"]}),
    some("network_args.conv_dim conv_dim", layers.conv_rank, "8", {
        "lora.ranks": dict.fromkeys(layers.CONV, 8), "lora.alphas": dict.fromkeys(layers.CONV, 1.0),
    }, {"lora.targets": ["conv"]}),
    some("network_args.conv_alpha conv_alpha", layers.conv_alpha, 4, {"lora.alphas": dict.fromkeys(layers.CONV, 4.0)},
         {"conv_dim": 8}),
    some("network_args.dora_wd dora_wd", layers.dora, "True", {"lora.variant": "dora"}),
    some("network_train_unet_only", layers.without_text, True, {"lora.targets": layers.UNET}),
    some("network_train_text_encoder_only", layers.text_alone, True, {"lora.targets": layers.TEXT}),
    above("lora.dropout", "network_dropout", "0.1", 0.1, "of a layer's inputs, where it is of its ranks there"),
    above("lora.rank_dropout", "network_args.rank_dropout rank_dropout", 0.1, 0.1),
    no("network_args.module_dropout module_dropout", "no layer is left out as a whole"),
    above("optimizer.max_norm", "scale_weight_norms", 1, 1),
    one("network_weights lora_network_weights", "lora.init", str, "old.safetensors", "old.safetensors",
        "its ranks, alphas and modules are used"),
    no("dim_from_weights", "ranks come from lora.init, if one is named"),
    above("optimizer.plus_ratio", "network_args.loraplus_lr_ratio loraplus_lr_ratio", 16, 16),
    no("network_args.loraplus_unet_lr_ratio loraplus_unet_lr_ratio network_args.loraplus_text_encoder_lr_ratio "
       "loraplus_text_encoder_lr_ratio", "optimizer.plus_ratio is one for all layers"),
    some("network_args.algo algo", layers.algorithm, "loha", {"lora.variant": "loha"}),
    no("network_args.preset LyCORIS_preset", "lora.targets has the modules of LyCORIS' own presets"),
    some("network_args.factor factor", layers.factor, 8, {"lora.factor": 8}),
    some("network_args.full_matrix full_matrix", layers.full_matrix, True,
         {"lora.rank": layers.MOST, "lora.alpha": layers.MOST}),
    no("network_args.block_dims network_args.block_alphas network_args.conv_block_dims network_args.conv_block_alphas "
       "block_dims block_alphas conv_block_dims conv_block_alphas conv_dims conv_alphas",
       "lora.ranks and lora.alphas give parts of the model another rank and alpha, by pattern"),
    no("network_args.down_lr_weight network_args.mid_lr_weight network_args.up_lr_weight down_lr_weight mid_lr_weight "
       "up_lr_weight block_lr_zero_threshold network_args.block_lr_zero_threshold",
       "all blocks have one learning rate; leave blocks out with patterns in lora.targets"),
    no("decompose_both network_args.decompose_both network_args.unbalanced_factorization",
       "LoKr's smaller matrix is always complete, and the smaller factor comes first"),
    no("unit constrain rescaled train_norm use_cp use_tucker use_scalar rank_dropout_scale bypass_mode train_on_input "
       "network_args.use_tucker network_args.rank_dropout_scale network_args.bypass_mode network_args.use_scalar "
       "network_args.train_norm", "what LyCORIS can vary besides is not trained"),
    # how long and how fast
    some("max_train_steps", v.steps, "1600", {"training.steps": 1600}),
    some("max_train_epochs", v.epochs, 10, {"training.epochs": 10}),
    some("epoch", v.gui_epochs, 10, {"training.epochs": 10}),
    some("train_batch_size batch_size", batch, 2, {"training.batch_size": 8, "training.micro_batch": 2},
         {"gradient_accumulation_steps": 4}),
    some("gradient_accumulation_steps", accumulated("train_batch_size", "batch_size"), "4",
         {"training.batch_size": 8, "training.micro_batch": 2}, {"train_batch_size": 2}),
    one("gradient_checkpointing", "training.gradient_checkpointing", flag, True, True),
    some("learning_rate", rates.learning_rate, "0,0001", {"optimizer.learning_rate": 0.0001}),
    some("unet_lr", rates.unet_rate, 1e-4, {"optimizer.learning_rate": 1e-4}),
    some("text_encoder_lr text_encoder_lr1", rates.text_rate, "5e-5", {"optimizer.text_learning_rate": 5e-5}),
    no("text_encoder_lr2", "the text encoders have one rate, optimizer.text_learning_rate"),
    no("stop_text_encoder_training stop_text_encoder_training_pct", "training.text_steps says after how many steps"),
    some("optimizer_type optimizer", optimizer, "Lion", {"optimizer.name": "lion", "optimizer.weight_decay": 0.0}),
    some("use_8bit_adam", lambda value, _: {"optimizer.name": "adamw8bit"} if flag(value) else {}, True,
         {"optimizer.name": "adamw8bit"}),
    some("use_lion_optimizer", lambda value, _: {"optimizer.name": "lion"} if flag(value) else {}, True,
         {"optimizer.name": "lion"}),
    one("optimizer_args.weight_decay weight_decay", "optimizer.weight_decay", number, "0.1", 0.1),
    some("optimizer_args.betas", v.betas, "0.9,0.99", {"optimizer.betas": [0.9, 0.99]}),
    no("optimizer_args.decouple", "weight decay is always decoupled from the gradient"),
    no("optimizer_args.d_coef optimizer_args.d0 optimizer_args.use_bias_correction optimizer_args.safeguard_warmup "
       "optimizer_args.growth_rate optimizer_args.eps", OWN_SETTINGS),
    no("optimizer_args.relative_step optimizer_args.scale_parameter optimizer_args.warmup_init",
       "Adafactor has the rate that optimizer.learning_rate and the schedule say"),
    above("optimizer.clip_norm", "max_grad_norm", 1, 1, "0 does not clip there; here a norm is always set"),
    some("lr_scheduler", v.scheduler, "cosine_with_restarts", {"optimizer.schedule": "cosine", "optimizer.final": 0}),
    no("lr_scheduler_num_cycles lr_decay_steps lr_scheduler_timescale lr_scheduler_type lr_scheduler_args",
       "the rate falls once, from the end of the warm-up to the last step"),
    some("lr_scheduler_power", v.power, 2, {"optimizer.power": 2}, {"lr_scheduler": "polynomial"}),
    no("lr_scheduler_min_lr_ratio", "for cosine_with_min_lr, where optimizer.final has it"),
    some("lr_warmup_steps", v.warmup, 80, {"optimizer.warmup": 0.05}, {"max_train_steps": 1600}),
    some("lr_warmup", v.percent, 10, {"optimizer.warmup": 0.1}),
    one("seed", "training.seed", number, "42", 42),
    # objectives
    some("min_snr_gamma", v.min_snr, 5, {"training.weighting": "min-snr", "training.min_snr_gamma": 5}),
    some("debiased_estimation_loss", v.debiased, True, {"training.weighting": "debiased"}),
    no("scale_v_pred_loss_like_noise_pred v_pred_like_loss",
       "the weights of training.weighting are the same for each prediction type"),
    above("training.noise_offset", "noise_offset", 0.0357, 0.0357),
    no("noise_offset_random_strength ip_noise_gamma_random_strength adaptive_noise_scale noise_offset_type",
       "the strength is the same in every step"),
    some("multires_noise_iterations", v.multires, 6, {"training.multires_noise": 0.3}, why="as many as sizes allow"),
    some("multires_noise_discount", v.discount, 0.4, {"training.multires_noise": 0.4}),
    above("training.input_perturbation", "ip_noise_gamma", 0.1, 0.1),
    some("zero_terminal_snr", v.terminal, True, {"training.zero_terminal_snr": True}),
    some("min_timestep", v.timesteps, 200, {"training.timestep_range": [0.2, 1.0]}),
    some("max_timestep", v.timesteps, 800, {"training.timestep_range": [0.0, 0.8]}),
    some("loss_type", v.loss, "huber", {"training.loss": "huber"}),
    some("huber_c", v.huber, 0.2, {"training.huber_threshold": 0.2}, {"training.loss": "huber"}),
    no("huber_schedule huber_scale", "the threshold falls exponentially with the noise, as huber_schedule=exponential"),
    # what is kept and shown
    some("output_dir", v.output_folder, "out", {"output.folder": "out/ink"}, {"output_name": "ink"},
         "a run has a folder of its own, which must not exist yet"),
    one("output_name", "output.name", str, "ink", "ink"),
    some("save_precision", choice("output.dtype", v.PRECISIONS), "fp16", {"output.dtype": "float16"}),
    above("training.save_every", "save_every_n_steps", 200, 200),
    no("save_every_n_epochs save_n_epoch_ratio", f"training.save_every keeps an adapter; {_IN_STEPS}"),
    no("save_last_n_epochs save_last_n_steps", "no adapter is deleted"),
    no("save_state save_state_on_train_end save_last_n_epochs_state save_last_n_steps_state save_state_to_huggingface",
       "checkpoints are saved every training.checkpoint_every steps"),
    no("resume resume_from_huggingface initial_epoch initial_step skip_until_initial_step",
       "sd-lora resume RUN continues a run of its own"),
    no("save_model_as", "adapters are .safetensors files"),
    no("no_metadata training_comment metadata_title metadata_author metadata_description metadata_license "
       "metadata_tags", "the metadata says what was trained, on what and how"),
    some("sample_prompts", prompts.prompts, "a cat --n blurry --ss ddim\na dog",
         {"preview.prompts": ["a cat --n blurry", "a dog"]}),
    above("preview.every", "sample_every_n_steps", 250, 250),
    no("sample_every_n_epochs", f"preview.every draws samples; {_IN_STEPS}"),
    no("sample_at_first", "each sheet has a column of the base model alone"),
    no("sample_sampler", "samples are drawn with the base model's own scheduler"),
    some("log_with", v.trackers, "wandb", {"training.trackers": ["wandb"]}),
    no("logging_dir log_prefix log_tracker_name log_tracker_config log_config wandb_api_key wandb_run_name use_wandb "
       "tensorboard console_log_level console_log_file", "log.jsonl and loss.png are in the run folder, and "
       "training.trackers sends losses elsewhere"),
    no("validation_split validation_seed validate_every_n_steps validate_every_n_epochs max_validation_steps",
       "training.hold_out and training.validate_every measure the validation loss"),
    no("huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token "
       "huggingface_repo_visibility huggingface_token_file async_upload", "nothing is uploaded"),
    # the machine
    no("xformers sdpa mem_eff_attn", "attention is computed by torch's own kernels, which need no choice"),
    no("lowram highvram lowvram mem_eff_save cpu_offload_checkpointing fused_backward_pass blocks_to_swap "
       "disable_mmap_load_safetensors", "memory is measured, and how a step is computed follows from it"),
    no("max_data_loader_n_workers persistent_data_loader_workers num_cpu_threads_per_process num_processes "
       "num_machines multi_gpu gpu_ids main_process_port extra_accelerate_launch_args dynamo_backend dynamo_mode "
       "dynamo_use_dynamic dynamo_use_fullgraph ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph deepspeed",
       "all images are encoded before the first step, and several processes are started with accelerate or torchrun"),
    no("model_prediction_type weighting_scheme timestep_sampling discrete_flow_shift guidance_scale logit_mean "
       "logit_std mode_scale apply_t5_attn_mask train_t5xxl ae split_mode split_qkv train_blocks in_dims "
       "enable_all_linear save_clip train_double_block_indices train_single_block_indices train_lora_ggpo",
       "it belongs to another family"),
    no("no_token_padding", "captions are padded as the base model's own pipeline does"),
    no("config_file output_config save_as_bool", "it is about the other trainer's files"),
    no("additional_parameters network_args optimizer_args", "what is in it is read one by one"),
)  # fmt: skip
