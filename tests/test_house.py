"""The house: every room of `sd_lora` is listed in pyproject with what it may import, and imports nothing else."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
HOUSE = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["house"]
ROOMS: dict[str, list[str]] = HOUSE["rooms"]
MOST_ENTRIES, MOST_ARROWS = 20, 90

Arrows = Mapping[tuple[str, str], list[str]]


@pytest.fixture(scope="module")
def graph() -> Iterator[grimp.ImportGraph]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))  # in the checkout, `webui` and `configs` lie beside the package
        yield grimp.build_graph(
            "sd_lora", "webui", "configs",
            include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None,
        )  # fmt: skip


def room_of(module: str) -> str:
    return module.split(".")[1] if module.startswith("sd_lora.") else module.split(".", maxsplit=1)[0]


def arrows(graph: grimp.ImportGraph) -> Arrows:
    """(room, room or library) -> the imports that make the arrow, as text; without those of the package's own face."""
    found = defaultdict(list)
    for module in graph.modules:
        if room_of(module) in ROOMS:
            for imported in graph.find_modules_directly_imported_by(module):
                if room_of(module) != room_of(imported) != "sd_lora":
                    found[room_of(module), room_of(imported)].append(f"{module} -> {imported}")
    return found


def forbidden(room: str, arrows: Arrows) -> list[str]:
    """The imports that break the contract of `room`."""
    allowed, libraries = ROOMS[room], HOUSE["libraries"]
    broken = []
    for (importer, imported), lines in arrows.items():
        if importer != room:
            continue
        inside = imported in ROOMS and "*" not in allowed and imported not in allowed
        outside = imported in libraries and room not in libraries[imported]
        broken += lines if inside or outside else []
    return broken


def test_every_room_is_listed() -> None:
    entries = (ROOT / "sd_lora").iterdir()
    rooms = {path.stem for path in entries if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} | {"webui", "configs"} == set(ROOMS)


def test_few_rooms_and_few_arrows(graph: grimp.ImportGraph) -> None:
    entries = [path for path in (ROOT / "sd_lora").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES
    between = [arrow for arrow in arrows(graph) if set(arrow) <= set(ROOMS)]
    assert len(between) <= MOST_ARROWS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str, graph: grimp.ImportGraph) -> None:
    assert forbidden(room, arrows(graph)) == []


@pytest.mark.parametrize("room", [room for room, allowed in ROOMS.items() if allowed != ["*"]])
def test_a_forbidden_import_breaks_the_contract(room: str, graph: grimp.ImportGraph) -> None:
    before = forbidden(room, arrows(graph))
    importer = next(module for module in sorted(graph.modules) if room_of(module) == room)
    target = "sd_lora.commands.app" if "commands" not in ROOMS[room] else "sd_lora.evaluation.style_distance"
    graph.add_import(importer=importer, imported=target)
    try:
        assert set(forbidden(room, arrows(graph))) - set(before) == {f"{importer} -> {target}"}
    finally:
        graph.remove_import(importer=importer, imported=target)


def test_no_rooms_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    below = defaultdict(set)
    for importer, imported in arrows(graph):
        if importer in ROOMS and imported in ROOMS:
            below[importer].add(imported)
    remaining = set(ROOMS)
    while ground := {room for room in remaining if not below[room] & remaining}:
        remaining -= ground
    assert not remaining, f"these rooms import each other: {', '.join(sorted(remaining))}"
