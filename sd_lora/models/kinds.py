"""Which kind of base an adapter is for, by its metadata, its shapes and its modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from sd_lora.models.families import FAMILIES, ModelFamily, kinds
from sd_lora.models.families.base import Kind

Shapes = Mapping[str, tuple[int, ...]]


def family_of_kind(kind: str) -> ModelFamily:
    """The family of a kind of that name."""
    return next(family for family in FAMILIES.values() if any(each.name == kind for each in family.kinds))


def family_of_adapter(downs: Shapes, metadata: Mapping[str, str]) -> ModelFamily:
    """The family an adapter is for: the one its metadata names, that of its kind, or the first with its components."""
    if metadata.get("sdlora.family") in FAMILIES:
        return FAMILIES[metadata["sdlora.family"]]
    kind = kind_of(downs, metadata)
    if kind:
        return family_of_kind(kind)
    used = {name.partition(".")[0] for name in downs}
    fitting = (family for family in FAMILIES.values() if used <= {each.name for each in family.components})
    return next(fitting, next(iter(FAMILIES.values())))


def kind_of(downs: Shapes, metadata: Mapping[str, str]) -> str:
    """The kind of base an adapter is for, or "" if nothing shows it.

    `downs` has the shape of each module's `down` by name in memory. The width of the cross-attention decides where it
    is one of a published model; then the metadata; then the modules. Only the metadata distinguishes kinds that
    differ just in what they predict.
    """
    marked = kind_marked(metadata)
    predicts_v = _predicts_v(metadata) or (marked != "" and kinds()[marked].predicts_v)
    fitting: list[Kind] = []
    for family in FAMILIES.values():
        widths = {shape[1] for name, shape in downs.items() if name.endswith(family.width_modules)}
        fitting += [kind for kind in family.kinds if kind.width in widths]
    if fitting or marked:
        return chosen_kind(fitting, predicts_v) or marked
    return next(filter(None, (chosen_kind(f.kinds_by_modules(downs), predicts_v) for f in FAMILIES.values())), "")


def kind_marked(metadata: Mapping[str, str]) -> str:
    """The kind that the metadata names, or "" if it names none."""
    known = kinds().values()
    for field in ("modelspec.architecture", "ss_base_model_version"):
        for kind in known:
            if any(fnmatchcase(metadata.get(field, ""), pattern) for pattern in kind.known_by):
                return kind.name
    family = FAMILIES.get(metadata.get("sdlora.family", ""))
    if family is not None and len(family.kinds) == 1:
        return family.kinds[0].name
    if metadata.get("ss_v2") == "True":
        return chosen_kind([kind for kind in known if kind.marks.get("ss_v2") == "True"], _predicts_v(metadata))
    return ""


def chosen_kind(fitting: Sequence[Kind], predicts_v: bool) -> str:
    """The name of the kind that predicts v or not, else of the first; "" if there is none."""
    return next((kind.name for kind in fitting if kind.predicts_v == predicts_v), fitting[0].name if fitting else "")


def _predicts_v(metadata: Mapping[str, str]) -> bool:
    return metadata.get("modelspec.prediction_type") == "v" or metadata.get("ss_v_parameterization") == "True"
