"""Names in memory ↔ keys in files: pure renaming, and the only place for it (docs/file-format.md).

In memory an adapter's module is named ``<component>.<module path>``. Two layouts are written: kohya's keys, which every
client reads, and those of diffusers. These and two older ones are read.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sd_lora.errors import AdapterError
from sd_lora.lora.variants import VARIANTS, file_roles
from sd_lora.models.families import FAMILIES, ModelFamily
from sd_lora.models.families.unet_names import lasting_path

LAYOUTS = ("kohya", "diffusers")
#: metadata: the names of all modules in the file, so that a file that lost some is recognised
MODULES_KEY = "sdlora.modules"
#: metadata: diffusers' record of rank and alpha, where other layouts have alphas in the file
DIFFUSERS_KEY = "lora_adapter_metadata"
#: keys of diffusers before PEFT: path, projection of an attention, role
_OLD = re.compile(
    r"(.+?)(?:[._]processor)?(?:[._]lora_linear_layer|[._]lora|[._](to_(?:q|k|v|out))_lora)\.(down|up|alpha)(?:\.weight)?"
)
#: (IA)³'s gain with dots, which is called weight, as tensors of models are
_GAIN = re.compile(r"((?:lora|lycoris)[._][\w.]+)\.weight")
#: what may stand before everything else in a key: the levels of models that are wrapped in others
_WRAPPERS = re.compile(r"(?:base_model\.model\.|module\.)+")
#: what may stand before a component, or before the path of its module
_PROGRAM = r"(?:(?:lora|lycoris|oft)[._])?"


@dataclass(frozen=True)
class Key:
    """What a key of a file means: the module's `name` in memory, the `role` of its tensor ("alpha", or a variant's)
    and the `layout` of the key ("kohya", "kohya-sgm", "diffusers", "diffusers-old", or "other" for a spelling that no
    program of a known layout writes)."""

    name: str
    role: str
    layout: str
    #: whether the key itself says of which component the module is
    is_named: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Spelling:
    """How the keys of a module are spelled, whether it exists or not: the `stem` that they share, the `layout`, the
    `prefix` that stands for a component, and the rest of the module's `path`, with dots or underscores.

    `layout`: "kohya", "diffusers", "diffusers-old" (before PEFT), or "other": readable, but what none of the programs
    writes whose rules are known. `components`: those that the prefix may stand for, one in each family; empty where the
    key names none.
    """

    stem: str
    layout: str
    prefix: str
    components: tuple[str, ...]
    path: str

    def components_of(self, family: ModelFamily) -> list[str]:
        """The components of `family` that the module may be in."""
        return [each.name for each in family.components if not self.components or each.name in self.components]


def name_of_module(component: str, path: str) -> str:
    """The name of module `path` of `component`, the same for every version of the libraries."""
    return f"{component}.{lasting_path(path)}"


def kohya_stem(name: str, family: str = "sd") -> str:
    """``unet.mid_block.attentions.0.….to_out.0`` → ``lora_unet_mid_block_attentions_0_…_to_out_0``; for family "sdxl"
    with the original block names, ``lora_unet_middle_block_1_…``, which alone every client loads completely there."""
    component, known = name.partition(".")[0], [each.name for each in FAMILIES[family].components]
    if component not in known:
        raise AdapterError(f'an adapter file cannot hold modules of "{component}", only of {", ".join(known)}')
    try:
        return FAMILIES[family].kohya_stem(name)
    except (ValueError, KeyError):
        title = FAMILIES[family].title
        raise AdapterError(f"module {name} does not exist in {title}, so no key can name it") from None


def split_key(key: str) -> Key:
    """What `key` means; AdapterError if it is in no layout that is read."""
    spelling, role = spelling_of(key)
    if spelling is not None:
        for family in FAMILIES.values():
            for component in spelling.components_of(family):
                with contextlib.suppress(ValueError):
                    name, is_original = family.module_of_path(component, spelling.path)
                    layout = "kohya-sgm" if is_original and spelling.layout == "kohya" else spelling.layout
                    return Key(name, role, layout, spelling.components != ())
    raise AdapterError(f'key "{key}" is in no layout that sd_lora reads; convert the file to kohya keys')


def understood(keys: Iterable[str]) -> tuple[dict[str, Key], list[str]]:
    """What the keys of a file mean, and the keys that are in no layout that is read."""
    meanings: dict[str, Key] = {}
    unknown = []
    for key in keys:
        try:
            meanings[key] = split_key(key)
        except AdapterError:
            unknown.append(key)
    for key in list(unknown):  # a weight is (IA)³'s gain beside what only that has
        beside = meanings.get(f"{key.removesuffix('.weight')}.on_input")
        if beside and key.endswith(".weight"):
            meanings[key] = replace(beside, role="gain")
            unknown.remove(key)
    return meanings, unknown


def layout_of(keys: Iterable[Key]) -> str:
    """The layout of a file's keys; several joined by " + "."""
    layouts = {key.layout for key in keys}
    if layouts == {"kohya", "kohya-sgm"}:  # text encoders are spelled the same in both
        return "kohya-sgm"
    return " + ".join(sorted(layouts))


def spelling_of(key: str) -> tuple[Spelling | None, str]:
    """How `key` is spelled, and the role of its tensor; None and "" for a key that no module of an adapter has.

    A key is (wrapper or nothing) + (component or nothing) + path + ending, each in any program's spelling.
    """
    grammar, bare = _grammar(), _unwrapped(key)
    stem, style, role = _ending(bare)
    if not stem:
        return None, ""
    components, prefix, path = (), "", re.sub(rf"^{_PROGRAM}", "", stem)
    if named := grammar.named.match(stem):
        components, prefix, path = grammar.aliases[named[1]], stem[: named.start(2)], named[2]
    inner = _unwrapped(path)
    layout = "other"
    if "." not in stem and prefix in grammar.kohya_prefixes and style in ("kohya", ""):
        layout = "kohya"
    elif bare == key and inner == path and style in ("diffusers", "diffusers-old", ""):
        layout = (style or "diffusers") if prefix.removesuffix(".") in components else layout
    return Spelling(stem, layout, prefix, components, inner), role


def magnitudes_are_rows(keys: Iterable[str]) -> bool:
    """Whether `keys`, of one module, have a magnitude as PEFT writes it: for each output row, in any shape."""
    return any(".lora_magnitude_vector" in key for key in keys)


def _unwrapped(path: str) -> str:
    levels = _WRAPPERS.match(path)
    return path[levels.end() :] if levels else path


def _ending(key: str) -> tuple[str, str, str]:
    """`key` without its ending, whose ending that is ("" where several programs share it), and the role; all "" for an
    ending that nobody writes."""
    if old := _OLD.fullmatch(key):
        dot = "." if "." in old[1] else "_"
        if old[2] and old[1].endswith("self_attn"):  # of a text encoder, whose projections have other names
            return f"{old[1]}{dot}{old[2].removeprefix('to_')}_proj", "diffusers-old", old[3]
        projection = f"{dot}{old[2]}{f'{dot}0' * (old[2] == 'to_out')}" if old[2] else ""
        return old[1] + projection, "diffusers-old", old[3]
    for ending, role, style in _grammar().kohya:
        stem = key.removesuffix(f".{ending}")
        # (IA)³'s gain is called weight, as tensors of models are
        if stem != key and (ending != "weight" or re.fullmatch(r"(?:lora|lycoris)_\w+", stem)):
            return stem, style, role
    for ending, role in _grammar().peft:
        start, dot, last = ending.partition(".")
        stem, separator, rest = key.rpartition(f".{start}")
        if separator and stem and re.fullmatch(rf"(\.\w+)?\.{last}|" if dot else r"(\.\w+)*", rest):
            is_plain = rest in ((f".{last}",) if dot else ("", ".weight"))
            return stem, "diffusers" if is_plain else "other", role
    if dotted := _GAIN.fullmatch(key):
        return dotted[1], "other", "gain"
    return "", "", ""


@dataclass(frozen=True)
class _Grammar:
    """The words of keys: what stands for a component, and endings with their roles."""

    #: what stands for a component → its names
    aliases: dict[str, tuple[str, ...]]
    #: (program) + component, then the path of the module
    named: re.Pattern[str]
    kohya_prefixes: frozenset[str]
    #: endings as kohya writes them, with and without ``.weight``, the longest first; the role; whose ending it is
    kohya: tuple[tuple[str, str, str], ...]
    #: endings as PEFT writes them, and the role
    peft: tuple[tuple[str, str], ...]


def _grammar() -> _Grammar:
    return _grammar_of(tuple(FAMILIES), tuple(VARIANTS))


@functools.cache
def _grammar_of(families: tuple[str, ...], variants: tuple[str, ...]) -> _Grammar:  # noqa: ARG001
    """The grammar of these families and variants, whose tables may grow."""
    components = [each for family in families for each in FAMILIES[family].components]
    aliases: dict[str, tuple[str, ...]] = {}
    for each in components:
        for alias in (each.name, each.prefix.removeprefix("lora_").strip("_"), *each.aliases):
            aliases[alias] = tuple(dict.fromkeys((*aliases.get(alias, ()), each.name)))
    words = "|".join(re.escape(alias) for alias in sorted(aliases, key=len, reverse=True))
    peft, roles = file_roles("diffusers"), {"alpha": "alpha", **file_roles("kohya")}
    kohya = [(ending, role, "" if ending in {"alpha", *peft} else "kohya") for ending, role in roles.items()]
    kohya += [(ending.removesuffix(".weight"), role, "other") for ending, role in roles.items() if "." in ending]
    return _Grammar(
        aliases,
        re.compile(rf"{_PROGRAM}({words})[._](.+)"),
        frozenset(each.prefix for each in components),
        tuple(sorted(kohya, key=lambda each: -len(each[0]))),
        tuple(peft.items()),
    )
