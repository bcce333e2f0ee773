"""What a model family is: facts and a few methods. One training loop serves every family."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # facts are read without torch
    import torch
    from torch import Tensor, nn

    from sd_lora.data.pictures.views import Framing
    from sd_lora.models.objectives import Denoising

#: Tensors that condition the denoiser, batch first; which ones is up to the family.
Conditioning = dict[str, "Tensor"]

#: The parts a module is in, from the outside in, and its layer in the innermost: ``("unet", "up", "block_1"), 2``;
#: layer -1 belongs to the block as a whole, such as an upsampler.
Place = tuple[tuple[str, ...], int]


@dataclass(frozen=True)
class Component:
    """A part of the pipeline that can carry layers: its attribute `name` there, the `prefix` of its modules in kohya's
    keys, what it is called in sentences, and what else stands for it in other programs' keys."""

    name: str
    prefix: str
    shown: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of base that other programs distinguish.

    `marks`: the metadata that A1111, Forge and sd-scripts read (docs/file-format.md); `known_by`: patterns of those
    values in files of other programs; `version`: what A1111 and Forge call it; `width`: of what the cross-attention
    reads; `predicts_v`: whether v-prediction distinguishes it; `openclip`: text encoders whose queries, keys and values
    are one matrix in the original code; `has_pixel_projections`: proj_in and proj_out are 1 × 1 convolutions;
    `checkpoint`: the layout of its single files; `listed_by`: key and pattern of the metadata by which A1111 and Forge
    recognise it, if not by its architecture.
    """

    name: str
    marks: Mapping[str, str]
    known_by: tuple[str, ...]
    version: str
    width: int = 0
    predicts_v: bool = False
    openclip: tuple[str, ...] = ()
    has_pixel_projections: bool = False
    checkpoint: str = ""
    listed_by: tuple[str, str] | None = None


class ModelFamily(ABC):
    """Facts about a family of diffusion models, and how to load, encode and denoise with them."""

    name: ClassVar[str]
    #: its name in sentences
    title: ClassVar[str]
    #: `_class_name` values of `model_index.json` that belong to the family
    pipeline_classes: ClassVar[tuple[str, ...]]
    #: name of the component that is trained, and of its class in diffusers
    denoiser: ClassVar[str]
    denoiser_class: ClassVar[str]
    #: what can carry layers: the denoiser first, then the text encoders
    components: ClassVar[tuple[Component, ...]]
    #: text encoders that cannot
    readers: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[tuple[Kind, ...]]
    #: the shipped presets for its base models, the usual one first; without one it takes whatever presets suit any
    presets: ClassVar[tuple[str, ...]] = ()
    #: group → glob patterns over module names
    target_groups: ClassVar[Mapping[str, tuple[str, ...]]]
    #: endings of the modules whose inputs are as wide as a kind's `width`
    width_modules: ClassVar[tuple[str, ...]] = ()
    #: the layouts its files are written in, the usual one first
    layouts: ClassVar[tuple[str, ...]] = ("kohya", "diffusers")
    #: layout → the programs that load all of a file in it; a family without that is judged by the rules of `clients`
    read_by: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: whether an adapter for one of its kinds is for the others as well, as far as the shapes are the same
    shares_adapters: ClassVar[bool] = True
    #: paths in the denoiser of small modules that every step uses, which are never quantized
    unquantized: ClassVar[tuple[str, ...]] = ()
    #: whether its pictures are guided away from a negative prompt
    takes_negatives: ClassVar[bool] = True
    #: whether kohya's keys have the names of the original code, not those of diffusers
    writes_original: ClassVar[bool] = False
    #: program → patterns of modules that it does not know by diffusers' names in kohya's keys
    unmapped: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: module of the denoiser in the names of the original code, with # for a number → the modules that it is here, in
    #: the order of its rows, and the share of the rows that each has
    originals: ClassVar[Mapping[str, tuple[tuple[str, int], ...]]] = {}
    #: a segment of a module's path, for paths whose dots were written as underscores
    segment: ClassVar[re.Pattern[str]]

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """All that read captions."""
        return (*(each.name for each in self.components if each.name != self.denoiser), *self.readers)

    def group_of(self, name: str) -> str:
        """The first target group that module `name` is in, or ""."""
        groups = self.target_groups.items()
        return next((group for group, patterns in groups if any(fnmatchcase(name, p) for p in patterns)), "")

    def part_of(self, name: str) -> Place:
        """Where module `name` is: its component, and within a block also the block and the layer."""
        return (name.partition(".")[0],), 0

    def beyond_diffusers(self, names: Collection[str]) -> set[tuple[str, ...]]:  # noqa: ARG002
        """The blocks among the parts of `names` that diffusers' strengths by block do not reach completely."""
        return set()

    def kinds_by_modules(self, downs: Mapping[str, tuple[int, ...]]) -> list[Kind]:  # noqa: ARG002
        """The kinds an adapter can be for, if its modules (shapes of `down` by name) are in no other family."""
        return []

    def check_modules(self, names: Collection[str]) -> None:  # noqa: B027
        """AdapterError for a choice of modules to train that no other program would load."""

    def original_path(self, path: str) -> str:
        """Module `path` of the denoiser in the names of the original code; ValueError if it has none."""
        raise ValueError(path)

    def native_path(self, component: str, path: str) -> tuple[str, bool]:
        """Module `path` of a file in diffusers' names, and whether it had the original ones; ValueError if neither."""
        raise ValueError(f"{component}.{path}")

    def kohya_stem(self, name: str) -> str:
        """``unet.mid_block.….to_out.0`` → ``lora_unet_mid_block_…_to_out_0``. ValueError for a module that is not of
        the family, KeyError for a component that is not."""
        component, _, path = name.partition(".")
        prefix = {each.name: each.prefix for each in self.components}[component]
        if self.writes_original and component == self.denoiser:
            path = self.original_path(path)
        return prefix + path.replace(".", "_")

    def module_of_stem(self, stem: str) -> tuple[str, bool]:
        """The inverse of `kohya_stem`: the module in diffusers' names, and whether it had the original ones.
        ValueError if there is none."""
        for component in self.components:
            path = stem.removeprefix(component.prefix)
            if path != stem:
                return self.module_of_path(component.name, path)
        raise ValueError(stem)

    def module_of_path(self, component: str, path: str) -> tuple[str, bool]:
        """The module that a file calls `path`, whose dots may be underscores: its name in memory, and whether it had
        the original names. ValueError if the family has none of that name."""
        flat = path.replace(".", "_")
        dotted = ".".join(self.segment.findall(flat))
        if dotted.replace(".", "_") != flat:
            raise ValueError(path)
        native, is_original = self.native_path(component, dotted)
        return f"{component}.{native}", is_original

    def shape_with_kernel(self, name: str, shape: tuple[int, ...], kind: str) -> tuple[int, ...]:  # noqa: ARG002
        """The shape of the weight of module `name`, of which (out, in · kernel) is known, in a base of `kind`."""
        return shape

    @abstractmethod
    def load(self, folder: Path, dtype: torch.dtype) -> Any:
        """The frozen pipeline in `folder`, in evaluation mode, on the CPU. Raises BaseModelError."""

    #: whether `fill` can give a component its weights again, so that it need not be in memory all the time
    refills: ClassVar[bool] = False

    def load_unfilled(self, folder: Path, dtype: torch.dtype) -> Any:
        """As `load`, but the denoiser may be without storage until `fill` gives it its weights."""
        return self.load(folder, dtype)

    def fill(self, pipe: Any, component: str, folder: Path, dtype: torch.dtype) -> None:
        """Give a component of `pipe` that has no storage its weights of the pipeline in `folder`, on the CPU. Raises
        BaseModelError."""
        raise NotImplementedError

    @abstractmethod
    def adopt(self, pipe: Any, label: str) -> Any:
        """A pipeline that was loaded elsewhere, checked and frozen as `load` does; errors call it `label`."""

    @abstractmethod
    def kind(self, pipe: Any) -> Kind:
        """Which of its `kinds` a base is."""

    @abstractmethod
    def objective(self, pipe: Any, *, zero_terminal_snr: bool = False) -> Denoising:
        """The noise schedule and prediction type the base model was trained with; `zero_terminal_snr` rescales it."""

    @abstractmethod
    def native_size(self, pipe: Any) -> int:
        """The side in pixels of the pictures the base model was made for."""

    @abstractmethod
    def grain(self, pipe: Any) -> int:
        """The sides of training pictures, in pixels, are multiples of this, so that every level of the denoiser halves
        evenly."""

    @abstractmethod
    def latent_shape(self, pipe: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape (c, h', w') of the latents of pictures of `size`, (width, height) in pixels."""

    @abstractmethod
    def style_block(self, pipe: Any) -> nn.Module:
        """The module of the denoiser whose output tells styles apart best."""

    @abstractmethod
    def style_of(self, output: Any) -> Tensor:
        """The output of `style_block` as (n, channels, places)."""

    @abstractmethod
    def work(self, pipe: Any, size: tuple[int, int]) -> float:
        """Multiply-adds of a pass over one picture of `size`, (width, height) in pixels, roughly."""

    @abstractmethod
    def text_parts(self, pipe: Any) -> list[tuple[Any, Any]]:
        """Each text encoder that the pipeline has, with its tokenizer."""

    def parts(self, pipe: Any) -> list[nn.Module]:
        """Everything of `pipe` that has weights: the denoiser, the VAE and the text encoders that it has."""
        named = (getattr(pipe, name) for name in (self.denoiser, "vae", *self.text_encoders))
        return [part for part in named if part is not None]

    def notes(self, pipe: Any) -> list[str]:  # noqa: ARG002
        """What a user should know of a base model of the family, as sentences."""
        return []

    def guidance_in_training(self, pipe: Any) -> float | None:  # noqa: ARG002
        """The guidance that a base model with distilled guidance gets as an input in training; None for others."""
        return None

    def idle_words(self, negatives: Collection[str]) -> str:
        """What follows if one of `negatives`, the negative prompts of pictures, has no effect; "" if all act."""
        if self.takes_negatives or not any(negatives):
            return ""
        return f"a negative prompt has no effect on {self.title}, whose guidance is distilled"

    def noise(self, pipe: Any, size: tuple[int, int], seed: int) -> Tensor:
        """The noise (1, c, h', w') of `seed` that a picture of `size` is drawn from.

        It comes from the CPU, so that it is the same on every device.
        """
        import torch

        denoiser = getattr(pipe, self.denoiser)
        noise = torch.randn(1, *self.latent_shape(pipe, size), generator=torch.Generator().manual_seed(seed))
        return noise.to(denoiser.device, denoiser.dtype)

    def packed(self, latents: Tensor) -> Tensor:
        """Latents (n, c, h', w') as the pipeline has them."""
        return latents

    def unpacked(self, pipe: Any, latents: Tensor, size: tuple[int, int]) -> Tensor:  # noqa: ARG002
        """The pipeline's latents of pictures of `size`, (width, height) in pixels, as (n, c, h', w')."""
        return latents

    @abstractmethod
    def images_key(self, pipe: Any) -> str:
        """A hash of all that `encode_images` depends on besides the pictures."""

    @abstractmethod
    def denoiser_key(self, pipe: Any) -> str:
        """A hash that distinguishes the denoiser from others of its kind, of a sample of its weights."""

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
        """Conditioning on the pictures' sizes and crops; most families have none."""
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

    def overlong(self, pipe: Any, captions: Sequence[str]) -> list[int]:
        """Positions of the captions that a text encoder would cut short."""
        limit = self.token_limit(pipe)
        return [i for i, count in enumerate(self.token_counts(pipe, captions)) if count > limit]

    @abstractmethod
    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's prediction for noisy latents (n, c, h, w) at the objective's `timesteps` (n,)."""

    @abstractmethod
    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        """Encoded prompts as keyword arguments of the pipeline's call, tensors or lists of them."""
