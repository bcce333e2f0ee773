"""The README's code blocks: the two commands come first, every Python block is Python, every setting exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from sd_lora.commands.app import app
from sd_lora.config.reading import parse_config

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str = "[a-z]*") -> list[str]:
    text = README.read_text("utf-8") if README.exists() else ""
    if not text.strip():
        pytest.skip("README.md is still empty")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """All commands of the README that call sd-lora, as words."""
    lines = "\n".join(blocks()).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("sd-lora ")]


def test_the_first_two_shell_blocks_run_the_main_job_and_the_tests() -> None:
    main_job, tests = blocks("sh")[:2]
    assert "pip install" in main_job
    assert "sd-lora demo" in main_job
    assert "pip install" in tests
    assert "pytest" in tests


def test_every_python_block_compiles() -> None:
    for number, block in enumerate(blocks("python"), 1):
        compile(block, f"README.md, Python block {number}", "exec")


def test_every_command_and_option_in_the_readme_exists() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert commands()
    for _, name, *words in commands():
        assert name in known
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_every_setting_in_the_readme_exists() -> None:
    settings = [word for words in commands() for word in words if re.match(r"[a-z]+\.[a-z_]+=", word)]
    assert settings
    parse_config([], settings)
