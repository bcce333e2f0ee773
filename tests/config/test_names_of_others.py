"""Settings and options of other trainers that are written on our command line, and numbers as others write them: each
is answered with what to write here, and that can be written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rows import every_row
from test_other_trainers import HERE, ROWS, label

from sd_lora.config.other_trainers.row import Row
from sd_lora.config.other_trainers.table import Trainer, answer, found, likely
from sd_lora.config.presets import load_config, settings_named, suggested_option, suggested_setting
from sd_lora.config.reading import override_value, wrong_value
from sd_lora.config.schema import SECTIONS
from sd_lora.errors import ConfigError


def refusal(*settings: str, preset: str = "tiny-style") -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(preset, *settings)
    return str(caught.value)


@every_row(
    "override, said",
    [
        ("network_dim=32", "network_dim is kohya's name; here it is lora.rank: write lora.rank=32"),
        ("lora.network_dim=32", "network_dim is kohya's name; here it is lora.rank: write lora.rank=32"),
        ("training.gradient_accumulation_steps=4", "write training.batch_size=4 training.micro_batch=1"),
        ("gradient_accumulation_steps=4", "write training.batch_size=4 training.micro_batch=1"),
        ("network.linear=16", "network.linear is ai-toolkit's name; here it is lora.rank: write lora.rank=16"),
        ("train.lr=1e-4", "write optimizer.learning_rate=0.0001"),
        ("lora_rank=8", "lora_rank is OneTrainer's name; here it is lora.rank: write lora.rank=8"),
        ("unet_lr=0,0002", "write optimizer.learning_rate=0.0002"),
        ("max_train_epochs=10", "write training.epochs=10"),
        ("caption_separator=;", "write 'data.tag_separator=;'"),
        ('optimizer_type="AdamW8bit"', "write optimizer.name=adamw8bit"),
        ("optimizer_type=SGD", "cannot be used: there is no SGD here"),
        ("alpha_mask=true", "alpha_mask is kohya's name; here it is data.alpha: write data.alpha=mask"),
        ("conditioning_data_dir=m", "conditioning_data_dir is kohya's name; here it is data.mask_folder: write"),
        ("masked_loss=false", "masked_loss is kohya's name; here it is data.masks: write data.masks=false"),
        ("lr_warmup_steps=100", "set optimizer.warmup to 100 / steps, which sd-lora plan shows"),
        ("algo=loha", "algo is kohya's name; here it is lora.variant: write lora.variant=loha"),
        (
            "network_args.algo=lokr",
            "network_args.algo is kohya's name; here it is lora.variant: write lora.variant=lokr",
        ),
        ("network_args=algo=loha conv_dim=4", "here it is lora.variant: write lora.variant=loha"),
        ("algo=locon", "write lora.variant=lora"),
        ("algo=boft", "cannot be used: boft is no variant here"),
        ("learning_rate=0,0001", 'did you mean "optimizer.learning_rate=0.0001"?'),
        ("optimizer.learning_rate=0,0001", "'0,0001' was given; did you mean 0.0001?"),
        ("data.resolution=512,512", "'512,512' was given; did you mean 512?"),
        ("data.resolution=[768, 512]", "did you mean 624?"),
        ("resolution=512,512", 'did you mean "data.resolution=512"?'),
        ("lora.alpha=0,5", "did you mean 0.5?"),
        ("lora.rnak=8", 'did you mean "lora.rank"?'),
        ("rank=8", 'did you mean "lora.rank=8"'),
        ("network_args=conv_dim=4", "network_args.conv_dim is kohya's name; here it is lora.ranks and lora.alphas"),
        ("network_args=conv_dim=4", "(beside lora.targets=conv, for instance)"),
        ("network_args=conv_dim=4 conv_alpha=2", "network_args.conv_alpha is kohya's name; here it is lora.alphas: wr"),
        ("network_args=['conv_dim=4', 'conv_alpha=2']", "network_args.conv_alpha is kohya's name; here it is lora.alp"),
        ('optimizer_args=["betas=0.9,0.99","weight_decay=0.1"]', "write optimizer.weight_decay=0.1"),
        ('optimizer_args=["betas=0.9,0.99","weight_decay=0.1"]', "write optimizer.betas=0.9,0.99"),
        ("training.steps=1.000.000", "training.steps=1.000.000 may be 1000000; write it without a separator"),
        ("network_args=zzz=4", "it belongs to a kind of layers that is not trained here"),
        ("lr=1e-4", "lr is ai-toolkit's name; here it is optimizer.learning_rate: write"),
        ("training.lr=1e-4", "lr is ai-toolkit's name; here it is optimizer.learning_rate: write"),
        ("num_train_epochs=4", "num_train_epochs is diffusers' name; here it is training.epochs: write"),
        ("guidance_scale=7", "here it is preview.guidance: write preview.guidance=7"),
        ("tensorboard=true", "write training.trackers=tensorboard"),
        (
            "flip_aug",
            '"flip_aug" is not an override; flip_aug is kohya\'s name; here it is data.flip: write data.flip=tr',
        ),
        ("variant=fp16", "variant is diffusers' name for what does not exist here"),
        ("steps=abc", "here it is training.steps; training.steps should be a whole number"),
        ("max_train_steps=1,000", "cannot be used: 1,000 may be 1000 or 1; write it without a separator"),
    ],
)
def test_settings_of_others_are_answered_with_what_they_are_here(override: str, said: str) -> None:
    assert said in refusal(override)


def test_a_preset_file_with_others_names_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("network_alpha = 8\n[lora]\nrank = 4\n[training]\nmax_train_steps = 5\n[sample]\nseed = 3\n")
    said = refusal(preset=str(file))
    assert 'unknown section "network_alpha"; network_alpha is kohya\'s name; here it is lora.alpha' in said
    assert "here it is training.steps: write training.steps=5" in said
    assert "here it is preview.seed: write preview.seed=3" in said


@every_row(
    "words, said",
    [
        ("--network_dim 32", "no such option: --network_dim; network_dim is kohya's name; here it is lora.rank: write"),
        ("--network-dim=32", "write lora.rank=32"),
        ("--xformers --seed 3", "xformers is kohya's name for what does not exist here"),
        ("--network_train_unet_only --x", "here it is lora.targets"),
        ("--steps 20", 'did you mean "training.steps=20"?'),
        ("--network_args conv_dim=4 dora_wd=True lora.rank=4", "write lora.variant=dora"),
        ("--optimizer_args weight_decay=0.1 --x", "write optimizer.weight_decay=0.1"),
        ("--flip photos", 'did you mean "data.flip=true"?'),
        ("--flip_aug photos", "write data.flip=true"),
        ("--flip_aug=false photos", "write data.flip=false"),
        ("--alpha_mask", "write data.alpha=mask"),
        ("--network_train_unet_only", "write lora.targets=attn,ff,proj"),
        ("--num_epochs 4", "write training.epochs=4"),
        ("--config-path a.json", "sd-lora import-config FILE"),
        ("--batch_size 2,5", "here it is training.batch_size; training.batch_size should be a whole number"),
    ],
)
def test_options_of_others_are_answered(words: str, said: str) -> None:
    option = words.split(maxsplit=1)[0].partition("=")[0]
    assert said in suggested_option(option, words.split())


@every_row("trainer, name, row", [item for item in HERE if item[2].is_switch], label)
def test_a_switch_without_a_value_is_answered_with_a_setting_and_its_value(
    trainer: Trainer, name: str, row: Row
) -> None:
    said = suggested_option(f"--{name}", [f"--{name}", "photos"])
    if found(name) == (trainer, row) and not settings_named(name):
        assert re.search(
            r"write '?[a-z]+\.[a-z_]+=|; here it is [a-z._]+(?: and [a-z._]+)*: \w+|with True there is nothing", said
        ), said


@every_row("trainer, name, row", ROWS, label)
def test_the_last_part_of_a_name_is_enough(trainer: Trainer, name: str, row: Row) -> None:
    assert found(name)
    assert found(name.rpartition(".")[2])


@every_row(
    "setting", sorted(f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.__dataclass_fields__)
)
def test_what_is_suggested_for_a_value_can_be_its_value(setting: str) -> None:
    for value in ("2,5", "8,8", "0,5", "512,512", "1,000", "1.000", "12.500"):
        suggested = likely(setting, value)
        assert not suggested or wrong_value(setting, override_value(suggested)) == ""


@every_row("setting", ["training.steps", "lora.rank", "training.micro_batch", "data.resolution", "preview.seed"])
def test_a_whole_number_with_a_separator_of_thousands_is_refused(setting: str, tmp_path: Path) -> None:
    section, _, key = setting.partition(".")
    (tmp_path / "own.toml").write_text(f"[{section}]\n{key} = 1.000\n")
    whys = [refusal(f"{setting}=1.000"), refusal(f"{setting}=1,000"), refusal(preset=str(tmp_path / "own.toml"))]
    assert all(re.search(r"=1[.,]000 may be 1000 or 1; write it without a separator", why) for why in whys), whys
    assert refusal(f"{setting}=16.500").startswith(f"{setting}=16.500 may be 16500 or 16.5;")


def test_a_number_with_three_decimals_is_read() -> None:
    config = load_config(
        "tiny-style",
        "training.timesteps=mixed",
        "training.log_snr_mean=1.125",
        "training.epochs=1.500",
        "preview.strengths=1.250,2",
    )
    assert (config.training.log_snr_mean, config.training.epochs) == (1.125, 1.5)
    assert config.preview.strengths == (1.25, 2.0)


#: options of diffusers' scripts for LoRA of Stable Diffusion, of accelerate, and of the other trainers' commands
OPTIONS = """
pretrained_model_name_or_path pretrained_vae_model_name_or_path revision variant dataset_name dataset_config_name
train_data_dir instance_data_dir class_data_dir instance_prompt class_prompt cache_dir image_column caption_column
repeats max_train_samples validation_prompt num_validation_images validation_epochs with_prior_preservation
prior_loss_weight num_class_images sample_batch_size output_dir output_kohya_format seed resolution center_crop
random_flip image_interpolation_mode train_text_encoder train_batch_size num_train_epochs num_epochs max_train_steps
checkpointing_steps checkpoints_total_limit resume_from_checkpoint gradient_accumulation_steps gradient_checkpointing
learning_rate text_encoder_lr scale_lr lr lr_scheduler lr_warmup_steps lr_num_cycles lr_power snr_gamma
dataloader_num_workers optimizer use_8bit_adam adam_beta1 adam_beta2 adam_weight_decay adam_weight_decay_text_encoder
adam_epsilon prodigy_beta3 prodigy_decouple prodigy_use_bias_correction prodigy_safeguard_warmup max_grad_norm
push_to_hub hub_token hub_model_id logging_dir allow_tf32 report_to mixed_precision prior_generation_precision
local_rank enable_xformers_memory_efficient_attention enable_npu_flash_attention noise_offset rank lora_alpha
lora_dropout use_dora use_blora prediction_type pre_compute_text_embeddings tokenizer_max_length
text_encoder_use_attention_mask validation_images class_labels_conditioning do_edm_style_training debug_loss
cache_latents token_abstraction num_new_tokens_per_abstraction initializer_concept train_text_encoder_ti
train_text_encoder_ti_frac train_text_encoder_frac lora_unet_blocks max_sequence_length weighting_scheme
upcast_before_saving guidance_scale num_inference_steps negative_prompt fp16 bf16 cpu num_processes num_machines
machine_rank multi_gpu main_process_port config-path secrets-path callback-path command-path recover name log
"""


@every_row("option", OPTIONS.split())
def test_options_of_other_commands_are_answered(option: str) -> None:
    said = suggested_option(f"--{option}", [f"--{option}"])
    assert re.search(r"did you mean|here it is|does not exist here: ", said), said


def test_a_folder_of_masks_counts_only_where_the_loss_is_masked() -> None:
    pair = found("conditioning_data_dir")
    assert pair is not None
    assert pair[1].read("m", {"masked_loss": True})[0] == {"data.mask_folder": "m"}
    made, note = pair[1].read("m", {"masked_loss": False})
    assert made == {}
    assert note == "masks are not used there, as masked_loss is off"


def test_a_name_that_nobody_has_is_not_answered() -> None:
    assert suggested_setting("zzz", "1") == answer("zzz", 1) == suggested_option("--zzz", ["--zzz"]) == ""
