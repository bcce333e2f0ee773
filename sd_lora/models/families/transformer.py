"""What every family with a transformer has in common: a flow, tokens of latent places, blocks in stacks."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import BaseModelError
from sd_lora.models.families import unet_names
from sd_lora.models.families.base import Place
from sd_lora.models.families.latent import LatentFamily

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from sd_lora.models.objectives import Denoising

#: a segment of a path, as `unet_names.SEGMENT`, which names CLIP's
SEGMENT = re.compile(
    r"single_transformer_blocks|add_[qkv]_proj|to_add_out|ff_context|norm[12]_context|norm_out|pos_embed|time_text_embed"
    rf"|proj_mlp|(?:timestep|text|guidance|context|x)_embedder|{unet_names.SEGMENT.pattern}"
)
#: modules of an attention of text and picture together
JOINT_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


class TransformerFamily(LatentFamily):
    """A latent flow model with a transformer that reads pictures in patches of 2 × 2 latent places."""

    denoiser = "transformer"
    patch = 2
    #: stack of blocks in the denoiser → what it is called in strengths, the last to run last
    stacks: ClassVar[Mapping[str, str]]

    def part_of(self, name: str) -> Place:
        component, _, path = name.partition(".")
        stack, _, rest = path.partition(".")
        if component != self.denoiser or stack not in self.stacks:
            return (component,), 0
        return (component, self.stacks[stack], f"block_{rest.partition('.')[0]}"), 0

    def beyond_diffusers(self, names: Collection[str]) -> set[tuple[str, ...]]:
        """All blocks: diffusers takes one strength for a transformer."""
        return {part for part, _ in map(self.part_of, names) if len(part) > 1}

    def objective(self, pipe: Any, *, zero_terminal_snr: bool = False) -> Denoising:
        from sd_lora.models.objectives import FlowMatching
        from sd_lora.models.shift import shift_of

        if zero_terminal_snr:
            raise BaseModelError(
                f"training.zero_terminal_snr is for v-prediction, but {self.title} is a flow, which ends in noise "
                "alone; set training.zero_terminal_snr=false"
            )
        return FlowMatching(shift_of(pipe.scheduler, self.patch**2))

    def native_size(self, pipe: Any) -> int:
        return int(pipe.vae.config.sample_size)

    def grain(self, pipe: Any) -> int:
        return int(pipe.vae_scale_factor * self.patch)

    def style_block(self, pipe: Any) -> nn.Module:
        return getattr(self._net(pipe), list(self.stacks)[-1])[-1]

    def style_of(self, output: Any) -> Tensor:
        return (output[-1] if isinstance(output, tuple) else output).transpose(1, 2)

    def work(self, pipe: Any, size: tuple[int, int]) -> float:
        """Weights for every token, and attention of each token to all in every block."""
        tokens = size[0] * size[1] / self.grain(pipe) ** 2
        blocks = [block for stack in self.stacks for block in getattr(self._net(pipe), stack)]
        weights = sum(p.numel() for p in self._net(pipe).parameters())
        return tokens * (weights + 2 * len(blocks) * self._width(pipe) * tokens)

    def _width(self, pipe: Any) -> int:
        """Numbers in a token."""
        config = self._net(pipe).config
        return config.num_attention_heads * config.attention_head_dim


def parts(block: str, **shares: int) -> tuple[tuple[str, int], ...]:
    """Modules of `block` with their shares of the rows of one matrix, for `originals`; `__` stands for a dot."""
    return tuple((f"{block}.{name.replace('__', '.')}", share) for name, share in shares.items())


def paths(*patterns: str) -> re.Pattern[str]:
    """All paths of modules that match one of `patterns`."""
    return re.compile("|".join(patterns))
