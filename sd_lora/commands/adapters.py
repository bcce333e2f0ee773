"""The verbs that work on adapter files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sd_lora.commands.console import print_json, print_written, progress_bar, quiet_libraries, rank_range
from sd_lora.commands.options import (
    BASE_HELP,
    AdapterPath,
    AsJson,
    Dtype,
    Energy,
    ModelOverrides,
    Out,
    Overwrite,
    Rank,
    SameDtype,
    model_config,
    numbers,
)
from sd_lora.errors import ConfigError, some


def inspect(adapter: AdapterPath, as_json: AsJson = False) -> None:
    """Show what is in an adapter: base model, layout, ranks, trigger word, norms, metadata."""
    from sd_lora.tools.inspect import inspect_adapter

    report = inspect_adapter(adapter)
    if as_json:
        print_json(report.to_json())
        return
    width = max(len(label) for label, _ in report.lines())
    for label, value in report.lines():
        typer.echo(f"{label:<{width}}  {value}")


def verify(
    adapter: AdapterPath,
    overrides: ModelOverrides = None,
    base: Annotated[str, typer.Option(help=f"Also load it into this base model: {BASE_HELP}")] = "",
    as_json: AsJson = False,
) -> None:
    """Check that an adapter loads completely, in a base model and in six programs."""
    model = model_config(base, overrides) if base or overrides else None
    quiet_libraries()
    from sd_lora.tools.verify import verify_adapter

    result = verify_adapter(adapter, model)
    if as_json:
        print_json(result.to_json())
    else:
        here = f"sd_lora on {result.base}" if result.base else "sd_lora"
        width = max(len(here), *(len(answer.client) for answer in result.clients))
        typer.echo(f"{adapter}: {result.modules} modules, base model {result.kind or 'unknown'}")
        typer.echo(f"{here:<{width}}  {'loads completely' if result.is_whole else 'does not load'}")
        for answer in result.clients:
            verdicts = ["loads completely" if answer.is_whole else f"{answer.loaded} of {answer.modules}"]
            if len(answer.unjudged) == 1 and not answer.loaded and not answer.reasons:  # nothing else can be said
                verdicts = []
            parts = [*verdicts, *answer.unjudged, *answer.reasons, *answer.notes]
            typer.echo(f"{answer.client:<{width}}  {'; '.join(parts)}")
    if not result.is_whole:
        raise ConfigError("; ".join(result.problems))


def convert(
    adapter: AdapterPath,
    out: Out,
    layout: Annotated[str, typer.Option(help="kohya or diffusers; default: what most programs read.")] = "",
    dtype: SameDtype = "",
    kind: Annotated[str, typer.Option(help="Kind of base model (sd1, sdxl, …); default: as the file says.")] = "",
    drop_embeddings: Annotated[bool, typer.Option(help="Leave out embeddings that are in the file.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Convert an adapter to another key layout or data type."""
    from sd_lora.tools.convert import convert_adapter

    settings: dict[str, Any] = {"layout": layout, "dtype": dtype, "kind": kind, "drop_embeddings": drop_embeddings}
    print_written(convert_adapter(adapter, out, **settings, overwrite=overwrite))


def merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER", help="The adapters to add.")],
    out: Out,
    weights: Annotated[str, typer.Option(help="One number per adapter, separated by commas; default: 1 each.")] = "",
    method: Annotated[str, typer.Option(help="concat (exact; ranks add up) or svd (reduced to --rank).")] = "concat",
    rank: Rank = 0,
    dtype: SameDtype = "",
    overwrite: Overwrite = False,
) -> None:
    """Add several adapters into one."""
    from sd_lora.tools.merge import merge_adapters

    factors = numbers("--weights", weights, "1,0.5") if weights else ()
    with progress_bar("merging") as watch:
        path = merge_adapters(
            adapters, out, weights=factors, method=method, rank=rank, dtype=dtype, overwrite=overwrite, watch=watch
        )
    print_written(path)


def resize(
    adapter: AdapterPath,
    out: Out,
    overrides: ModelOverrides = None,
    rank: Rank = 0,
    energy: Energy = 0.0,
    dtype: SameDtype = "",
    base: Annotated[str, typer.Option(help=f"For kinds whose change depends on the base model: {BASE_HELP}")] = "",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Reduce an adapter to smaller ranks, or make plain LoRA of another kind, and report the error."""
    from dataclasses import asdict

    from sd_lora.tools.resize import resize_adapter

    model = model_config(base, overrides) if base or overrides else None
    if model is not None:
        quiet_libraries()
    settings: dict[str, Any] = {"rank": rank, "energy": energy, "dtype": dtype, "model": model, "overwrite": overwrite}
    with progress_bar("resizing") as watch:
        report = resize_adapter(adapter, out, **settings, watch=watch)
    if as_json:
        print_json(asdict(report))
        return
    width = max(len(module.name) for module in report.modules)
    typer.echo(f"{'module':<{width}}  rank was  error")
    for module in report.modules:
        typer.echo(f"{module.name:<{width}}  {module.rank:>4} {module.before:>3}  {module.error:.4f}")
    typer.echo(
        f"wrote {report.path}: {report.bytes_before / 1024:,.0f} kB before, {report.bytes / 1024:,.0f} kB now, "
        f"error of the entire change {report.error:.4f}"
    )
    if report.left_out:
        typer.echo(f"left out, as no LoRA can hold them: changes of norms and biases in {some(report.left_out, 3)}")


def fuse(
    adapter: AdapterPath,
    out: Annotated[Path, typer.Option(help="A folder (for a pipeline) or a .safetensors file (for a checkpoint).")],
    base: Annotated[str, typer.Option(help=f"The base model: {BASE_HELP}")],
    overrides: ModelOverrides = None,
    strength: Annotated[float, typer.Option(help="How strongly the adapter acts.")] = 1.0,
    dtype: Dtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Fuse an adapter into the weights of a base model."""
    model = model_config(base, overrides)
    quiet_libraries()
    from sd_lora.tools.fuse import fuse_adapter

    path = fuse_adapter(adapter, model, out, strength=strength, dtype=dtype, overwrite=overwrite)
    typer.echo(f"wrote {path}")


def extract(
    out: Out,
    base: Annotated[str, typer.Option(help=f"The base model: {BASE_HELP}")],
    tuned: Annotated[str, typer.Option(help="The fine-tuned model, given like --base.")],
    overrides: ModelOverrides = None,
    rank: Rank = 0,
    energy: Energy = 0.0,
    targets: Annotated[str, typer.Option(help="Modules, named as in lora.targets.")] = "attn,ff,proj,conv",
    dtype: Dtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Extract the difference between two models as an adapter."""
    models = model_config(base, overrides), model_config(tuned, overrides)
    quiet_libraries()
    from sd_lora.tools.extract import extract_adapter

    chosen = tuple(part.strip() for part in targets.split(","))
    with progress_bar("extracting") as watch:
        result = extract_adapter(
            *models, out, rank=rank, energy=energy, targets=chosen, dtype=dtype, overwrite=overwrite, watch=watch
        )
    if result.beyond:
        sorts = ", ".join(f"{count} {sort}" for sort, count in result.sorts_beyond.items())
        typer.echo(
            f"warning: {len(result.beyond)} weights outside --targets differ too and are not in the adapter "
            f"({sorts}), such as {result.beyond[0]}",
            err=True,
        )
    ranks = rank_range(result.ranks.values())
    typer.echo(f"wrote {result.path}: {len(result.ranks)} modules, {ranks}, error {result.error:.4f}")
