"""What the settings of a run mean: the texts under them in `schema`, where each is described and nowhere else.

Pydantic's `use_attribute_docstrings` reads them as well, but while the module is imported, which all commands would pay
for, and it forgets some where validators are built late.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
from types import MappingProxyType

from sd_lora.config import schema


@functools.cache
def setting_help() -> MappingProxyType[str, str]:
    """``section.key`` → its description; "" for a key whose name says all, and a section's own under ``section``."""
    try:
        classes = [node for node in ast.parse(inspect.getsource(schema)).body if isinstance(node, ast.ClassDef)]
    except OSError:  # an installation without sources
        return MappingProxyType({})
    sections, texts = {kind.__name__: section for section, kind in schema.SECTIONS.items()}, dict[str, str]()
    for body in (node for node in classes if node.name in sections):
        section = sections[body.name]
        texts[section] = ast.get_docstring(body) or ""
        for item, following in itertools.pairwise([*body.body, ast.Pass()]):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                text = ast.literal_eval(following.value) if isinstance(following, ast.Expr) else ""
                texts[f"{section}.{item.target.id}"] = text
    return MappingProxyType({key: " ".join(text.split()) for key, text in texts.items()})
