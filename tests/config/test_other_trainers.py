"""The table of other trainers' names, row by row: what is a setting here exists, is usable and has the effect that was
asked for; what is not is said to be so. `python tests/config/test_other_trainers.py` draws the tables of the page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rows import every_row

from sd_lora.config.other_trainers.row import Made, Row
from sd_lora.config.other_trainers.table import TRAINERS, Trainer, answer, found, overrides
from sd_lora.config.presets import load_config, suggested_option, suggested_setting
from sd_lora.config.reading import parse_config, wrong_value
from sd_lora.config.schema import SECTIONS, RunConfig
from sd_lora.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "from-other-trainers.md"
ROWS = [(trainer, name, row) for trainer in TRAINERS for row in trainer.rows for name in row.names]
HERE = [item for item in ROWS if item[2].convert is not None]
NOT_HERE = [(trainer, row) for trainer in TRAINERS for row in trainer.rows if row.convert is None]


def label(item: Any) -> str:
    return f"{item[0].name}: {' '.join(item[1].names) if isinstance(item[1], Row) else item[1]}"


def tree_of(made: Made) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for setting, value in made.items():
        section, _, key = setting.partition(".")
        tree.setdefault(section, {})[key] = value
    return tree


def values(config: RunConfig, made: Made) -> Made:
    return {setting: getattr(getattr(config, setting.split(".")[0]), setting.split(".")[1]) for setting in made}


def beside(trainer: Trainer, row: Row) -> Made:
    """The settings here of what an example stands beside, which is given by their names or by ours."""
    made: Made = {}
    for name, value in row.beside.items():
        theirs = trainer.row(name)
        ours = name.split(".")[0] in SECTIONS
        made |= {name: value} if ours else theirs.read(value, row.beside)[0] if theirs else {}
    return made


@every_row("trainer, name, row", HERE, label)
def test_what_is_here_exists_and_has_the_effect_asked_for(trainer: Trainer, name: str, row: Row) -> None:
    made, _ = row.read(row.example, {**row.beside, name: row.example})
    assert made == row.becomes
    assert made, "a row without an effect is one of what is not here"
    for setting, value in made.items():
        assert wrong_value(setting, value) == ""
    needed = {"lora.targets": ["attn", "conv"]} if "lora.ranks" in made or "lora.alphas" in made else {}
    tree = tree_of({**needed, **beside(trainer, row), **made})
    config = parse_config([("", tree)])  # which refuses what cannot act
    for setting, value in values(config, made).items():
        given = made[setting]
        assert (list(value) if isinstance(given, list) else value) == given


@every_row("trainer, name, row", [item for item in HERE if found(item[1]) == (item[0], item[2])], label)
def test_the_remedy_of_a_hint_done_as_told_has_the_effect(trainer: Trainer, name: str, row: Row) -> None:
    said = answer(name, row.example)
    assert said.startswith(f"{name} is {trainer.name}'s name; here it is {' and '.join(row.becomes)}")
    made, _ = row.read(row.example, {name: row.example})
    if "write" in said and "which sd-lora plan shows" not in said:
        written = overrides(made)
        assert shlex.join(written) in said
        unset = ["training.weighting=none"] if "training.zero_terminal_snr" in made else []
        base = tree_of(beside(trainer, row))
        config = parse_config([("", base)], [*unset, *written])
        for setting, value in values(config, made).items():
            assert (list(value) if isinstance(made[setting], list) else value) == made[setting]


@every_row("trainer, row", NOT_HERE, label)
def test_what_is_not_here_is_said_with_what_follows(trainer: Trainer, row: Row) -> None:
    assert re.fullmatch(r"[a-zA-Z{].{10,}[^.;]", row.why), row.why
    for name in row.names:
        assert row.read(True, {name: True}) == ({}, row.why)
        if found(name) == (trainer, row):
            assert answer(name, "true") == f"{name} is {trainer.name}'s name for what does not exist here: {row.why}"


@every_row("trainer", TRAINERS, lambda trainer: trainer.name)
def test_each_name_has_one_row_and_each_default_a_row(trainer: Trainer) -> None:
    names = [name for row in trainer.rows for name in row.names]
    assert sorted(names) == sorted(set(names))
    for name, value in trainer.defaults.items():
        assert name in names, name
        row = trainer.row(name)
        assert row is not None
        assert row.convert is not None
        assert all(wrong_value(*item) == "" for item in row.read(value, trainer.defaults)[0].items())


def test_settings_that_rows_name_in_passing_exist() -> None:
    known = {f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.__dataclass_fields__}
    texts = [row.why for trainer in TRAINERS for row in trainer.rows]
    named = {word for text in texts for word in re.findall(rf"\b(?:{'|'.join(SECTIONS)})\.[a-z_]+", text)}
    assert len(named) > 20
    assert named <= known


# ---- where names are answered


def refusal(*settings: str, preset: str = "tiny-style") -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(preset, *settings)
    return str(caught.value)


@every_row(
    "override, said",
    [
        ("network_dim=32", "network_dim is kohya's name; here it is lora.rank: write lora.rank=32"),
        ("lora.network_dim=32", "network_dim is kohya's name; here it is lora.rank: write lora.rank=32"),
        ("training.gradient_accumulation_steps=4", "write training.batch_size=4 training.micro_batch=1"),
        ("gradient_accumulation_steps=4", "write training.batch_size=4 training.micro_batch=1"),
        ("network.linear=16", "network.linear is ai-toolkit's name; here it is lora.rank: write lora.rank=16"),
        ("train.lr=1e-4", "write optimizer.learning_rate=0.0001"),
        ("lora_rank=8", "lora_rank is OneTrainer's name; here it is lora.rank: write lora.rank=8"),
        ("unet_lr=0,0002", "write optimizer.learning_rate=0.0002"),
        ("max_train_epochs=10", "write training.epochs=10"),
        ("caption_separator=;", "write 'data.tag_separator=;'"),
        ('optimizer_type="AdamW8bit"', "write optimizer.name=adamw8bit"),
        ("optimizer_type=SGD", "cannot be used: there is no SGD here"),
        ("alpha_mask=true", "alpha_mask is kohya's name; here it is data.alpha: write data.alpha=mask"),
        ("conditioning_data_dir=m", "conditioning_data_dir is kohya's name; here it is data.mask_folder: write"),
        ("masked_loss=false", "masked_loss is kohya's name; here it is data.masks: write data.masks=false"),
        ("lr_warmup_steps=100", "set optimizer.warmup to 100 / steps, which sd-lora plan shows"),
        ("algo=loha", "algo is kohya's name"),
        ("learning_rate=0,0001", 'did you mean "optimizer.learning_rate=0.0001"?'),
        ("optimizer.learning_rate=0,0001", "'0,0001' was given; did you mean 0.0001?"),
        ("data.resolution=512,512", "'512,512' was given; did you mean 512?"),
        ("data.resolution=[768, 512]", "did you mean 624?"),
        ("resolution=512,512", 'did you mean "data.resolution=512"?'),
        ("lora.alpha=0,5", "did you mean 0.5?"),
        ("lora.rnak=8", 'did you mean "lora.rank"?'),
        ("rank=8", 'did you mean "lora.rank=8"'),
    ],
)
def test_settings_of_others_are_answered_with_what_they_are_here(override: str, said: str) -> None:
    assert said in refusal(override)


def test_a_preset_file_with_others_names_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("network_alpha = 8\n[lora]\nrank = 4\n[training]\nmax_train_steps = 5\n[sample]\nseed = 3\n")
    said = refusal(preset=str(file))
    assert 'unknown section "network_alpha"; network_alpha is kohya\'s name; here it is lora.alpha' in said
    assert "here it is training.steps: write training.steps=5" in said
    assert "here it is preview.seed: write preview.seed=3" in said


@every_row(
    "words, said",
    [
        ("--network_dim 32", "no such option: --network_dim; network_dim is kohya's name; here it is lora.rank: write"),
        ("--network-dim=32", "write lora.rank=32"),
        ("--xformers --seed 3", "xformers is kohya's name for what does not exist here"),
        ("--network_train_unet_only --x", "here it is lora.targets"),
        ("--steps 20", 'did you mean "training.steps=20"?'),
    ],
)
def test_options_of_others_are_answered(words: str, said: str) -> None:
    option = words.split(maxsplit=1)[0].partition("=")[0]
    assert said in suggested_option(option, words.split())


def test_a_folder_of_masks_counts_only_where_the_loss_is_masked() -> None:
    pair = found("conditioning_data_dir")
    assert pair is not None
    assert pair[1].read("m", {"masked_loss": True})[0] == {"data.mask_folder": "m"}
    made, note = pair[1].read("m", {"masked_loss": False})
    assert made == {}
    assert note == "masks are not used there, as masked_loss is off"


def test_a_name_that_nobody_has_is_not_answered() -> None:
    assert suggested_setting("zzz", "1") == answer("zzz", 1) == suggested_option("--zzz", ["--zzz"]) == ""


# ---- the page


def tables() -> Iterator[str]:
    for trainer in TRAINERS:
        yield f"### {trainer.title[:1].upper()}{trainer.title[1:]}\n\n| there | here |\n| --- | --- |\n"
        for row in trainer.rows:
            if row.convert is not None:
                here = ", ".join(f"`{setting}`" for setting in row.becomes)
                yield f"| {', '.join(f'`{n}`' for n in row.names)} | {here}{f'; {row.why}' if row.why else ''} |\n"
        yield "\n| there | what follows here |\n| --- | --- |\n"
        for row in trainer.rows:
            if row.convert is None:
                why = row.why.replace("|", "\\|")
                yield f"| {', '.join(f'`{name}`' for name in row.names)} | {why} |\n"
        yield "\n"


def drawn(page: str) -> str:
    head, mark, _ = page.partition("<!-- names -->\n\n")
    assert mark
    return head + mark + "".join(tables()).rstrip() + "\n"


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text("utf-8")
    assert page == drawn(page), "draw it again: python tests/config/test_other_trainers.py"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text("utf-8")), "utf-8")
