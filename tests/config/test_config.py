"""The typed config: strict, all problems at once, and the same again after a trip through TOML."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from rows import every_row

from sd_lora.commands.options import images_config
from sd_lora.config.presets import load_config, preset_names
from sd_lora.config.reading import parse_config, read_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config([], overrides)
    return str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    assert parse_config([]) == RunConfig()


@pytest.mark.parametrize(
    ("override", "given", "meant"),
    [
        ("lora.rnak=8", "lora.rnak", "lora.rank"),
        ("optimizer.learning_rat=1e-4", "optimizer.learning_rat", "optimizer.learning_rate"),
        ("trainig.steps=3", "trainig", "training"),
    ],
)
def test_a_misspelt_name_suggests_the_nearest(override: str, given: str, meant: str) -> None:
    message = refusal(override)
    assert f'"{given}"' in message
    assert f'did you mean "{meant}"?' in message


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("training.rank=8", "lora.rank"),
        ("lora.learning_rate=1", "optimizer.learning_rate"),
        ("model.trigger=x", "data.trigger"),
    ],
)
def test_a_key_of_another_section_is_found_there(override: str, meant: str) -> None:
    assert f'did you mean "{meant}"?' in refusal(override)


def test_a_name_near_to_nothing_lists_what_is_known() -> None:
    message = refusal("zzzz.qqqq=1")
    assert all(
        section in message for section in ("model", "data", "lora", "optimizer", "training", "preview", "output")
    )


def test_all_problems_are_reported_at_once() -> None:
    table = {"lora": {"rank": 0, "rnak": 4}, "nonsense": {"a": 1}, "training": 3}
    with pytest.raises(ConfigError) as caught:
        parse_config([("my.toml", table)], ["optimizer.learning_rate=-1", "data.resolution=63", "preview"])
    message = str(caught.value)
    for part in (
        "lora.rank ",
        "lora.rnak",
        "nonsense",
        '"training" is a section',
        "learning_rate",
        "resolution",
        '"preview"',
    ):
        assert part in message
    assert "my.toml" in message
    assert "\n" not in message


@every_row(
    "override",
    [
        "lora.rank=0", "lora.rank=-3", "lora.rank=many", "lora.alpha=0", "lora.alpha=nan", "lora.targets=[]",
        "optimizer.learning_rate=nan", "optimizer.learning_rate=inf", "optimizer.learning_rate=-1e-4",
        "optimizer.learning_rate=0", "optimizer.betas=[0.9]", "data.resolution=63", "data.resolution=-8",
        "data.trigger=a,b", "data.flip=perhaps", "training.steps=0", "training.batch_size=0",
        "training.caption_dropout=1.5", "training.caption_dropout=nan", "training.timesteps=sometimes",
        "training.seed=-1", "training.seed=4294967296", "training.min_snr_gamma=0", "preview.strengths=[]",
        "preview.strengths=[nan]", "preview.guidance=inf", "model.dtype=float8", "output.dtype=int8",
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(override: str) -> None:
    assert override.partition("=")[0] in refusal(override)


def test_a_refused_value_is_shown() -> None:
    assert "-0.5 was given" in refusal("optimizer.learning_rate=-0.5")


@every_row(
    "override, message",
    [
        ("training.threads=many", "should be a whole number, or auto, but 'many' was given"),
        ("training.threads=0", "should be greater than or equal to 1, or auto, but 0 was given"),
        ("training.threads=true", "threads cannot be true or false"),
        ("training.micro_batch=auto", "should be a whole number, or absent, but 'auto' was given"),
        ("training.gradient_checkpointing=maybe", "should be 'ff', true or false, or absent, but 'maybe' was given"),
        ("training.compile=maybe", "should be true or false, but 'maybe' was given"),
        ("training.fast=maybe", "should be 'auto' or 'off', but 'maybe' was given"),
        ("lora.rank=many", "lora.rank should be a whole number, but 'many' was given"),
        ("lora.alpha=much", "lora.alpha should be a number, but 'much' was given"),
    ],
)
def test_a_refusal_names_what_else_the_setting_may_be(override: str, message: str) -> None:
    assert message in refusal(override)


def test_a_preview_seed_no_generator_takes_is_refused_before_training() -> None:
    assert "preview.seed" in refusal(f"preview.seed={2**64}")


@every_row(
    "override, section, key, value",
    [
        ("lora.rank=8", "lora", "rank", 8),
        ("optimizer.learning_rate=2e-3", "optimizer", "learning_rate", 2e-3),
        ("data.flip=false", "data", "flip", False),
        ('lora.targets=["attn", "unet.mid_block.*"]', "lora", "targets", ("attn", "unet.mid_block.*")),
        ("preview.strengths=[0, 0.5]", "preview", "strengths", (0.0, 0.5)),
        ("data.trigger=xlora", "data", "trigger", "xlora"),
        ("data.folder=/photos/my cat", "data", "folder", "/photos/my cat"),
        ('data.trigger="123"', "data", "trigger", "123"),
        ("data.default_caption=a = b", "data", "default_caption", "a = b"),
        ("data.folder=", "data", "folder", ""),
        ('lora.ranks={"unet.mid_block.*" = 4}', "lora", "ranks", {"unet.mid_block.*": 4}),
    ],
)
def test_override_values(override: str, section: str, key: str, value: object) -> None:
    read = getattr(getattr(parse_config([], [override]), section), key)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["lora.rank", "lora=8", "=8", "rank=8", "lora.=8"])
def test_what_is_no_override_is_told_the_form(text: str) -> None:
    message = refusal(text)
    assert f'"{text}"' in message
    assert "section.key=value" in message


def test_later_tables_and_then_overrides_win() -> None:
    tables = [("one", {"lora": {"rank": 2, "alpha": 3.0}}), ("two", {"lora": {"rank": 5}})]
    assert parse_config(tables).lora.rank == 5
    config = parse_config(tables, ["lora.rank=7", "lora.rank=9"])
    assert (config.lora.rank, config.lora.alpha) == (9, 3.0)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_survives_toml(name: str, tmp_path: Path) -> None:
    config = load_config(name, "data.folder=photos")
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml(), "utf-8")
    assert read_config(file) == config


def test_every_kind_of_value_survives_toml(tmp_path: Path) -> None:
    config = load_config(
        "tiny-style", 'data.folder=C:\\photos "of" cats', "data.trigger=žluťoučký 🎨", 'lora.ranks={"unet.*.to_q" = 2}',
        'preview.prompts=["a \\"b\\"\\nc", "d"]', "training.weighting=min-snr", "optimizer.learning_rate=1e-7",
        'lora.alphas={"unet.*" = 0.1}',
    )  # fmt: skip
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml(), "utf-8")
    assert read_config(file) == config
    assert load_config(str(file), "lora.rank=3") == replace(config, lora=replace(config.lora, rank=3))


@pytest.mark.parametrize("content", [b"lora = [", b"\xff\xfe\x00", b"[lora]\nrank = 1\nrank = 2\n"])
def test_a_broken_toml_file_is_a_config_error(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        read_config(file)


def test_a_missing_toml_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_config(tmp_path / "none.toml")


def test_configs_are_frozen() -> None:
    config = RunConfig()
    with pytest.raises(FrozenInstanceError):
        config.lora.rank = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        config.lora = config.lora  # type: ignore[misc]


def test_replacing_a_value_is_checked_too() -> None:
    with pytest.raises(ValueError, match="rank"):
        replace(RunConfig().lora, rank=0)


def test_a_list_may_be_written_with_commas() -> None:
    config = parse_config([], ["lora.targets=attn,ff", "preview.strengths=0.5, 1"])
    assert config.lora.targets == ("attn", "ff")
    assert config.preview.strengths == (0.5, 1.0)


@pytest.mark.parametrize("override", ["lora.rank=true", "training.steps=true", "optimizer.learning_rate=false"])
def test_true_is_no_number(override: str) -> None:
    with pytest.raises(ConfigError, match="cannot be true or false"):
        parse_config([], [override])
    assert parse_config([], ["data.flip=false"]).data.flip is False


@pytest.mark.parametrize(
    "override",
    [
        "training.batch_size=4097", "training.steps=10000001", "data.resolution=4104", "data.more_resolutions=64,8192",
        "data.prior_weight=1e300",
    ],
)  # fmt: skip
def test_values_that_no_machine_bears_are_refused(override: str) -> None:
    assert override.partition("=")[0] in refusal(override)
    parse_config([], ["training.batch_size=4096", "training.steps=10000000", "data.resolution=4096"])


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.shuffle_tags=true", "data.caption_variants=1"), ("data.tag_dropout=0.5", "data.caption_variants=1"),
        ("data.more_resolutions=64,96,64",), ("optimizer.schedule=constant", "optimizer.final=0.5"),
        ("optimizer.schedule=linear", "optimizer.power=3"), ("optimizer.warmup=1",),
        ("training.weighting=debiased", "training.min_snr_gamma=3"),
        ("training.weighting=debiased", "training.zero_terminal_snr=true"),
        ("lora.init=a.safetensors", "lora.variant=dora"), ("training.steps=4", "training.text_steps=4"),
    ],
)  # fmt: skip
def test_options_that_cannot_act_are_refused(overrides: tuple[str, ...]) -> None:
    assert overrides[-1].partition("=")[0] in refusal(*overrides)


@every_row("text", ["d\x7f", 'a "b"', "C:\\x", "[1]", "true", "a\nb", "\udcff"])
def test_options_are_taken_as_they_are(text: str) -> None:
    assert load_config("", options={"data": {"folder": text}}).data.folder == text
    assert images_config(Path(text), "", {"data.trigger": ""}, ["lora.rank=3"]).data.folder == text


def test_an_option_of_bytes_that_are_no_text_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"data\.trigger has bytes that are not text"):
        load_config("", options={"data": {"trigger": "\udcff"}})


def test_an_option_chooses_the_preset_and_overrides_come_last() -> None:
    assert load_config(options={"model": {"base": "/models/sd15"}}).lora == load_config("style").lora
    assert load_config("", "lora.rank=3", options={"lora": {"rank": 5}}).lora.rank == 3
