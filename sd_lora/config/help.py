"""What the settings of a run mean: the ``#:`` comments of `config`, where each is described and nowhere else."""

from __future__ import annotations

import ast
import functools
import inspect
from types import MappingProxyType

from sd_lora.config import schema as config
from sd_lora.config.schema import SECTIONS

_NONE: MappingProxyType[str, str] = MappingProxyType({})


@functools.cache
def setting_help() -> MappingProxyType[str, str]:
    """``section.key`` → its description; "" for a key whose name says all, and a section's own under ``section``."""
    try:
        source = inspect.getsource(config)
    except OSError:  # an installation without sources
        return _NONE
    lines, found = source.splitlines(), dict[str, str]()
    bodies = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    for section, kind in SECTIONS.items():
        body = bodies[kind.__name__]
        found[section] = " ".join((ast.get_docstring(body) or "").split())
        for node in body.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[f"{section}.{node.target.id}"] = _above(lines, node.lineno - 1)
    return MappingProxyType(found)


def _above(lines: list[str], number: int) -> str:
    """The ``#:`` comment that ends just above a line."""
    comment: list[str] = []
    while number and (line := lines[number - 1].strip()).startswith("#:"):
        comment.insert(0, line.removeprefix("#:").strip())
        number -= 1
    return " ".join(comment)
