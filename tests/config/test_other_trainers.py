"""The table of other trainers' names, row by row: what is a setting here exists, is usable and has the effect that was
asked for; what is not is said to be so.
`PYTHONPATH=tests python tests/config/test_other_trainers.py` draws the tables of the page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rows import every_row

from sd_lora.config.other_trainers.row import Made, Row
from sd_lora.config.other_trainers.table import TRAINERS, Trainer, answer, found, overrides
from sd_lora.config.reading import parse_config, wrong_value
from sd_lora.config.schema import SECTIONS, RunConfig

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
    assert said.startswith(f"{name} is {trainer.whose} name; here it is {' and '.join(row.becomes)}")
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
            assert answer(name, "true") == f"{name} is {trainer.whose} name for what does not exist here: {row.why}"


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
    assert page == drawn(page), "draw it again: PYTHONPATH=tests python tests/config/test_other_trainers.py"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text("utf-8")), "utf-8")
