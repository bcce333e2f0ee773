"""Activations that are computed again in the backward pass instead of being kept: less memory, more time, and the same
gradients."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Recomputed = Literal["ff"] | bool
#: from the fastest to the leanest: nothing, those of the feed-forward layers, all
STEPS_DOWN: tuple[Recomputed, ...] = (False, "ff", True)


def recompute(denoiser: nn.Module, what: Recomputed) -> None:
    """Have `denoiser`, a model of diffusers, compute `what` again in its backward passes from here on.

    The feed-forward layers widen each place to four or eight times its channels, so they keep much for what they
    compute: they are the cheapest to compute again.
    """
    from torch.utils.checkpoint import checkpoint

    model: Any = denoiser
    if what is True:
        model.enable_gradient_checkpointing()
    elif getattr(model, "is_gradient_checkpointing", False):
        model.disable_gradient_checkpointing()
    for module in denoiser.modules():
        if type(module).__name__ == "FeedForward":  # each family of diffusers has a class of that name
            vars(module).pop("forward", None)
            if what == "ff":
                module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def leaner(one: Recomputed, other: Recomputed) -> Recomputed:
    """The one that keeps less."""
    return one if STEPS_DOWN.index(one) > STEPS_DOWN.index(other) else other


def described(what: Recomputed) -> str:
    """`what` in words, as in "with gradient checkpointing"."""
    if what == "ff":
        return "gradient checkpointing of the feed-forward layers"
    return "gradient checkpointing" if what else "no gradient checkpointing"
