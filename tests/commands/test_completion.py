"""Completion in the shell: the script knows every verb, option and setting, and asks no program for them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rows import every_row
from typer.testing import CliRunner

from sd_lora.commands.app import VERBS, app
from sd_lora.config.presets import preset_names


def script(shell: str) -> str:
    done = CliRunner().invoke(app, ["completion", shell], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "sd-lora.bash"
    file.write_text(script("bash"))
    return file


def completed(bash: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    ask = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _sd_lora 2>/dev/null; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", ask, "bash", bash, "sd-lora", *words], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@every_row(
    "words, offered",
    [
        (("tr",), ["train"]),
        (("",), [*VERBS]),
        (("train", "lora.rank"), ["lora.rank=", "lora.ranks=", "lora.rank_dropout="]),
        (("train", "--preset", ""), preset_names()),
        (("train", "photos", "--tri"), ["--trigger"]),
        (("presets", "s"), ["show"]),
        (("preview", "a.safetensors", "lora.r"), []),  # a preview takes settings of the base model only
        (("preview", "a.safetensors", "model.va"), ["model.vae="]),
        (("train", "--out", ""), []),  # files, which bash completes itself
        (("train", "data.folder", "=", ""), []),
    ],
)
def test_bash_completes_verbs_options_settings_and_presets(
    bash: Path, words: tuple[str, ...], offered: list[str]
) -> None:
    assert sorted(completed(bash, *words)) == sorted(offered)


def test_zsh_takes_the_script_of_bash(bash: Path) -> None:
    first, _, rest = script("zsh").partition("\n")
    assert "bashcompinit" in first
    assert rest == bash.read_text()


def test_fish_describes_every_verb_and_quotes_what_it_is_told() -> None:
    lines = script("fish").splitlines()
    for verb in VERBS:
        (line,) = [line for line in lines if f"__fish_use_subcommand -f -a {verb} " in line]
        assert re.search(r" -d '.+'$", line)
    assert all(line.replace("\\'", "").count("'") % 2 == 0 for line in lines)
    assert any("-l preset -r -f -a" in line and preset_names()[0] in line for line in lines)
    if shell := shutil.which("fish"):
        subprocess.run([shell, "--no-execute", "-c", "\n".join(lines)], check=True)


def test_an_unknown_shell_is_refused() -> None:
    done = CliRunner().invoke(app, ["completion", "fsh"])
    assert 'there is no completion for "fsh"; did you mean "fish"' in str(done.exception)
