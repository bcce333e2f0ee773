"""`sd-lora import-config`: configs as people have them, from each trainer, become ours, and nothing is left out."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from imported_runs import EXPECTED
from rows import every_row
from small_runs import write_images
from typer.testing import CliRunner

from sd_lora.commands.app import app
from sd_lora.config.other_trainers.files import flat, read_any
from sd_lora.config.other_trainers.importing import import_file
from sd_lora.config.presets import load_config
from sd_lora.config.reading import read_config
from sd_lora.errors import ConfigError

FOREIGN = Path(__file__).parent / "foreign"


def keys_of(tree: Any) -> set[str]:
    """Every name in a file, at whatever depth, that has a value."""
    if isinstance(tree, list):
        return {key for item in tree for key in keys_of(item)}
    if not isinstance(tree, dict):
        return set()
    inside = {key for key, value in tree.items() if not isinstance(value, dict | list) or not keys_of(value)}
    return inside | {key for value in tree.values() for key in keys_of(value)}


@every_row("name", EXPECTED)
def test_a_config_of_another_trainer_is_the_same_run_here(name: str, tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    done = CliRunner().invoke(app, ["import-config", str(FOREIGN / name), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.startswith(f"wrote {out}: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_config(str(out))
    values = {key: getattr(getattr(config, key.split(".")[0]), key.split(".")[1]) for key in EXPECTED[name]}
    assert values == EXPECTED[name]


@every_row("name", EXPECTED)
def test_nothing_is_left_out_without_a_line(name: str) -> None:
    made, text = import_file(FOREIGN / name), import_file(FOREIGN / name).to_toml()
    for given in flat(FOREIGN / name).given:
        assert re.search(rf"^#\s+{re.escape(given)} = ", text, re.MULTILINE), given
    skipped = {"enabled", "path", "folder_path", "is_reg", "config", "process"}  # of further folders, named with them
    missing = [key for key in keys_of(read_any(FOREIGN / name)) - skipped if not re.search(rf"\b{key}\b", text)]
    assert missing == []
    assert all(made.sources[setting] for setting in made.settings)
    assert len(re.findall(r"^\w+ = ", text, re.MULTILINE)) == len(made.settings)


def test_what_there_is_more_than_one_of_is_named() -> None:
    text = import_file(FOREIGN / "ai-toolkit-sd1.yaml").to_toml()
    assert "datasets[1] (/photos/more) = …: one folder is read" in text
    assert "datasets[2] (/photos/reg) = …: name it in data.regularisation" in text
    text = import_file(FOREIGN / "onetrainer-old.json").to_toml()
    assert "concepts[1] = …: it is switched off" in text
    assert "concepts[2] (photos/second) = …: one folder is read" in text


def test_unknown_names_defaults_and_secrets_are_marked() -> None:
    text = import_file(FOREIGN / "kohya-lycoris.toml").to_toml()
    assert "# not known as settings of kohya's scripts:\n#   my_own_setting = 3\n" in text
    assert "# flip_aug = false, kohya's default\nflip = false\n" in text
    assert "12345secret" not in import_file(FOREIGN / "gui-standard.json").to_toml()
    assert "hf_notforyou" not in import_file(FOREIGN / "onetrainer-new.json").to_toml()
    assert "no_token_padding = false" in import_file(FOREIGN / "gui-standard.json").to_toml()
    old = import_file(FOREIGN / "onetrainer-old.json").to_toml()
    assert "learning_rate_warmup_steps = 200: a share of all steps here: set optimizer.warmup to 200 / steps" in old


def test_as_json_and_printed(tmp_path: Path) -> None:
    file = FOREIGN / "kohya-flat.toml"
    printed = CliRunner().invoke(app, ["import-config", str(file)], catch_exceptions=False).stdout
    assert printed == import_file(file).to_toml()
    found = json.loads(CliRunner().invoke(app, ["import-config", str(file), "--json"], catch_exceptions=False).stdout)
    assert found["settings"]["lora.rank"] == 32
    assert found["sources"]["lora.rank"] == ["network_dim = 32"]
    assert {"name": "clip_skip", "value": "2"}.items() <= found["not_here"][5].items()
    assert found["toml"] == printed


def refusal(path: Path, *more: str) -> str:
    done = CliRunner().invoke(app, ["import-config", str(path), *more])
    assert isinstance(done.exception, ConfigError), done.output
    assert done.exception.exit_code == 2
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    out.write_text("mine")
    assert refusal(FOREIGN / "kohya-flat.toml", "--out", str(out)) == f"{out} exists; name another file"
    assert out.read_text() == "mine"
    assert "cannot be written: no such" in refusal(FOREIGN / "kohya-flat.toml", "--out", str(tmp_path / "no/a.toml"))


def kohya(**settings: Any) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in {"network_dim": 4, **settings}.items())


def job(**model: Any) -> str:
    return yaml.safe_dump({"job": "extension", "config": {"name": "a", "process": [{"model": model}]}})


@every_row(
    "name, text, said",
    [
        ("a.toml", kohya(network_module="networks.lora_flux"), "trains another family (network_module = networks"),
        ("a.toml", kohya(pretrained_model_name_or_path="black-forest-labs/FLUX.1-dev"), "trains another family (bla"),
        ("a.json", '{"LoRA_type": "Flux1", "unet_lr": 1}', "trains Flux or Stable Diffusion 3, but only configs"),
        ("a.json", '{"LoRA_type": "Standard", "sd3_checkbox": true}', "trains Flux or Stable Diffusion 3"),
        ("a.json", '{"training_method": "LORA", "model_type": "FLUX_DEV_1"}', "another family (model_type = FLUX_DEV"),
        ("a.json", '{"training_method": "LORA", "model_type": "STABLE_DIFFUSION_15_INPAINTING"}', "another family ("),
        ("a.json", '{"training_method": "EMBEDDING", "model_type": "STABLE_DIFFUSION_15"}', "no LoRA (training_method"),
        ("a.yaml", job(name_or_path="x", is_flux=True), "trains another family (model.is_flux)"),
        ("a.yaml", job(name_or_path="x", arch="wan21"), "trains another family (model.arch = wan21)"),
        ("a.toml", "[lora]\nrank = 3\n", "is a config of sd-lora already; use it with --preset"),
        ("a.toml", "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\n", "is a dataset file, which needs no import"),
        ("a.toml", "colour = 3\n", "is no config of kohya's scripts, kohya_ss, OneTrainer or ai-toolkit"),
        ("a.json", "[1]", "holds a list, and no settings"),
        ("a.yaml", "", "holds nothing, and no settings"),
        ("a.yaml", "job: a\n---\njob: b\n", "a single document in the stream, but found another document (at line 2)"),
        ("a.json", "[" * 100_000, "it is nested too deeply"),
        ("a.sh", "MODEL=x\naccelerate launch train_network.py \\\n --network_dim=8\n", "it is a command; write its"),
        ("a.bat", "python a\\train_network.py ^\n --network_dim 8\n", "write its options into a .toml file"),
        ("a.toml", kohya(unet_lr=0, text_encoder_lr=0), "is not imported: neither the UNet nor a text encoder is"),
        ("a.toml", kohya(network_train_unet_only=True, network_train_text_encoder_only=True), "neither the UNet nor a"),
        ("a.json", '{"training_method": "LORA", "unet": {"train": false}, "text_encoder": {"train": false}}',
         "neither the UNet nor a text encoder is trained"),
        ("a.yaml", job(name_or_path="x").replace("- model", "- train: {train_unet: false}\n    model"),
         "neither the UNet nor a text encoder is trained"),
        ("a.toml", 'network_dim = 4\nlearning_rate = 1e-4,\n', "line 2 ends in ',', which TOML"),
        ("a.toml", 'network_dim = 4\nlearning_rate = 0,0001\n', "line 2 has a decimal comma; write 0.0001"),
        ("a.toml", 'network_dim = 4\ntrain_data_dir = "C:\\photos\\ink"\n', "line 2 has backslashes in double quotes"),
        ("a.toml", 'train_data_dir = "C:\\train"\nnetwork_dim = 4\n', "line 1 has backslashes in double quotes"),
        ("a.toml", "xformers = True\n", "line 1 has True; write true"),
        ("a.toml", "seed = None\n", "line 1 has None, which TOML does not; remove the line"),
        ("a.toml", "output_name = ink\n", "line 1 has text without quotes; put it in quotes"),
        ("a.toml", "output_name = “ink”\n", 'line 1 has curly quotes; write "'),
        ("a.toml", "seed = 1\n--network_dim 32\n", "line 2 is an option of a command line"),
        ("a.toml", "seed: 1\n", "line 1 has a colon, as in YAML; write name = value"),
        ("a.toml", "seed = 1\nseed = 2\n", "line 2 sets what was set before"),
        ("a.json", '{"train_data_dir": "C:\\photos"}', "line 1 has a backslash, as in Windows paths"),
        ("a.json", '{\n"unet_lr": 0,0001\n}', "line 2 has a decimal comma"),
        ("a.json", '{\n"unet_lr": 1,\n}', "line 2 ends in a comma and nothing follows"),
        ("a.json", '{"xformers":\nTrue}', "cannot be read as JSON"),
        ("a.yaml", "config:\n\tprocess: 1\n", "tabs indent lines; write spaces"),
        ("a.yaml", 'config:\n  name: "C:\\photos"\n', "line 2 has backslashes in double quotes"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused_with_the_reason(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert said in refusal(tmp_path / name)


def test_a_value_of_any_length_is_named_in_short(tmp_path: Path) -> None:
    """YAML's aliases make megabytes of a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(4)]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, job(name_or_path="x")]), "utf-8")
    made = import_file(tmp_path / "a.yaml")
    assert {"a0", "a4"} <= {name for name, _ in made.unknown}
    assert len(made.to_toml()) < 10_000


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "does not exist; name a config file" in refusal(tmp_path / "no.toml")
    assert "cannot be read: is a directory" in refusal(tmp_path)
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    assert "is not text in UTF-8" in refusal(tmp_path / "a.toml")


@every_row("name", EXPECTED)
def test_given_as_a_preset_it_is_recognised(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is a config of .*; write it as one of ours with: sd-lora import-config "):
        load_config(str(FOREIGN / name))


@every_row(
    "text, said",
    [
        ("[optimizer]\nlearning_rate = 0,0001\n", "cannot be read as TOML: line 2 has a decimal comma; write 0.0001"),
        ('[data]\nfolder = "C:\\new"\n', "line 2 has backslashes in double quotes"),
        ('[data]\nfolder = "C:\\photos"\n', "line 2 has backslashes in double quotes"),
        ("[data]\nflip = True\n", "line 2 has True; write true"),
        ("[[datasets]]\n", "is a dataset file, which needs no import; give it as the FOLDER"),
    ],
)
def test_a_preset_file_that_cannot_be_read_is_answered_with_the_likely_cause(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path / "mine.toml"))
    assert said in str(caught.value)


def test_paths_that_were_written_rightly_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[data]\nfolder = \'C:\\photos\'\ncache = "C:\\\\cache"\ndefault_caption = "a\\tb"\n'
    )
    data = load_config(str(tmp_path / "mine.toml")).data
    assert (data.folder, data.cache, data.default_caption) == ("C:\\photos", "C:\\cache", "a\tb")


@pytest.mark.slow
@every_row("name", [name for name in EXPECTED if name.endswith(".json")])
def test_odd_values_are_noted_or_refused_and_never_more(name: str, tmp_path: Path) -> None:
    odd = itertools.cycle([math.inf, "", [], "\n", {"a": 1}, None, "inf", -1, [1], True, "x", 10**40, [[1]], "0,5"])
    content = json.dumps(read_any(FOREIGN / name))
    for key in sorted(keys_of(json.loads(content))):
        text = json.dumps(_replaced(json.loads(content), key, next(odd)))
        (tmp_path / "odd.json").write_text(text)
        written = ""
        with contextlib.suppress(ConfigError):
            written = import_file(tmp_path / "odd.json").to_toml()
        (tmp_path / "mine.toml").write_text(written)
        assert load_config(str(tmp_path / "mine.toml")), key


def _replaced(tree: Any, key: str, value: Any) -> Any:
    if isinstance(tree, dict):
        return {k: value if k == key else _replaced(v, key, value) for k, v in tree.items()}
    return [_replaced(item, key, value) for item in tree] if isinstance(tree, list) else tree


@pytest.mark.slow
def test_an_imported_config_trains(tmp_path: Path, random_sd_folder: Path) -> None:
    images = write_images(tmp_path / "photos")
    given = read_any(FOREIGN / "kohya-flat.toml") | {
        "pretrained_model_name_or_path": str(random_sd_folder), "train_data_dir": str(images), "max_train_epochs": 1,
        "output_dir": str(tmp_path / "out"), "resolution": "64,64", "train_batch_size": 1, "network_dim": 2,
        "gradient_accumulation_steps": 2, "optimizer_type": "AdamW", "mixed_precision": "no", "shuffle_caption": False,
    }  # fmt: skip
    del given["reg_data_dir"], given["prior_loss_weight"]
    (tmp_path / "kohya.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items()))
    invoke = CliRunner().invoke
    mine = tmp_path / "mine.toml"
    invoke(app, ["import-config", str(tmp_path / "kohya.toml"), "--out", str(mine)], catch_exceptions=False)
    quick = ("preview.inference_steps=1", "preview.strengths=1", "model.device=cpu")
    done = invoke(app, ["train", "--preset", str(mine), *quick], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    run = tmp_path / "out" / "inkwash"
    assert (run / "adapter.safetensors").is_file()
    assert read_config(run / "config.toml").training.steps == 2
