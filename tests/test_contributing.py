"""CONTRIBUTING and docs/house.md describe the code as it is: the rooms are drawn from their contracts, and each file
and function that is named exists. `python tests/test_contributing.py` redraws the rooms."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from rows import every_row

ROOT = Path(__file__).parents[1]
ROOMS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["house"]["rooms"]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = {path.name: path.read_text("utf-8") for path in (CONTRIBUTING, ROOT / "docs" / "house.md")}
#: a path that may end in a function, as in `sd_lora/data/captions.py:arrange`
REFERENCE = r"`((?:sd_lora|webui|configs|tests|docs|benchmarks)/[\w./-]*|\.ci/\w+|\w+\.(?:md|toml))(?::([\w.]+))?`"


def allowed(room: str) -> set[str]:
    """The rooms that `room` may import; those above it are no choice where it may import all."""
    if ROOMS[room] != ["*"]:
        return set(ROOMS[room])
    return {other for other in ROOMS if other != room and room not in ROOMS[other]}


def floor(room: str) -> int:
    return 1 + max(map(floor, allowed(room)), default=0)


def purpose(room: str) -> str:
    """The first sentence of a room's docstring."""
    home = ROOT / "sd_lora" if room not in ("webui", "configs") else ROOT
    package, module = home / room / "__init__.py", home / f"{room}.py"
    text = ast.get_docstring(ast.parse((package if package.exists() else module).read_text("utf-8"))) or ""
    return re.split(r"(?<=\.)\s", " ".join(text.split()))[0].rstrip(".")


def drawing() -> str:
    """The rooms floor by floor, and what each may import."""
    floors = {
        number: [room for room in ROOMS if floor(room) == number] for number in range(max(map(floor, ROOMS)), 0, -1)
    }
    storeys = "\n      ▼\n".join(f"{number:>3}   {'  ·  '.join(rooms)}" for number, rooms in floors.items())
    rows = [
        f"| `{room}` | {purpose(room)} | {'all below' if ROOMS[room] == ['*'] else ', '.join(ROOMS[room]) or '–'} |"
        for rooms in floors.values()
        for room in rooms
    ]
    return "\n".join(["```", storeys, "```", "", "| room | purpose | may import |", "| --- | --- | --- |", *rows])


def with_drawing(text: str) -> str:
    return re.sub(
        r"(<!-- rooms -->\n\n).*?(\n\n<!-- end of rooms -->)", lambda m: m[1] + drawing() + m[2], text, flags=re.DOTALL
    )


def test_the_drawing_is_that_of_the_contracts() -> None:
    assert "<!-- rooms -->" in PAGES["CONTRIBUTING.md"]
    assert with_drawing(PAGES["CONTRIBUTING.md"]) == PAGES["CONTRIBUTING.md"], "run python tests/test_contributing.py"


@every_row(
    "page, path, name", [(page, *found) for page, text in PAGES.items() for found in re.findall(REFERENCE, text)]
)
def test_each_file_and_function_that_is_named_exists(page: str, path: str, name: str) -> None:
    file = ROOT / path
    assert file.exists(), f"{page} names {path}, which does not exist"
    scope: ast.AST = ast.parse(file.read_text("utf-8") if name else "")
    for part in filter(None, name.split(".")):
        inside = {getattr(node, "name", ""): node for node in ast.iter_child_nodes(scope)}
        inside |= {
            target.id: node
            for node in ast.iter_child_nodes(scope)
            for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
            if isinstance(target, ast.Name)
        }
        assert part in inside, f"{page} names {path}:{name}, which does not exist"
        scope = inside[part]


if __name__ == "__main__":
    CONTRIBUTING.write_text(with_drawing(CONTRIBUTING.read_text("utf-8")), "utf-8")
