"""What is imported when: help, a config error and ``import sd_lora`` answer without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rows import every_row
from safetensors.numpy import save_file

import sd_lora
from sd_lora.commands.app import VERBS

#: what holds verbs, once each
VERB_MODULES = sorted({f"sd_lora.commands.{module}" for module, _ in VERBS.values()})
HEAVY = "torch diffusers transformers accelerate gradio"
LEFT = f"import sys; print('LOADED', [m for m in '{HEAVY}'.split() if m in sys.modules])"
RUN_CLI = """
import sys
import sd_lora.commands.app
sys.argv = ["sd-lora", {args}]
try:
    sd_lora.commands.app.main()
except SystemExit as exit:
    print("CODE", exit.code)
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_importing_the_package_is_light() -> None:
    assert "LOADED []" in run(f"import sd_lora, sd_lora.config.schema, sd_lora.config.presets, sd_lora.errors; {LEFT}")


def test_the_facts_of_a_family_are_read_without_torch() -> None:
    facts = (
        "print([(f.name, f.denoiser, f.text_encoders, f.target_groups, f.pipeline_classes) for f in FAMILIES.values()])"
    )
    assert "LOADED []" in run(f"from sd_lora.models.families import FAMILIES; {facts}; {LEFT}")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ('"--help"', 0, "Usage"),
        ('"train", "--help"', 0, "--trigger"),
        ('"presets"', 0, "tiny-style"),
        ('"train", "photos", "lora.rnak=3"', 2, 'did you mean "lora.rank"'),
        ('"train", "photos", "--preset", "nope"', 2, "no preset"),
    ],
)
def test_the_command_line_answers_without_torch(args: str, code: int, said: str) -> None:
    output = run(RUN_CLI.format(args=args) + LEFT)
    assert "LOADED []" in output
    assert f"CODE {code}" in output
    assert said in output


@pytest.mark.parametrize("verb", ["train", "resume", "presets", "inspect", "webui"])
def test_the_help_of_a_verb_loads_that_verb_alone(verb: str) -> None:
    loaded = f"print('LOADED', [m for m in sys.modules if m == 'pydantic' or m in {VERB_MODULES}])"
    output = run(RUN_CLI.format(args=f'"{verb}", "--help"') + loaded)
    assert f"LOADED ['sd_lora.commands.{VERBS[verb][0]}']" in output


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ('"--version"', 0, "sd-lora "),
        ('"-h"', 0, "import-config"),
        ('"train", "-h"', 0, "Usage: sd-lora train"),
        ('"trian"', 2, "Did you mean 'train'"),
        ('"train", "--version"', 2, "--version"),
        ('"presets", "show", "-h"', 0, "Usage: sd-lora presets show"),
        ("", 2, "Usage: sd-lora"),
    ],
)
def test_the_command_line_of_one_verb_answers_like_that_of_all(args: str, code: int, said: str) -> None:
    output = run(RUN_CLI.format(args=args))
    assert f"CODE {code}" in output
    assert said in output


def test_an_adapter_is_inspected_and_summarised_without_torch(tmp_path: Path) -> None:
    path, stem = tmp_path / "style.safetensors", "lora_unet_mid_block_resnets_0_conv1"
    arrays = {"lora_down.weight": np.ones((2, 6, 3, 3)), "lora_up.weight": np.ones((8, 2, 1, 1))}
    save_file({f"{stem}.{ending}": array.astype("float16") for ending, array in arrays.items()}, path)
    output = run(RUN_CLI.format(args=f'"inspect", {str(path)!r}') + LEFT)
    assert "LOADED []" in output
    assert "norm of unet.mid 41.569" in " ".join(output.split())
    output = run(f"from sd_lora.adapters.summary import read_summary; print(read_summary({str(path)!r}).rank); {LEFT}")
    assert "2\nLOADED []" in output


def test_only_the_page_imports_gradio() -> None:
    rooms = "training.run, tools.inspect, preview.previewer, commands.progress, commands.demo"
    code = f"import sys, {', '.join(f'sd_lora.{room}' for room in rooms.split(', '))}"
    assert "GRADIO False" in run(f"{code}; print('GRADIO', 'gradio' in sys.modules)")


@every_row("name", sd_lora.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(sd_lora, name) is not None


def test_public_names_are_listed_and_others_refused() -> None:
    assert dir(sd_lora) == sorted({*sd_lora._HOME, "__version__"}) == sd_lora.__all__
    with pytest.raises(AttributeError, match="no_such_thing"):
        sd_lora.no_such_thing  # noqa: B018
