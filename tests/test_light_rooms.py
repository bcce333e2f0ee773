"""Listing a folder, editing a caption, reading a recipe, a header or a run's state loads no torch: which modules are
light follows from the import graph, and every module of the package is light unless it is named here as heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import grimp

#: what loads torch, or takes seconds to import
SLOW = {"torch", "diffusers", "transformers", "accelerate", "gradio", "torchao", "bitsandbytes", "peft"}
#: rooms and modules whose work is on tensors; a name stands for all below it
HEAVY = {
    "sd_lora.adapters.adapter",
    "sd_lora.adapters.fit",
    "sd_lora.adapters.writing",
    "sd_lora.adapters.strengths",
    "sd_lora.check.cost",
    "sd_lora.check.doctor",
    "sd_lora.data.encoded",
    "sd_lora.evaluation",
    "sd_lora.lora",
    "sd_lora.models.captioner",
    "sd_lora.models.checkpoint.file",
    "sd_lora.models.checkpoint.filling",
    "sd_lora.models.families.pipeline_folder",
    "sd_lora.models.checkpoint.vae",
    "sd_lora.models.device",
    "sd_lora.models.fast.attention",
    "sd_lora.models.fast.convolution",
    "sd_lora.models.fast.linear",
    "sd_lora.models.fast.products",
    "sd_lora.models.fast.ways",
    "sd_lora.models.losses",
    "sd_lora.models.noise",
    "sd_lora.models.objectives",
    "sd_lora.models.opening",
    "sd_lora.models.quantize",
    "sd_lora.models.shift",
    "sd_lora.models.timesteps",
    "sd_lora.preview.batches",
    "sd_lora.preview.caches",
    "sd_lora.preview.painter",
    "sd_lora.preview.previewer",
    "sd_lora.preview.reading",
    "sd_lora.preview.service",
    "sd_lora.preview.ticket",
    "sd_lora.tinybase",
    "sd_lora.tools",
    "sd_lora.training",
}


def runs_at_import(path: Path) -> set[int]:
    """The lines of the imports that run when the module itself is imported, not when a function of it is called."""
    lines: set[int] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines.add(node.lineno)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return lines


@cache
def imports() -> dict[str, set[str]]:
    """Each module of the package and what importing it imports, its packages among them."""
    graph = grimp.build_graph(
        "sd_lora", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    found: dict[str, set[str]] = {}
    for module in sorted(name for name in graph.modules if name.split(".")[0] == "sd_lora"):
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        at_import = runs_at_import(Path(spec.origin))
        found[module] = {module.rpartition(".")[0]} - {""}
        for imported in graph.find_modules_directly_imported_by(module):
            for detail in graph.get_import_details(importer=module, imported=imported):
                if detail["line_number"] in at_import:
                    tensors = "safetensors.torch" in detail["line_contents"]
                    found[module].add("torch" if tensors else imported)
    return found


def way_to_slow(module: str) -> list[str]:
    """The chain of imports from a module to a slow library, the shortest; empty if there is none."""
    chains = [[module]]
    seen = {module}
    for chain in chains:
        for imported in sorted(imports().get(chain[-1], ())):
            if imported in SLOW:
                return [*chain, imported]
            if imported not in seen:
                seen.add(imported)
                chains.append([*chain, imported])
    return []


def is_heavy(module: str) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in HEAVY)


LIGHT = [module for module in imports() if not is_heavy(module)]


def test_a_module_that_is_not_named_as_heavy_reaches_no_torch() -> None:
    chains = [" → ".join(way_to_slow(module)) for module in LIGHT if way_to_slow(module)]
    assert not chains, "import it where it is used, or name the module in HEAVY:\n" + "\n".join(chains)


def test_what_is_named_as_heavy_is() -> None:
    slow = [module for module in imports() if way_to_slow(module)]
    idle = [name for name in HEAVY if not any(f"{module}.".startswith(f"{name}.") for module in slow)]
    assert not idle, f"these load no torch any more, remove them from HEAVY: {idle}"


def test_the_light_modules_are_light_when_they_are_imported() -> None:
    names = [module for module in LIGHT if not module.endswith("__main__")]
    code = f"import sys, {', '.join(names)}; print([name for name in {sorted(SLOW)} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
