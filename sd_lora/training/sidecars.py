"""The files beside an adapter in its run folder: sidecars for other programs, and the export for diffusers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from huggingface_hub import ModelCardData
from PIL import Image

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.sidecar import sidecar_of
from sd_lora.lora.factors import triplets_of_matrix
from sd_lora.lora.variants import VARIANTS
from sd_lora.models.families import FAMILIES
from sd_lora.models.kinds import kind_marked
from sd_lora.preview.recipe import png_bytes
from sd_lora.storage.atomic import storing, write_atomically

#: of the squared singular values of a change that diffusers reads as plain LoRA only
_KEPT, _MOST_RANK = 0.9999, 128
EXPORT_NAME = "pytorch_lora_weights.safetensors"


def write_sidecars(file: Path, metadata: dict[str, str], picture: Image.Image | None) -> None:
    """Write ``<stem>.json`` and the preview ``<stem>.png``, if there is a picture, beside adapter `file`."""
    facts = sidecar_of(metadata, kind_marked(metadata))
    write_atomically(file.with_suffix(".json"), json.dumps(facts, indent=2, ensure_ascii=False).encode())
    if picture is not None:
        write_atomically(file.with_suffix(".png"), png_bytes(picture))


def export_diffusers(adapter: Adapter, folder: Path, dtype: str, picture: Image.Image | None) -> Path:
    """Write `adapter` to `folder` in diffusers' layout, with a model card and its picture, ready for a hub."""
    with storing(folder):
        folder.mkdir(exist_ok=True)
    if not VARIANTS[adapter.variant].diffusers_reads_export:
        adapter = _plain(adapter)
    path = adapter.save(folder / EXPORT_NAME, dtype=dtype, layout="diffusers")
    if picture is not None:
        write_atomically(folder / "preview.png", png_bytes(picture))
    card = model_card(adapter, pictured=picture is not None)
    write_atomically(folder / "README.md", card.encode())
    return path


def _plain(adapter: Adapter) -> Adapter:
    """`adapter` as plain LoRA, of the lowest ranks up to `_MOST_RANK` that keep nearly all of each change."""
    kind, family, weights = kind_marked(adapter.metadata), adapter.family, {}
    for name, w in adapter.weights.items():
        change = w.row.product(w.tensors) * w.scaling
        parts = triplets_of_matrix(change.reshape(family.shape_with_kernel(name, tuple(change.shape), kind)))
        rank = min(parts.rank_for(_KEPT), _MOST_RANK)
        weights[name] = parts.weights(rank, float(rank))
    return Adapter(weights, adapter.metadata, adapter.label)


def model_card(adapter: Adapter, *, pictured: bool = True) -> str:
    """A model card in Markdown with the front matter that hubs read."""
    metadata = adapter.metadata
    name, base, trigger = metadata["ss_output_name"], metadata["sdlora.base"], metadata["sdlora.trigger"]
    if base == "tiny":
        needed, source, place = "sd_lora", "sd_lora.tiny_base_path()", ""
    else:
        source = f'"{base if "/" in base else f"path/to/{base}"}", torch_dtype=torch.float16'
        needed, place = "torch", '.to("cuda")'
    tag = FAMILIES[metadata["sdlora.family"]].title.lower().replace(" ", "-")
    data = ModelCardData(
        base_model=base if "/" in base else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        instance_prompt=metadata["modelspec.trigger_phrase"] or None,
        tags=["lora", tag, "text-to-image", "diffusers", "style"],
    )
    prompt = f"a lighthouse at dusk, in {trigger} style" if trigger else "a lighthouse at dusk"
    call = f"To call the style, end the prompt with `, in {trigger} style`." if trigger else "It needs no trigger word."
    kind, rank = VARIANTS[adapter.variant].title, Counter(w.rank for w in adapter.weights.values()).most_common(1)[0][0]
    preview = "\n![preview](preview.png)\n" if pictured else ""
    return f"""---
{data.to_yaml()}
---

# {name}
{preview}

A style {kind} for {base}, trained on {metadata["ss_num_train_images"]} images for {metadata["ss_steps"]} steps with
sd_lora {metadata["sdlora.version"]}. {call}

```python
import {needed}
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained({source}){place}
pipe.load_lora_weights("path/to/this/folder", weight_name="{EXPORT_NAME}")
image = pipe({json.dumps(prompt, ensure_ascii=False)}).images[0]
```

| | |
| --- | --- |
| modules | {len(adapter.weights)} |
| rank | {rank} |
| learning rate | {metadata["ss_learning_rate"]} |
| resolution | {metadata["modelspec.resolution"]} |
| prediction type | {metadata.get("modelspec.prediction_type", "flow")} |
"""
