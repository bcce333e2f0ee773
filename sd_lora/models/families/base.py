"""What a model family is: facts and a few methods. One training loop serves every family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # facts are read without torch
    import torch
    from torch import Tensor, nn

    from sd_lora.data.pictures.views import Framing
    from sd_lora.models.objectives import Denoising

#: Tensors that steer the denoiser, batch first; which ones is the family's own affair.
Conditioning = dict[str, "Tensor"]


class ModelFamily(ABC):
    """Facts about a kind of diffusion model, and how to load, encode and denoise with it."""

    name: ClassVar[str]
    #: `_class_name` values of `model_index.json` that belong to the family
    pipeline_classes: ClassVar[tuple[str, ...]]
    #: name of the component that is trained
    denoiser: ClassVar[str]
    text_encoders: ClassVar[tuple[str, ...]]
    #: group → glob patterns over module names
    target_groups: ClassVar[Mapping[str, tuple[str, ...]]]

    @abstractmethod
    def load(self, folder: Path, dtype: torch.dtype) -> Any:
        """The frozen pipeline in `folder`, in evaluation mode, on the CPU. Raises BaseModelError."""

    @abstractmethod
    def adopt(self, pipe: Any, label: str) -> Any:
        """A pipeline that was made elsewhere, checked and frozen like one that `load` gives."""

    @abstractmethod
    def kind(self, pipe: Any) -> str:
        """The kind of base that other programs would call it: one of `kinds.KINDS`."""

    @abstractmethod
    def objective(self, pipe: Any, *, zero_terminal_snr: bool = False) -> Denoising:
        """The noise schedule and prediction type the base model was trained with; `zero_terminal_snr` rescales it."""

    @abstractmethod
    def native_size(self, pipe: Any) -> int:
        """The side in pixels of the pictures the base model was made for."""

    @abstractmethod
    def grain(self, pipe: Any) -> int:
        """What the sides of training pictures, in pixels, are multiples of, so that every level of the denoiser halves
        evenly."""

    @abstractmethod
    def latent_shape(self, pipe: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape (c, h', w') of the latents of pictures of `size`, (width, height) in pixels."""

    @abstractmethod
    def work(self, pipe: Any, size: tuple[int, int]) -> float:
        """Multiply-adds of a pass over one picture of `size`, (width, height) in pixels, roughly."""

    def parts(self, pipe: Any) -> list[nn.Module]:
        """Everything of `pipe` that has weights: the denoiser, the VAE and the text encoders."""
        return [getattr(pipe, name) for name in (self.denoiser, "vae", *self.text_encoders)]

    def noise(self, pipe: Any, size: tuple[int, int], seed: int) -> Tensor:
        """The noise (1, c, h', w') of `seed` that a picture of `size` is drawn from, as the pipeline's ``latents``.

        It comes from the CPU, so that it is the same on every device.
        """
        import torch

        denoiser = getattr(pipe, self.denoiser)
        noise = torch.randn(1, *self.latent_shape(pipe, size), generator=torch.Generator().manual_seed(seed))
        return noise.to(denoiser.device, denoiser.dtype)

    @abstractmethod
    def images_key(self, pipe: Any) -> str:
        """A hash of all that `encode_images` depends on besides the pictures."""

    @abstractmethod
    def denoiser_key(self, pipe: Any) -> str:
        """A hash by which the denoiser can be told from others of its kind, of a sample of its weights."""

    @abstractmethod
    def captions_key(self, pipe: Any) -> str:
        """A hash of all that `encode_captions` depends on besides the captions."""

    @abstractmethod
    def encode_images(self, pipe: Any, images: Tensor) -> Tensor:
        """Pictures (n, 3, h, w) in -1..1 → scaled latents (n, c, h', w'), the mean of the posterior, float32."""

    @abstractmethod
    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """Scaled latents (n, c, h', w') → pictures (n, 3, h, w), about -1..1."""

    @abstractmethod
    def encode_captions(self, pipe: Any, captions: Sequence[str]) -> Conditioning:
        """Captions → conditioning, batch first, differentiable in the weights of the text encoders."""

    def encode_framing(self, framings: Sequence[Framing]) -> Conditioning:  # noqa: ARG002
        """What the denoiser is told of the pictures' sizes and crops; most families tell it nothing."""
        return {}

    @abstractmethod
    def token_counts(self, pipe: Any, captions: Sequence[str]) -> list[int]:
        """How many tokens each caption has, ends included, in the tokenizer that needs the most."""

    @abstractmethod
    def token_limit(self, pipe: Any) -> int:
        """How many tokens a text encoder reads, ends included."""

    @abstractmethod
    def is_known_word(self, pipe: Any, word: str) -> bool:
        """Whether a tokenizer has a token of its own for `word`, as it has for words that its model has learnt."""

    @abstractmethod
    def overlong(self, pipe: Any, captions: Sequence[str]) -> list[int]:
        """Positions of the captions that a text encoder would cut short."""

    @abstractmethod
    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's prediction for noisy latents (n, c, h, w) at integer `timesteps` (n,)."""

    @abstractmethod
    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        """Encoded prompts as keyword arguments of the pipeline's call."""
