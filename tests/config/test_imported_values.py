"""What settings of other trainers become, alone and beside others; whatever is imported, the next command takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from imported_runs import EXPECTED
from rows import every_row
from typer.testing import CliRunner

from sd_lora.commands.app import app
from sd_lora.config.conflicts import image_conflicts
from sd_lora.config.other_trainers.importing import Imported, import_file
from sd_lora.config.other_trainers.kohya_layers import CONV
from sd_lora.config.other_trainers.optimizers import nearest
from sd_lora.config.presets import load_config
from sd_lora.config.reading import read_config
from sd_lora.data.dialects.prompts import read_prompt
from sd_lora.errors import ConfigError
from sd_lora.training.settings_check import check_settings, conflicts_on_any_base, image_facts

FOREIGN = Path(__file__).parent / "foreign"
UNET, TEXT = ["attn", "ff", "proj"], ["text", "text_ff"]
BESIDE_CONV = ["unet.*.conv_shortcut", "unet.*.time_emb_proj"]
SECOND = ["text_encoder_2.*.self_attn.*_proj", "text_encoder_2.*.mlp.fc[12]"]
NONE = {"optimizer.name": None, "optimizer.learning_rate": None, "optimizer.text_learning_rate": None}

Case = tuple[str, dict[str, Any], dict[str, Any], str]


def kohya(settings: dict[str, Any], made: dict[str, Any], line: str = "") -> Case:
    return "a.toml", {"network_module": "networks.lora", **settings}, made, line


def lycoris(arguments: str, settings: dict[str, Any], made: dict[str, Any], line: str = "") -> Case:
    return "a.toml", {"network_module": "lycoris.kohya", "network_args": arguments.split(), **settings}, made, line


def gui(settings: dict[str, Any], made: dict[str, Any], line: str = "") -> Case:
    return "a.json", {"LoRA_type": "Standard", **settings}, made, line


def onetrainer(settings: dict[str, Any], made: dict[str, Any], line: str = "") -> Case:
    base = {"training_method": "LORA", "model_type": "STABLE_DIFFUSION_15", "concepts": [{"path": "photos"}]}
    return "a.json", {**base, **settings}, made, line


def ai_toolkit(process: dict[str, Any], made: dict[str, Any], line: str = "") -> Case:
    whole = {"network": {"type": "lora", "linear": 8}, "model": {"name_or_path": "a/b"}, **process}
    return "a.yaml", {"config": {"name": "a", "process": [whole]}}, made, line


def rate(name: str, learning_rate: float | None, text: float | None = None) -> dict[str, Any]:
    return {
        "optimizer.name": name,
        "optimizer.learning_rate": learning_rate,
        "optimizer.text_learning_rate": text,
    }


#: file, its content, settings of what it becomes (None: not written), and what a line says
CASES: list[Case] = [
    # optimizers and their rates
    kohya({"optimizer_type": "CAME", "learning_rate": 1.0}, NONE, "it is a rate for CAME, which does not exist here"),
    kohya({"optimizer_type": "a.b.SGD", "unet_lr": 1.0, "text_encoder_lr": 1.0}, NONE, "there is no a.b.SGD here"),
    kohya({"optimizer_type": "prodigyopt.Prodigy", "learning_rate": 0.5}, rate("prodigy", 0.5)),
    kohya({"optimizer_type": "Prodigy", "learning_rate": 1e-4}, rate("prodigy", 1), "multiplies it by this, so that"),
    kohya({"optimizer_type": "DAdaptLion", "learning_rate": 1.0}, rate("prodigy", 1), "the nearest is prodigy"),
    kohya({"optimizer_type": "PagedAdamW32bit"}, rate("adamw", 2e-6, 2e-6), "the nearest is adamw"),
    onetrainer({"optimizer": {"optimizer": "MUON"}, "learning_rate": 1.0}, NONE, "there is no MUON here"),
    onetrainer({"optimizer": {"optimizer": "PRODIGY"}, "learning_rate": 1e-4}, rate("prodigy", 1)),
    onetrainer({"optimizer": {"optimizer": "ADAM_8BIT"}, "learning_rate": 1e-4}, rate("adamw8bit", 1e-4, 1e-4)),
    ai_toolkit({"train": {"optimizer": "prodigy8bit", "lr": 1.0}}, rate("prodigy", 1)),
    ai_toolkit({"train": {"optimizer": "prodigyopt", "lr": 1e-4}}, rate("prodigy", 1)),
    ai_toolkit({"train": {"optimizer": "automagic", "lr": 1.0}}, NONE, "there is no automagic here"),
    # parts of the model
    kohya({"unet_lr": 0, "text_encoder_lr": 1e-5}, {"lora.targets": TEXT, **rate("adamw", None, 1e-5)}),
    kohya({"unet_lr": 0, "learning_rate": 1e-5}, {"lora.targets": TEXT, **rate("adamw", None, 1e-5)}),
    kohya({"unet_lr": 0, "learning_rate": 1, "optimizer_type": "prodigy"},
          {"lora.targets": TEXT, **rate("prodigy", 1)}),
    kohya({"text_encoder_lr": [0, 1e-5]}, {"lora.targets": [*UNET, *SECOND], **rate("adamw", 2e-6, 1e-5)}),
    kohya({"text_encoder_lr": 0}, {"lora.targets": UNET, **rate("adamw", 2e-6)}, "the text encoders are not trained"),
    gui({"unet_lr": 0, "text_encoder_lr": 0, "learning_rate": 1e-3},
        {"lora.targets": [*UNET, *TEXT], **rate("adamw", 1e-3, 1e-3)}, "so that learning_rate counts"),
    gui({"text_encoder_lr": 1e-5}, {"lora.targets": TEXT, **rate("adamw", None, 1e-5)}),
    gui({"learning_rate": 1e-3, "additional_parameters": "--network_train_unet_only"}, {"lora.targets": UNET}),
    onetrainer({"unet": {"train": False}}, {"lora.targets": TEXT}),
    onetrainer({"model_type": "STABLE_DIFFUSION_XL_10_BASE", "text_encoder": {"train": False},
                "text_encoder_2": {"train": True}}, {"lora.targets": [*UNET, "conv", *SECOND]}),
    onetrainer({"unet": {"learning_rate": 0}, "learning_rate": 1e-4},
               {"lora.targets": TEXT, **rate("adamw", None, 1e-4)}),
    onetrainer({"text_encoder": {"learning_rate": 0}}, {"lora.targets": [*UNET, "conv"], **rate("adamw", 3e-6)}),
    ai_toolkit({"train": {"unet_lr": 0, "text_encoder_lr": 1e-5, "train_text_encoder": True}},
               {"lora.targets": TEXT, **rate("adamw", None, 1e-5)}),
    ai_toolkit({"train": {"text_encoder_lr": 0, "train_text_encoder": True}},
               {"lora.targets": UNET, **rate("adamw", 1e-6)}),
    # variants
    onetrainer({"peft_type": "LOHA", "lora_decompose": True}, {"lora.variant": "loha"}, "it is for LoRA, and this is"),
    onetrainer({"lora_decompose": True, "peft_type": "LORA"}, {"lora.variant": "dora"}),
    onetrainer({"peft_type": "LOKR", "lokr_dim": 4, "lora_rank": 16, "lokr_decompose_factor": 8},
               {"lora.variant": "lokr", "lora.rank": 4, "lora.factor": 8, "lora.alpha": 1}),
    onetrainer({"peft_type": "LOKR", "lokr_full_matrix": True}, {"lora.rank": 1024, "lora.alpha": 1024}),
    onetrainer({"lokr_decompose_factor": 8}, {"lora.factor": None}, "it is for LoKr"),
    lycoris("dora_wd=True algo=loha", {}, {"lora.variant": "loha"}, "lora.variant=loha has no norm of its own"),
    lycoris("algo=lokr factor=8", {}, {"lora.variant": "lokr", "lora.factor": 8}),
    lycoris("algo=lokr factor=-1", {}, {"lora.factor": None}, "two factors as equal as possible, as here"),
    lycoris("algo=lokr conv_dim=100000", {"network_dim": 100000, "network_alpha": 1},
            {"lora.rank": 1024, "lora.alpha": 1024, "lora.ranks": None, "lora.alphas": None}),
    lycoris("algo=locon factor=8", {}, {"lora.factor": None}, "it is for LoKr"),
    gui({"LoRA_type": "LyCORIS/LoKr", "factor": 8, "network_dim": 16}, {"lora.factor": 8, "lora.rank": 16}),
    ai_toolkit({"network": {"type": "lokr", "linear": 4, "lokr_factor": 8}}, {"lora.factor": 8, "lora.rank": 4}),
    ai_toolkit({"network": {"type": "lokr", "lokr_full_rank": True}},
               {"lora.rank": 1024, "lora.alpha": 1024, "lora.targets": [*UNET, "conv"]}),
    kohya({"network_dim": 2048, "network_alpha": 1024}, {"lora.rank": 1024, "lora.alpha": 512}, "rank here is 1024"),
    # LyCORIS' presets
    lycoris("preset=full", {}, {"lora.targets": [*UNET, "conv", *TEXT]}),
    lycoris("preset=full-lin conv_dim=4", {}, {"lora.targets": [*UNET, *BESIDE_CONV, *TEXT], "lora.ranks": None}),
    lycoris("preset=attn-mlp conv_dim=4 conv_alpha=1", {}, {"lora.targets": [*UNET, *TEXT], "lora.alphas": None}),
    lycoris("preset=attn-only", {}, {"lora.targets": ["attn", "text"]}),
    lycoris("preset=unet-only", {}, {"lora.targets": [*UNET, "conv"]}),
    lycoris("preset=unet-transformer-only", {}, {"lora.targets": UNET}),
    lycoris("preset=unet-convblock-only", {}, {"lora.targets": ["conv"]}),
    lycoris("preset=mine.toml", {}, {"lora.targets": [*UNET, "conv", *TEXT]}, "preset mine.toml is not known"),
    lycoris("conv_dim=0", {}, {"lora.targets": [*UNET, *BESIDE_CONV, *TEXT]}),
    lycoris("conv_dim=8", {"network_alpha": 4}, {"lora.ranks": dict.fromkeys(CONV, 8), "lora.alphas": None}),
    # what counts there where nothing is set
    kohya({}, {"lora.rank": 4, "lora.alpha": 1, "data.caption_suffixes": [".caption"], "data.masks": False}),
    kohya({"dataset_config": "a"}, {"data.caption_suffixes": None}),
    ai_toolkit({}, {"data.resolution": 512, "data.crops": 1, "lora.alpha": 1}),
    onetrainer({}, {"data.masks": False, "lora.rank": 16, "lora.alpha": 1}),
    # what cannot act beside the others
    kohya({"zero_terminal_snr": True}, {"training.zero_terminal_snr": None}, "v_parameterization is off"),
    kohya({"zero_terminal_snr": True, "v_parameterization": True, "max_timestep": 900},
          {"training.zero_terminal_snr": None, "training.timestep_range": [0, 0.9]}, "training.timestep_range ends at"),
    kohya({"zero_terminal_snr": True, "v_parameterization": True, "min_snr_gamma": 5},
          {"training.zero_terminal_snr": None, "training.weighting": "min-snr"}, "gives the end of the schedule no"),
    kohya({"network_weights": "a.safetensors", "network_args": ["dora_wd=True"]}, {"lora.variant": None}),
    lycoris("algo=loha rank_dropout=0.1", {"scale_weight_norms": 1},
            {"lora.rank_dropout": None, "optimizer.max_norm": None}, "optimizer.max_norm cannot act on lora."),
    onetrainer({"optimizer": {"optimizer": "SCHEDULE_FREE_ADAMW"}, "ema": "GPU"}, {"training.average": None}),
    onetrainer({"lora_decompose": True, "unet": {"weight_dtype": "NFLOAT_4"}},
               {"lora.variant": "dora", "model.quantize": None}, "lora.variant=dora needs the full weights"),
    onetrainer({"concepts": [{"path": "a", "text": {"tag_delimiter": ";", "tag_dropout_enable": True}}]},
               {"data.tag_separator": None, "data.keep_tags": None}, "neither data.shuffle_tags nor data.tag_dropout"),
    ai_toolkit({"train": {"max_denoising_steps": 999}}, {"training.timestep_range": None}),
    kohya({"prior_loss_weight": 0.5}, {"data.prior_weight": None}, "there are no regularisation images"),
    kohya({"prior_loss_weight": 0.5, "dataset_config": "set.toml"}, {"data.prior_weight": 0.5}),
    onetrainer({"train_device": "cuda:0"}, {"model.device": "cuda"}),
    # samples and captions
    ai_toolkit({"sample": {"prompts": ["a --w 516 --n bad --ctrl_img x.png"], "neg": "ugly"}},
               {"preview.prompts": ["a --w 512 --n bad"], "preview.negative": "ugly"}, "without --ctrl_img x.png"),
    ai_toolkit({"sample": {"samples": [{"prompt": "a", "seed": 3, "fps": 8}]}},
               {"preview.prompts": ["a --d 3"]}, "without fps"),
    kohya({"sample_prompts": "a cat --d -1 --s 2000 --ss ddim"}, {"preview.prompts": ["a cat"]},
          "without --d -1, --s 2000, --ss ddim"),
    onetrainer({"samples": [
        {"prompt": "a", "negative_prompt": "b", "width": 512, "height": 768, "seed": 42, "diffusion_steps": 20,
         "cfg_scale": 7.5, "noise_scheduler": "DDIM"},
        {"prompt": "b", "seed": 42, "random_seed": True}, {"prompt": "c", "enabled": False},
    ]}, {"preview.prompts": ["a --n b --w 512 --h 768 --d 42 --s 20 --l 7.5", "b"]},
        "without noise_scheduler, random_seed"),
    onetrainer({"samples": [{"prompt": "c", "enabled": False}]}, {"preview.prompts": None}, "samples[0] (c) = …: it"),
    onetrainer({"concepts": [{"path": "a", "text": {"prompt_source": "filename"}}]}, {"data.captions_from": "name"}),
    onetrainer({"resolution": "512x768, 512"}, {"data.resolution": 624, "data.more_resolutions": [512]}),
    onetrainer({"text_encoder": {"stop_training_after": 30}, "epochs": 30}, {"training.text_steps": None}, "to the e"),
    # the GUI's options of a command line
    gui({"optimizer": "AdamW", "network_dim": 8, "additional_parameters":
         "--optimizer_type=Prodigy --optimizer_args d_coef=2 weight_decay=0.1 --network_dim 16 --output_name 'a b'"},
        {"optimizer.name": "prodigy", "optimizer.weight_decay": 0.1, "lora.rank": 16, "output.name": "a b"},
        "optimizer = …: additional_parameters has optimizer_type"),
    gui({"additional_parameters": "--seed 3 --output_name it's"}, {"training.seed": 3, "output.name": "it's"}),
    kohya({"optimizer_type": "prodigy", "optimizer_args": ["d_coef=2"]}, {}, "Prodigy has d_coef=1"),
]  # fmt: skip


def written(folder: Path, name: str, content: dict[str, Any]) -> Path:
    file = folder / name
    if name.endswith(".toml"):
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in content.items())
    else:
        text = yaml.safe_dump(content) if name.endswith(".yaml") else json.dumps(content)
    file.write_text(text, "utf-8")
    return file


def imported(file: Path) -> Imported:
    return import_file(file, conflicts_on_any_base)


def accepted(made: Imported, folder: Path) -> None:
    """The file that is written is taken by the next command: what depends on this machine and its files is left out."""
    mine = folder / "mine.toml"
    mine.write_text(made.to_toml(), "utf-8")
    here = ["model.base=some/base", "model.vae=", "model.device=cpu", "model.dtype=auto", "model.quantize=none",
            "lora.init=", "preview.prompts_file=", "training.trackers=[]"]  # fmt: skip
    here += ["optimizer.name=adamw"] if made.settings.get("optimizer.name") == "adamw8bit" else []
    config = load_config(str(mine), *here)
    check_settings(config)
    assert image_conflicts(config.data, image_facts(config.data)) == []


@every_row("name, content, becomes, line", CASES)
def test_a_setting_becomes_what_it_is_there(
    name: str, content: dict[str, Any], becomes: dict[str, Any], line: str, tmp_path: Path
) -> None:
    made = imported(written(tmp_path, name, content))
    assert {setting: made.settings.get(setting) for setting in becomes} == becomes
    assert line in made.to_toml()
    accepted(made, tmp_path)


@every_row("name", EXPECTED)
def test_the_next_command_takes_what_was_imported(name: str, tmp_path: Path) -> None:
    accepted(imported(FOREIGN / name), tmp_path)


def test_prompts_are_written_as_they_are_read() -> None:
    for _, _, becomes, _ in CASES:
        for line in becomes.get("preview.prompts") or []:
            assert read_prompt(line).written == line.replace("--w 512 --n bad", "--n bad --w 512")


@every_row("name, known", [
    ("AdamW", "adamw"), ("bitsandbytes.optim.AdamW8bit", "adamw8bit"), ("ADAMW_8BIT", "adamw8bit"),
    ("adamw8", "adamw8bit"), ("Adam", "adamw"), ("ADAFACTOR", "adafactor"), ("Lion8bit", "lion"),
    ("PRODIGY_PLUS_SCHEDULE_FREE", "prodigy"), ("DAdaptation", "prodigy"), ("RAdamScheduleFree", "schedule-free"),
    ("SCHEDULE_FREE_ADAMW", "schedule-free"), ("SGDScheduleFree", ""), ("AdEMAMix8bit", ""), ("AdaBelief", ""),
])  # fmt: skip
def test_optimizers_are_known_by_any_spelling(name: str, known: str) -> None:
    assert nearest(name)[0] == known


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_files_as_windows_writes_them_are_read(encoding: str, tmp_path: Path) -> None:
    text = '{\r\n"LoRA_type": "Standard", "network_dim": 8,\r\n"output_name": "été"}\r\n'
    (tmp_path / "a.json").write_bytes(text.encode(encoding))
    made = imported(tmp_path / "a.json")
    assert (made.settings["lora.rank"], made.settings["output.name"]) == (8, "été")
    (tmp_path / "mine.toml").write_bytes(made.to_toml().replace("\n", "\r\n").encode(encoding))
    assert load_config(str(tmp_path / "mine.toml")).output.name == read_config(tmp_path / "mine.toml").output.name
    assert load_config(str(tmp_path / "mine.toml")).output.name == "été"


@every_row("content, said", [
    ({"network_dim": 8, "xformers": True}, " settings, and 1 line on what is not here\n"),
    ({"network_dim": 8}, " settings\n"),
    ({"network_dim": 8, "xformers": True, "x": 1}, " settings, and 2 lines on what is not here\n"),
])  # fmt: skip
def test_lines_are_counted(content: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = written(tmp_path, "a.toml", content)
    done = CliRunner().invoke(app, ["import-config", str(file), "--out", str(tmp_path / "mine.toml")])
    assert said in done.output


@pytest.mark.parametrize("command", [["import-config"], ["check", "photos", "--preset"], ["train", "--preset"]])
def test_a_dataset_file_is_the_folder(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "my set.toml").write_text("[general]\nresolution = 512\n[[datasets]]\nbatch_size = 2\n")
    done = CliRunner().invoke(app, [*command, str(tmp_path / "my set.toml")])
    assert isinstance(done.exception, ConfigError)
    assert f"give it as the FOLDER: sd-lora train '{tmp_path}/my set.toml'" in str(done.exception)
