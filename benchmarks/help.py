"""CPU time of ``sd-lora --help`` and of each verb's, beside that of a typer app with one command.

    python benchmarks/help.py [--rounds 15] [--json FILE]

All commands run in turn, once per round, so that the machine's load falls on each alike; the figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from measuring import cpu_seconds, machine, show

from sd_lora.commands.app import VERBS

ONE_COMMAND = """
import typer

app = typer.Typer()

@app.command()
def hello(name: str = "you") -> None:
    "Greet somebody."

app()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    facts = machine("typer", "pydantic")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "one.py"
        plain.write_text(ONE_COMMAND, "utf-8")
        ours = [sys.executable, str(Path(sys.executable).parent / "sd-lora")]
        commands = {
            "import typer": [sys.executable, "-c", "import typer"],
            "a typer app of one command": [sys.executable, str(plain), "--help"],
            "sd-lora": [*ours, "--help"],
            **{f"sd-lora {verb}": [*ours, verb, "--help"] for verb in VERBS},
        }
        for command in commands.values():  # compiled files are written, and files are in memory
            cpu_seconds(command)
        times = [{name: cpu_seconds(command) for name, command in commands.items()} for _ in range(options.rounds)]
    rows = []
    for name in commands:
        above = statistics.median(each[name] - each["a typer app of one command"] for each in times)
        rows.append({"command": name, "seconds": statistics.median(each[name] for each in times), "above": above})
    show(facts, rows, options.json)


if __name__ == "__main__":
    main()
