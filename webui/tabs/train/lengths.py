"""How long a run is, in three words: a share of the steps that the preset has, or that follow from the pictures."""

from __future__ import annotations

from pathlib import Path

from sd_lora.config.schema import DataConfig, RunConfig
from sd_lora.data.folders.listing import list_folder
from sd_lora.data.planning import default_steps
from sd_lora.errors import SdLoraError

NORMAL = "Normal"
#: word → multiple of the preset's steps
LENGTHS = {"Quick": 0.4, NORMAL: 1.0, "Thorough": 2.0}


def steps_of_length(length: str, config: RunConfig, folder: Path | None) -> int | None:
    """The steps of a run of that `length` with the settings of `config`; None: those that follow from the pictures, as
    the preset leaves them open, or the pictures are not known yet."""
    share, steps = LENGTHS.get(length, 1.0), config.training.steps
    if share == 1:
        return steps
    if steps is None:
        images = _images_in(folder) if folder is not None else 0
        steps = default_steps(images, config.training.batch_size) if images else None
    return None if steps is None else max(1, round(share * steps))


def lengths_sentence(config: RunConfig, folder: Path | None) -> str:
    """How many steps each length has: ``Quick 160, Normal 400, Thorough 800 steps``."""
    steps = {length: steps_of_length(length, config, folder) for length in LENGTHS}
    if steps[NORMAL] is None and folder is not None and (images := _images_in(folder)):
        steps[NORMAL] = default_steps(images, config.training.batch_size)
    known = [f"{length} {count:,}" for length, count in steps.items() if count is not None]
    return (
        f"{' · '.join(known)} steps" if len(known) == len(LENGTHS) else "the steps follow from the number of pictures"
    )


def _images_in(folder: Path) -> int:
    """How many pictures of a folder are trained on; 0 if it cannot be read."""
    try:
        return sum(not e.prior and not e.held for e in list_folder(DataConfig(folder=str(folder))).entries)
    except SdLoraError:
        return 0
