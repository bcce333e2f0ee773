"""What a file is that was given as an adapter and holds keys of something else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sd_lora.adapters.keys import spelling_of
from sd_lora.errors import some
from sd_lora.models.contents import Contents, contents_of_keys, is_lora_key
from sd_lora.models.families import components

#: metadata: of which run, by its folder's name, and of which step a checkpoint's part is
CHECKPOINT_KEY = "sdlora.checkpoint"
#: the ends of keys of an adapter in a run's checkpoint, which are the names of its parameters in memory
_OF_CHECKPOINT = re.compile(r".+\.(?:down|up)\.weight$")

_FINISH = "use the adapter.safetensors of the run, or make it with: sd-lora resume --finish RUN"


def not_read(label: str, unknown: Sequence[str], count: int, metadata: Mapping[str, str] | None = None) -> str:
    """The sentence about a file of which the keys `unknown`, of `count`, are not read; "" if there are none."""
    if not unknown:
        return ""
    if metadata and CHECKPOINT_KEY in metadata:
        return f"{label} is part of a checkpoint ({metadata[CHECKPOINT_KEY]}), not an adapter; {_FINISH}"
    keys = some([key[:100] for key in unknown], 2)
    remedy = _remedy(unknown, len(unknown) < count)
    return f"{label} has {len(unknown)} of {count} keys in no layout that sd_lora reads ({keys}); {remedy}"


def foreign(key: str) -> str:
    """What a file with this key is instead of a LoRA for Stable Diffusion, or an empty string."""
    row = contents_of_keys([key])
    return _sentence(row) if row is not None and row.as_adapter else ""


def _remedy(unknown: Sequence[str], beside_others: bool) -> str:
    named = [key for key in unknown if key.partition(".")[0] in components()]
    if any(map(_OF_CHECKPOINT.match, named)) and not any(map(is_lora_key, unknown)):
        return f"it is part of a run's checkpoint, not an adapter; {_FINISH}"
    row = contents_of_keys(unknown)
    if row is not None and row.as_adapter and (not beside_others or len(unknown) > 2):  # two keys look like embeddings
        return f"it holds {_sentence(row)}"
    if all(spelling_of(key)[0] is not None for key in unknown):
        return "no Stable Diffusion model has such modules"
    if beside_others and not any(map(is_lora_key, unknown)):
        return "they are no part of a LoRA; save the file without them"
    if any(map(is_lora_key, unknown)):
        return "convert it to kohya keys"
    return "they are not those of a LoRA; name an adapter file"


def _sentence(row: Contents) -> str:
    return f"{row.what}{', ' if row.as_adapter.startswith('which') else '; '}{row.as_adapter}"
