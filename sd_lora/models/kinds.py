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


def family_of_adapter(shapes: Shapes, metadata: Mapping[str, str]) -> ModelFamily:
    """The family an adapter is for: the one its modules show, or its metadata names, or the first with its components.

    `shapes`: of the weights that the adapter changes, by module.
    """
    if shown := kinds_shown(shapes):
        return family_of_kind(shown[0].name)
    if metadata.get("sdlora.family") in FAMILIES:
        return FAMILIES[metadata["sdlora.family"]]
    if marked := kind_marked(metadata):
        return family_of_kind(marked)
    return next(iter(_with_components_of(shapes)), next(iter(FAMILIES.values())))


def kind_of(shapes: Shapes, metadata: Mapping[str, str]) -> str:
    """The kind of base an adapter is for, or "" if nothing shows it.

    What its modules show comes before what its metadata says, which other programs often have wrong. Only the metadata
    distinguishes kinds that differ just in what they predict, and kinds that the modules leave open.
    """
    marked, shown = kind_marked(metadata), kinds_shown(shapes)
    predicts_v = _predicts_v(metadata) or (marked != "" and kinds()[marked].predicts_v)
    if len({kind.version for kind in shown}) == 1:
        return chosen_kind(shown, predicts_v)
    return marked if not shown or marked in [kind.name for kind in shown] else ""


def kinds_shown(shapes: Shapes) -> list[Kind]:
    """The kinds that the modules of an adapter leave: by the width of the cross-attention's inputs where it is one of a
    published model, else by modules that only one family has; none if they show nothing."""
    families = _with_components_of(shapes)
    widths = [
        kind
        for family in families
        for kind in family.kinds
        if any(name.endswith(family.width_modules) and shape[1:2] == (kind.width,) for name, shape in shapes.items())
    ]
    of_families = [kinds for family in families if (kinds := family.kinds_by_modules(shapes))]
    return widths or (of_families[0] if len(of_families) == 1 else [])


def _with_components_of(shapes: Shapes) -> list[ModelFamily]:
    """The families that have all components whose modules an adapter has."""
    used = {name.partition(".")[0] for name in shapes}
    return [family for family in FAMILIES.values() if used <= {each.name for each in family.components}]


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
