"""The verbs that measure: how well an adapter has learnt a style, and what a base model's own pictures look like."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from sd_lora.commands.console import print_json, progress_bar, quiet_libraries
from sd_lora.commands.options import BASE_HELP, AsJson, numbers
from sd_lora.errors import ConfigError

if TYPE_CHECKING:
    from sd_lora.evaluation.energy import StyleScores
    from sd_lora.evaluation.evaluator import Materials, Measured, Progress

_DEFAULT_PROMPTS = 16


def evaluate(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="Adapters, measured side by side.")],
    base: Annotated[str, typer.Option(help=f"Default: tiny, if they were trained on it. {BASE_HELP}")] = "",
    references: Annotated[
        Optional[Path],  # noqa: UP045 (typer reads the annotation)
        typer.Option(help="Folder of pictures in the style; default: what the run held out, or was trained on."),
    ] = None,
    prompts: Annotated[str, typer.Option(help="File of prompts: content alone, one per line.")] = "",
    strengths: Annotated[str, typer.Option(help="Strengths at which each is measured, such as 0.8,1.")] = "1",
    bank: Annotated[
        Path | None, typer.Option(help="Folder with a folder of pictures for each of other styles.")
    ] = None,
    trained: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the training pictures, to find copies; default: those of its run."),
    ] = None,
    judge_base: Annotated[str, typer.Option(help="Measure with another base model than the one that draws.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise that pictures start from.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps per picture.")] = 20,
    guidance: Annotated[float, typer.Option(min=0, help="Scale of classifier-free guidance.")] = 4.0,
    keep: Annotated[bool, typer.Option(help="Keep the drawn pictures, so that they are drawn once.")] = True,
    as_json: AsJson = False,
) -> None:
    """Measure style, content, leak, diversity, drift and burn of adapters, with intervals."""
    factors = numbers("--strengths", strengths, "0.8,1")
    quiet_libraries()
    from sd_lora.adapters.adapter import Adapter
    from sd_lora.evaluation.calibration import calibration_of
    from sd_lora.evaluation.drawing import Drawing, Illustrator, kept_pictures
    from sd_lora.evaluation.evaluator import Evaluator
    from sd_lora.evaluation.probe import Probe
    from sd_lora.models.opening import load_base
    from sd_lora.preview.previewer import base_for

    loaded = [(path, Adapter.load(path)) for path in adapters]
    base = base or base_for(loaded[0][1])
    materials, sources = _materials(
        adapters, base, {"references": references, "trained": trained, "bank": bank}, prompts
    )
    pipe, _ = load_base(base)
    judge = load_base(judge_base)[0] if judge_base else pipe
    calibration = calibration_of(judge, judge_base or base)
    drawing = Drawing(steps, guidance, seed)
    with _progress() as progress:
        illustrator = Illustrator(pipe, drawing, kept_pictures() if keep else None)
        evaluator = Evaluator(illustrator, materials, calibration, progress, probe=Probe(judge))
        measured, scores = evaluator.measure([(str(p), a, s) for p, a in loaded for s in factors])
    settings = {
        **sources, "base": base, "judge_base": judge_base or base, "seed": seed, "steps": steps, "guidance": guidance,
        "pictures": len(materials.prompts), "references": len(materials.references),
    }  # fmt: skip
    if as_json:
        rows = [{**each.to_json(), "settings": settings} for each in measured]
        print_json(rows[0] if len(rows) == 1 else {"adapters": rows, "differences": _differences(measured, scores)})
        return
    _print(measured, scores, settings)


def calibrate(
    base: Annotated[str, typer.Option(help=BASE_HELP)],
    prompts: Annotated[str, typer.Option(help="File of prompts of many contents, in no style.")] = "",
    pictures: Annotated[int, typer.Option(min=1, help="How many pictures to draw.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps per picture.")] = 20,
    guidance: Annotated[float, typer.Option(min=0, help="Scale of classifier-free guidance.")] = 4.0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Also write it to this .json file."),
    ] = None,
) -> None:
    """Measure what a base model's own pictures look like, once, so that styles can be measured on it."""
    quiet_libraries()
    from sd_lora.evaluation.calibration import LEAST_PICTURES, keep_calibration
    from sd_lora.evaluation.calibration import calibrate as measure
    from sd_lora.evaluation.drawing import Drawing, Illustrator
    from sd_lora.evaluation.materials import content_prompts
    from sd_lora.evaluation.prompts import crossed_prompts
    from sd_lora.models.opening import load_base
    from sd_lora.storage.atomic import write_atomically

    if pictures < LEAST_PICTURES:
        raise ConfigError(f"--pictures {pictures} is too few; {LEAST_PICTURES} or more are needed")
    try:
        texts = content_prompts(prompts)[:pictures] if prompts else crossed_prompts(pictures, base)
    except ValueError as error:
        raise ConfigError(f"--pictures is {pictures}, but {error}; name a file of as many with --prompts") from error
    if len(texts) < pictures:
        raise ConfigError(
            f"{prompts or base} has {len(texts)} different prompts, and --pictures is {pictures}; lower it"
        )
    pipe, _ = load_base(base)
    drawn = {"inference_steps": steps, "guidance": guidance, "seed": 1, "prompts": prompts or "built in"}
    with _progress() as progress:
        images = Illustrator(pipe, Drawing(steps, guidance, 1)).draw(
            texts, watch=lambda *done: progress("drawing pictures", *done)
        )
        result = measure(pipe, images, base, drawn, lambda *done: progress("measuring them", *done))
    if out is not None:
        write_atomically(out, result.to_json().encode())
    typer.echo(f"{base} is calibrated by {len(images)} of its pictures; kept in {keep_calibration(result)}")


def _materials(
    adapters: Sequence[Path], base: str, folders: dict[str, Path | None], prompts: str
) -> tuple[Materials, dict[str, Any]]:
    """What is measured against, and where it is from."""
    from sd_lora.evaluation.energy import LEAST_REFERENCES
    from sd_lora.evaluation.evaluator import Materials
    from sd_lora.evaluation.materials import bank_in, content_prompts, pictures_in, run_folder, trained_by
    from sd_lora.evaluation.prompts import crossed_prompts

    run = trained_by(adapters[0]) if len({run_folder(path) for path in adapters}) == 1 else None
    folder, copied = folders["references"], folders["trained"]
    if folder is not None:
        pictures, source = pictures_in(folder, "--references"), str(folder)
    elif run is None:
        raise ConfigError(
            f"there is nothing to measure {adapters[0]} against: it is not in one run folder whose images can be "
            "read; name a folder of pictures in its style with --references"
        )
    elif len(run.held) >= LEAST_REFERENCES:
        pictures, source = list(run.held), "held out by the run"
    else:
        pictures, source = list(run.pictures), "the pictures it was trained on"
    originals = pictures_in(copied, "--trained") if copied else list(run.pictures) if run else []
    texts = content_prompts(prompts) if prompts else crossed_prompts(_DEFAULT_PROMPTS, base)
    others = bank_in(folders["bank"]) if folders["bank"] else {}
    captions = list(run.captions) if run else []
    facts = {"references_from": source, "copies_of": str(copied or ("its run" if run else source)),
             "prompts": prompts or "built in"}  # fmt: skip
    return Materials(pictures, texts, originals, captions, others), facts


@contextmanager
def _progress() -> Iterator[Progress]:
    """One bar after the other, each with what is done, its rate and the time that remains."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        bar: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if bar.get("what") != what:
                stack.close()
                bar.update(what=what, watch=stack.enter_context(progress_bar(what)))
            bar["watch"](done, total)

        yield show


def _differences(measured: Sequence[Measured], scores: StyleScores) -> list[dict[str, Any]]:
    """How far each is from the one with the highest style score, paired."""
    best = max(range(len(measured)), key=lambda i: float(scores.scores[i]))
    rows = []
    for i, each in enumerate(measured):
        if i != best:
            gap = scores.difference(best, i)
            rows.append(
                {
                    "better": measured[best].label,
                    "than": each.label,
                    "style": gap.value,
                    "interval": gap.interval,
                    "can_be_told": gap.low > 0,
                }
            )
    return rows


def _print(measured: Sequence[Measured], scores: StyleScores, settings: dict[str, Any]) -> None:
    typer.echo(
        f"{settings['pictures']} prompts ({settings['prompts']}), {settings['references']} references "
        f"({settings['references_from']}), base model {settings['base']}"
    )
    for each in measured:
        typer.echo(f"\n{each.label}")
        for label, value in each.lines():
            typer.echo(f"  {label:<10} {value}")
    differences = _differences(measured, scores)
    if differences:
        typer.echo()
    for row in differences:
        low, high = row["interval"]
        told = f"{row['style']:.2f} more style ({low:.2f} to {high:.2f})"
        verdict = told if row["can_be_told"] else f"no difference can be told: {told}"
        typer.echo(f"{row['better']} against {row['than']}: {verdict}")


def select(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    undo: Annotated[bool, typer.Option("--undo", help="Make the last step's adapter the run's again.")] = False,
    budget: Annotated[float, typer.Option(min=0, help="Share of the training's time that choosing may take.")] = 0.33,
    strengths: Annotated[str, typer.Option(help="Strengths to choose among.")] = "1,0.8,1.2,0.6",
    references: Annotated[str, typer.Option(help="Folder of pictures in the style; default: the training's.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise that pictures start from.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Choose a run's checkpoint and strength by measuring them; the choice becomes its adapter, right at strength 1."""
    quiet_libraries()
    from sd_lora.training.choice import Wanted
    from sd_lora.training.choice import select as choose
    from sd_lora.training.choice import undo as take_back

    if undo:
        typer.echo(f"{take_back(run)} is the last step's again")
        return
    values = numbers("--strengths", strengths, "1,0.8")
    if 1.0 not in values:
        raise ConfigError(f"--strengths is {strengths}; 1 must be among them, as what is used without a choice")
    with _progress() as progress:
        selection = choose(run, Wanted(budget, sorted(values, key=lambda v: v != 1), seed, references), progress)
    if as_json:
        import json

        print_json(json.loads((run / "selection.json").read_text("utf-8")))
        return
    grid = selection.finals
    for i, cell in enumerate(grid.cells):
        figures = f"style {grid.style.of(i)}, content {grid.content(i):.2f}, copies {grid.copies(i).value:.2f}"
        typer.echo(f"{cell!s:<20} {figures}")
    typer.echo(f"chosen: {selection.choice.cell}, in {selection.seconds:.0f} s")
    for reason in selection.choice.reasons:
        typer.echo(f"  {reason}")
    typer.echo(f"wrote {run / 'adapter.safetensors'}, to be used at strength 1, and {run / 'report.html'}")
    typer.echo(f"to take it back: {shlex.join(['sd-lora', 'select', '--undo', str(run)])}")
