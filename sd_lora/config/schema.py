"""The typed config of a run: frozen dataclasses, TOML, and `section.key=value` overrides. Imports no torch.

Every default lives here and nowhere else; a preset is a TOML file that changes some of them. Unknown keys and values
out of range are collected and raised together, each with the nearest known name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sd_lora.config.conflicts import conflicts
from sd_lora.errors import ConfigError, nearest

_STRICT = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)


def _listed(value: object) -> object:
    """``attn,ff`` on the command line means the list of both, and ``1`` the list of that number."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(pattern=r"\S")]
Strengths = Annotated[tuple[float, ...], Field(min_length=1), BeforeValidator(_listed)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=8, le=4096, multiple_of=8)], ...], BeforeValidator(_listed)]
Suffixes = Annotated[
    tuple[Annotated[str, Field(pattern=r"^\.[^/\\\s]+$")], ...], Field(min_length=1), BeforeValidator(_listed)
]
Trackers = Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], BeforeValidator(_listed)]
Targets = Annotated[tuple[Text, ...], Field(min_length=1), BeforeValidator(_listed)]


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """The base model: ``tiny`` (the embedded one), a diffusers pipeline folder, one ``.safetensors`` checkpoint, or the
    id of a hub model, which is the only thing ever downloaded."""

    base: str = "tiny"
    #: commit, tag or branch of a hub model
    revision: str = ""
    #: for one checkpoint file: a folder with the tokenizer (and configs, if its sizes are not the published ones)
    config: str = ""
    #: what the base model predicts; auto: what it says of itself
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = "auto"
    #: auto: bfloat16 on CUDA devices that have it, float32 elsewhere. LoRA weights are float32 always.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    #: auto: CUDA, else MPS (Apple's), else the CPU
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    #: hold the frozen denoiser's linear layers in fewer bits; on CUDA devices, with sd-lora[cuda]
    quantize: Literal["none", "int8", "fp8", "nf4"] = "none"


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """The images and their captions."""

    #: a folder of images, or kohya's dataset TOML
    folder: str = ""
    #: how the folder is laid out; auto: found out, and told
    layout: Literal["auto", "metadata", "kohya-toml", "kohya", "sidecars", "bare"] = "auto"
    #: side in pixels of the square whose area every training picture has; 0: the base model's own size
    resolution: Annotated[int, Field(ge=0, le=4096, multiple_of=8)] = 0
    #: further sides: each image is seen at `resolution` and at these in turn
    more_resolutions: Sizes = ()
    #: train images in their own shape; false: crop all to squares
    buckets: bool = True
    #: enlarge images that are smaller than trained; false: train them at their own size
    upscale: bool = True
    #: positions from which an image that must be cropped is seen in turn
    crops: Annotated[int, Field(ge=1, le=64)] = 4
    #: mirror every second exposure, except where the caption says left, right or text
    flip: bool = True
    #: the word that calls the style: captions become "<caption>, in <trigger> style"
    trigger: Annotated[str, Field(pattern=r"^([^,\s][^,\n]*)?$")] = ""
    #: used for an image without a caption; empty: a missing caption is an error, unless there is none at all
    default_caption: str = ""
    #: endings of caption files, the preferred one first
    caption_suffixes: Suffixes = (".txt", ".caption")
    #: each: every line of a caption file is a caption of its own, one chosen per exposure; joined: all lines are one
    caption_lines: Literal["each", "joined"] = "each"
    #: shuffle comma-separated tags
    shuffle_tags: bool = False
    #: leave each tag out with this probability
    tag_dropout: Decay = 0.0
    #: the first tags, which are never moved or left out
    keep_tags: Annotated[int, Field(ge=0)] = 0
    #: how many shuffled versions of a caption are made
    caption_variants: Annotated[int, Field(ge=1, le=256)] = 8
    #: the colour behind transparent images: a name or #rrggbb
    background: Text = "white"
    #: learn only the white parts of NAME_mask.png or NAME-masklabel.png, where there is one
    masks: bool = True
    #: a folder of regularisation images, which are trained without the trigger word
    regularisation: str = ""
    #: weight of regularisation images in the loss
    prior_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    #: leave out images that cannot be read, with a warning; false: they are an error
    skip_bad: bool = False
    #: where encoded images and captions are kept: a folder that runs may share; empty: the run folder
    cache: str = ""


@dataclass(frozen=True, config=_STRICT)
class LoraConfig:
    """Where LoRA layers sit and how large they are."""

    #: lora; dora (arXiv 2402.09353), which only diffusers applies exactly
    variant: Literal["lora", "dora"] = "lora"
    #: groups (attn, ff, conv, proj; text, text_ff for the text encoders) or patterns such as "unet.mid_block.*"
    targets: Targets = ("attn", "ff")
    #: how much a layer can learn, and how large the file is
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    #: a layer's change is multiplied by alpha / rank
    alpha: Positive = 16.0
    #: pattern = rank, for targets that need another rank than `rank`
    ranks: dict[str, Annotated[int, Field(ge=1, le=1024)]] = field(default_factory=dict)
    #: pattern = alpha, for targets that need another alpha than `alpha`
    alphas: dict[str, Positive] = field(default_factory=dict)
    #: share of a layer's inputs that is left out at random in each step
    dropout: Decay = 0.0
    #: share of a layer's ranks that is left out at random in each step
    rank_dropout: Decay = 0.0
    #: an adapter file to go on from; its modules, ranks, alphas and variant then take the place of all the above
    init: str = ""


@dataclass(frozen=True, config=_STRICT)
class OptimizerConfig:
    """The optimizer, and how its rate rises and falls."""

    #: adamw and adafactor are torch's own; adamw8bit needs sd-lora[cuda], the others
    #: sd-lora[optimizers]
    name: Literal["adamw", "adamw8bit", "adafactor", "prodigy", "schedule-free", "lion"] = "adamw"
    #: the peak rate; rule of thumb: 1e-4 times the square root of the batch size
    learning_rate: Positive = 1e-4
    #: of the text encoders' layers; absent: half of `learning_rate`
    text_learning_rate: Positive | None = None
    #: how much of the averages of gradients and of their squares stays in each step; as it is here: the optimizer's own
    betas: Annotated[tuple[Decay, Decay], BeforeValidator(_listed)] = (0.9, 0.999)
    #: share of each weight, times the rate, that is taken away in each step
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    #: gradients are scaled down to this norm where theirs is larger
    clip_norm: Positive = 1.0
    #: share of the steps in which the rate rises to its peak
    warmup: Share = 0.05
    #: the rate at the last step, as a share of the peak
    final: Share = 0.1
    #: how the rate falls after the warm-up
    schedule: Literal["cosine", "linear", "polynomial", "constant"] = "cosine"
    #: exponent of the polynomial schedule
    power: Positive = 2.0
    #: LoRA+ (arXiv 2402.12354): the rate of the layers' up matrices as a multiple of the others'
    plus_ratio: Annotated[float, Field(ge=1)] = 1.0
    #: the largest norm that a layer's change of a weight may have; 0: any
    max_norm: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """How long, how, and from which noise levels."""

    #: absent: 120 exposures of each image, 1,200 at least and 4,000 at most in all (twice that beside regularisation
    #: images), divided by the batch size
    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    #: images in a step, over all processes
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 1
    #: how many of them a process computes at once, which costs time, saves memory and changes nothing else; absent: as
    #: many as fit
    micro_batch: Count | None = None
    #: compute activations again in the backward pass instead of keeping them; absent: where memory is short
    gradient_checkpointing: bool | None = None
    #: compile the denoiser with torch.compile
    compile: bool = False
    #: the text encoders' layers stay as they are after so many steps; absent: they are trained to the end
    text_steps: Count | None = None
    #: keep an adapter every n steps (0: only the last)
    save_every: Annotated[int, Field(ge=0)] = 0
    #: make a checkpoint, from which the run can be resumed, every n steps (0: only when it is stopped)
    checkpoint_every: Annotated[int, Field(ge=0)] = 100
    #: how many checkpoints stay
    keep_checkpoints: Count = 2
    #: of everything that is random in training
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    #: share of exposures trained with an empty caption
    caption_dropout: Share = 0.1
    #: min-SNR weighting (arXiv 2303.09556); absent: the plain loss
    min_snr_gamma: Positive | None = None
    #: uniform, or half uniform and half log-SNR ~ N(mean, std)
    timesteps: Literal["uniform", "mixed"] = "uniform"
    #: the share of the noise schedule that is trained, from no noise (0) to nothing else (1)
    timestep_range: Annotated[tuple[Share, Share], BeforeValidator(_listed)] = (0.0, 1.0)
    #: for mixed timesteps: the middle of the noise levels that are drawn more often, as the log of signal to noise
    log_snr_mean: float = -3.0
    #: for mixed timesteps: how far they spread
    log_snr_std: Positive = 2.0
    #: l2, l1, or a pseudo-Huber loss that is robust against odd images where there is much noise (arXiv 2403.16728)
    loss: Literal["l2", "l1", "huber"] = "l2"
    #: the pseudo-Huber loss's threshold where there is most noise
    huber_threshold: Annotated[float, Field(ge=1e-3, le=1)] = 0.1
    #: weigh steps by 1 / sqrt(SNR) (arXiv 2310.08442)
    debiased: bool = False
    #: train as if the noise schedule ended without any signal (arXiv 2305.08891); for v-prediction
    zero_terminal_snr: bool = False
    #: noise of a constant level added to each picture's noise, for darker and brighter pictures
    noise_offset: Annotated[float, Field(ge=0)] = 0.0
    #: coarser noises added to the noise, each weighing so much of the one before; 0: none
    multires_noise: Decay = 0.0
    #: perturb the noise that goes into the picture, not the one that is learnt (arXiv 2301.11706)
    input_perturbation: Annotated[float, Field(ge=0)] = 0.0
    #: also average the adapter over its steps: ema, or the plain mean of the last quarter (tail); a file of its own
    average: Literal["none", "ema", "tail"] = "none"
    #: how much of the moving average stays in each step
    ema_decay: Decay = 0.99
    #: share of the images that is held out to measure the validation loss
    hold_out: Decay = 0.0
    #: measure the validation loss every n steps and after the last (0: never)
    validate_every: Annotated[int, Field(ge=0)] = 0
    #: where else losses go: tensorboard, wandb, trackio
    trackers: Trackers = ()


@dataclass(frozen=True, config=_STRICT)
class PreviewConfig:
    """The sample grids drawn while training."""

    #: draw a grid every n steps (0: only after the last)
    every: Annotated[int, Field(ge=0)] = 0
    #: absent: the captions of the first three images
    prompts: tuple[Text, ...] = ()
    #: of the adapter, one column each; 0, the base model, always comes first
    strengths: Strengths = (0.0, 0.5, 1.0)
    #: classifier-free guidance scale
    guidance: Annotated[float, Field(ge=0)] = 5.0
    #: denoising steps of each picture
    inference_steps: Count = 25
    #: of the noise that all pictures start from
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


@dataclass(frozen=True, config=_STRICT)
class OutputConfig:
    """Where the run folder goes."""

    #: must not exist yet; empty: runs/<name of the image folder>
    folder: str = ""
    #: shown by other programs as the adapter's name; empty: the trigger word or the image folder's name
    name: str = ""
    #: of the adapter file's weights; every program reads float16
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """Everything that defines a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    lora: LoraConfig = LoraConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    preview: PreviewConfig = PreviewConfig()
    output: OutputConfig = OutputConfig()

    def to_toml(self) -> str:
        """The config as TOML; `read_config` of it gives an equal config."""
        return tomli_w.dumps(_without_none(asdict(self)))


_ADAPTER = TypeAdapter(RunConfig)
SECTIONS: dict[str, type] = {f.name: type(f.default) for f in fields(RunConfig)}


def parse_config(tables: Sequence[tuple[str, Mapping[str, Any]]], overrides: Sequence[str] = ()) -> RunConfig:
    """Merge `tables` (label, content), later ones winning, then `overrides` (``section.key=value``).

    Raises ConfigError naming every unknown key and unusable value at once.
    """
    merged: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for label, table in [*tables, *(_override(text, problems) for text in overrides)]:
        for section, content in table.items():
            if section not in SECTIONS:
                problems.append(f'{label}: unknown section "{section}"; {nearest(section, SECTIONS)}')
            elif not isinstance(content, Mapping):
                problems.append(f'{label}: "{section}" is a section; write {section}.key=value')
            else:
                known = [f.name for f in fields(SECTIONS[section])]
                for key in sorted(set(content) - set(known)):
                    problems.append(f'{label}: unknown key "{section}.{key}"; {_suggest(section, key, known)}')
                yes_no = {f.name for f in fields(SECTIONS[section]) if f.type in (bool, "bool", "bool | None")}
                for key in sorted(
                    k for k in content if k in known and isinstance(content[k], bool) and k not in yes_no
                ):
                    problems.append(f"{label}: {section}.{key} takes no true or false")
                merged.setdefault(section, {}).update({k: v for k, v in content.items() if k in known})
    config = None
    try:
        config = _ADAPTER.validate_python(merged)
    except ValidationError as error:
        problems += [_sentence(detail) for detail in error.errors()]
    if config is not None:
        problems += conflicts(config)
    if problems or config is None:
        raise ConfigError("; ".join(dict.fromkeys(problems)))
    return config


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a TOML config file, then apply `overrides`."""
    return parse_config([(Path(path).name, read_toml(path))], overrides)


def read_toml(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"config file {path} does not exist; name an existing TOML file or a preset") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read as TOML: {error}") from error


def _override(text: str, problems: list[str]) -> tuple[str, dict[str, Any]]:
    path, equals, value = text.partition("=")
    section, dot, key = path.strip().partition(".")
    if not equals or not dot or not key:
        problems.append(f'"{text}" is no override; write section.key=value, such as lora.rank=8')
        return text, {}
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is a string
    return text, {section: {key: parsed}}


def _suggest(section: str, key: str, known: list[str]) -> str:
    everywhere = {f.name: name for name, kind in SECTIONS.items() for f in fields(kind)}
    if key not in known and key in everywhere:
        return f'did you mean "{everywhere[key]}.{key}"?'
    return nearest(key, known).replace('mean "', f'mean "{section}.')


def _sentence(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "string_unicode":
        return f"{place} holds bytes that are no text: {detail['input']!r} was given"
    message = str(detail["msg"]).removeprefix("Input ").removeprefix("Value ")
    return f"{place} {message[:1].lower()}{message[1:]}, but {detail['input']!r} was given"


def _without_none(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}
