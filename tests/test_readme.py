"""The README's code blocks: the two commands come first, and every Python block is Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    text = README.read_text("utf-8") if README.exists() else ""
    if not text.strip():
        pytest.skip("README.md is still empty")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_first_two_shell_blocks_install_and_run() -> None:
    shell = blocks("sh")
    assert len(shell) >= 2
    assert "pip install" in shell[0] or "uv " in shell[0]
    assert "sd-lora" in shell[1]


def test_every_python_block_compiles() -> None:
    for number, block in enumerate(blocks("python"), 1):
        compile(block, f"README.md, Python block {number}", "exec")


def test_every_command_in_the_readme_exists() -> None:
    import typer

    from sd_lora.cli import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    used = {word for block in blocks("sh") for word in re.findall(r"^\s*sd-lora ([a-z]+)", block, re.MULTILINE)}
    assert used <= known
