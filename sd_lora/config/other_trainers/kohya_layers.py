"""What the layers of kohya's scripts and of LyCORIS are here: their kind, where they are, their rank and alpha."""

from __future__ import annotations

from typing import Any

from sd_lora.config.other_trainers.kohya_rates import trained
from sd_lora.config.other_trainers.row import Given, Made, Read, first, flag, is_off, number

#: 3×3 convolutions; others of the group "conv" have the rank of linear layers in kohya's scripts too
CONV = ("unet.*.conv[12]", "unet.*samplers.0.conv")
#: those others
_BESIDE_CONV = ["unet.*.conv_shortcut", "unet.*.time_emb_proj"]
UNET = ["attn", "ff", "proj"]
TEXT = ["text", "text_ff"]
#: the largest rank here; a LoKr of it has complete matrices wherever they have at most twice as many rows and columns
MOST = 1024
COMPLETE = (
    f"complete matrices, as those with up to {2 * MOST} rows and columns are at rank {MOST}; alpha counts for none"
)
COMPLETE_ALPHA = "complete matrices are not scaled, whatever alpha is"
#: module of kohya's scripts, algorithm of LyCORIS or type of the GUI → variant here
_VARIANTS = {
    "networks.lora": "lora", "locon": "lora", "lora": "lora", "standard": "lora", "kohya locon": "lora",
    "lycoris/locon": "lora", "networks.loha": "loha", "loha": "loha", "lycoris/loha": "loha",
    "networks.lokr": "lokr", "lokr": "lokr", "lycoris/lokr": "lokr",
}  # fmt: skip
#: preset of LyCORIS → targets in the UNet, and in the text encoders
_PRESETS: dict[str, tuple[list[str], list[str]]] = {
    "full": ([*UNET, "conv"], TEXT), "full-lin": ([*UNET, *_BESIDE_CONV], TEXT), "attn-mlp": (UNET, TEXT),
    "attn-only": (["attn"], ["text"]), "unet-only": ([*UNET, "conv"], []), "unet-transformer-only": (UNET, []),
    "unet-convblock-only": (["conv"], []),
}  # fmt: skip


def _module(given: Given) -> str:
    return str(first(given, "network_module", "LoRA_type", default="")).lower()


def _algorithm(given: Given) -> str:
    name = _module(given)
    default = "locon" if name == "lycoris.kohya" else name
    names_it = name in ("lycoris.kohya", "")
    return str(first(given, "network_args.algo", "algo", default=default) if names_it else name).lower()


def text_targets(first_one: bool, second_one: bool) -> list[str]:
    """Targets in both text encoders, or in the one that is trained."""
    if first_one == second_one:
        return TEXT if first_one else []
    name = "text_encoder" if first_one else "text_encoder_2"
    return [f"{name}.*.self_attn.*_proj", f"{name}.*.mlp.fc[12]"]


def _groups(given: Given) -> tuple[list[str], list[str], str]:
    """Targets in the UNet and in the text encoders, if both are trained, and what there is to say of them."""
    name, rank = _module(given), first(given, "network_args.conv_dim", "conv_dim")
    if name.startswith("lycoris"):
        preset = str(first(given, "network_args.preset", "LyCORIS_preset", default="full"))
        unet, text = _PRESETS.get(preset, _PRESETS["full"])
        unknown = f"LyCORIS' preset {preset} is not known, so that this is its preset full"
        note = "" if preset in _PRESETS else unknown
    else:
        plain = name == "standard" or (name != "kohya locon" and rank is None)
        unet, text, note = (UNET if plain else [*UNET, "conv"]), TEXT, ""
    if rank is not None and is_off(rank) and "conv" in unet:
        unet = [part for group in unet for part in (_BESIDE_CONV if group == "conv" else [group])]
    return unet, text, note


def _has_convs(given: Given) -> bool:
    """Whether 3×3 convolutions are trained."""
    return not _module(given) or ("conv" in _groups(given)[0] and trained(given)[0])


def module(value: Any, given: Given) -> Read:
    """The kind of the layers, and which modules have them."""
    given = {**given, "network_module": value}
    variant = _VARIANTS.get(_algorithm(given))
    if variant is None:
        algorithm = first(given, "network_args.algo", "algo", default=value)
        raise ValueError(f'{algorithm} is no variant here; the run would train plain LoRA, with lora.variant="lora"')
    if variant == "lora" and flag(first(given, "network_args.dora_wd", "dora_wd", default=False)):
        variant = "dora"
    unet, text, note = _groups(given)
    with_unet, with_text = trained(given)
    rates = first(given, "text_encoder_lr")
    if isinstance(rates, list) and len(rates) == 2 and with_text and text == TEXT:
        text = text_targets(*(number(rate) != 0 for rate in rates))
    made: Made = {"lora.targets": [*(unet if with_unet else []), *(text if with_text else [])]}
    return {**made, **({} if variant == "lora" else {"lora.variant": variant})}, note


def algorithm(value: Any, given: Given) -> Read:
    """LyCORIS' kind of layers, where its module is not named too."""
    variant = _VARIANTS.get(str(value).lower())
    if variant is None:
        raise ValueError(f'{value} is no variant here; the run would train plain LoRA, with lora.variant="lora"')
    if _module(given):
        return {}, "network_module and lora.variant hold it"
    return {"lora.variant": variant}


def without_text(value: Any, given: Given) -> Read:
    """The switch that leaves out the text encoders."""
    if not flag(value) or first(given, "network_module", "LoRA_type"):
        return {}, "lora.targets has neither text nor text_ff" if flag(value) else ""
    return {"lora.targets": UNET}


def text_alone(value: Any, given: Given) -> Read:
    """The switch that leaves out the UNet."""
    if not flag(value) or first(given, "network_module", "LoRA_type"):
        return {}, "lora.targets is text and text_ff alone" if flag(value) else ""
    return {"lora.targets": TEXT}


def dora(value: Any, given: Given) -> Read:
    """The switch that splits off a weight's norm, which is for plain LoRA here."""
    variant = _VARIANTS.get(_algorithm(given), "lora")
    if flag(value) and variant != "lora":
        return {}, f"lora.variant={variant} has no norm of its own"
    return {"lora.variant": "dora"} if flag(value) else {}


def _is_complete(given: Given) -> bool:
    """Whether a LoKr has no matrix of a rank, as with LyCORIS' full_matrix or a rank beyond any."""
    full = flag(first(given, "network_args.full_matrix", "full_matrix", default=False))
    rank = number(first(given, "network_dim", default=0))
    return _VARIANTS.get(_algorithm(given)) == "lokr" and (full or rank > MOST)


def rank(value: Any, given: Given) -> Read:
    """The rank, which has a limit here."""
    if _is_complete(given):
        return {"lora.rank": MOST, "lora.alpha": MOST}, COMPLETE
    over = number(value) > MOST
    return {"lora.rank": MOST if over else number(value)}, f"the largest rank here is {MOST}" if over else ""


def alpha(value: Any, given: Given) -> Read:
    """Alpha, which is smaller where the rank is."""
    if _is_complete(given):
        return {}, COMPLETE_ALPHA
    over = max(1, number(first(given, "network_dim", default=1)) / MOST)
    return {"lora.alpha": number(value) / over if over > 1 else number(value)}


def full_matrix(value: Any, given: Given) -> Read:
    """LyCORIS' switch for a LoKr without ranks."""
    if _module(given) and _VARIANTS.get(_algorithm(given)) != "lokr":
        return {}, "it is for LoKr"
    return ({"lora.rank": MOST, "lora.alpha": MOST}, COMPLETE) if flag(value) else {}


def factor(value: Any, given: Given) -> Read:
    """How LoKr splits a weight."""
    if _module(given) and _VARIANTS.get(_algorithm(given)) != "lokr":
        return {}, "it is for LoKr"
    return lokr_factor(value)


def lokr_factor(value: Any) -> Read:
    """A factor of LoKr, which is -1 there where it is 0 here."""
    both = "two factors as equal as possible, as here"
    return {"lora.factor": int(number(value))} if number(value) > 0 else ({}, both)


def conv_rank(value: Any, given: Given) -> Read:
    """The rank of 3×3 convolutions, and their alpha."""
    rank = int(number(value))
    if not rank or not _has_convs(given):
        return {}, "3×3 convolutions are not trained"
    if _is_complete(given):
        return {}, COMPLETE
    made: Made = {}
    if rank != first(given, "network_dim", default=0):
        made["lora.ranks"] = dict.fromkeys(CONV, rank)
    alpha = _conv_alpha(given)
    if alpha != first(given, "network_alpha", default=0):
        made["lora.alphas"] = dict.fromkeys(CONV, float(alpha))
    return made, "" if made else "as lora.rank and lora.alpha"


def _conv_alpha(given: Given) -> float:
    """Where it is not given, LyCORIS has that of all layers, and kohya's scripts have 1."""
    default = first(given, "network_alpha", default=1) if _module(given).startswith("lycoris") else 1
    return number(first(given, "network_args.conv_alpha", "conv_alpha", default=default))


def conv_alpha(value: Any, given: Given) -> Read:
    """The alpha of 3×3 convolutions."""
    rank = first(given, "network_args.conv_dim", "conv_dim", default=0)
    if is_off(rank) or not _has_convs(given):
        return {}, "3×3 convolutions are not trained"
    if _is_complete(given):
        return {}, COMPLETE_ALPHA
    if number(value) == first(given, "network_alpha", default=0):
        return {}, "as lora.alpha"
    return {"lora.alphas": dict.fromkeys(CONV, float(number(value)))}
