"""The shipped presets: listed, shown, copied, and every one of them a config."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sd_lora.commands.app import app
from sd_lora.config.presets import (  # fmt: skip
    all_settings,
    copy_preset,
    default_preset,
    load_config,
    preset_misfit,
    preset_names,
    preset_summary,
    preset_text,
)
from sd_lora.config.schema import SECTIONS, RunConfig
from sd_lora.errors import ConfigError
from sd_lora.models.families import FAMILIES

REPO = Path(__file__).parents[2]


def test_the_list_is_what_lies_in_configs() -> None:
    assert preset_names() == sorted(file.stem for file in (REPO / "configs").glob("*.toml"))
    assert {"style", "tiny-style"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses_and_says_what_it_is(name: str) -> None:
    assert isinstance(load_config(name), RunConfig)
    assert len(preset_summary(name)) > 10
    assert not preset_summary(name).startswith("#")


def test_a_preset_changes_the_defaults_and_an_override_the_preset() -> None:
    assert load_config("tiny-style") != RunConfig()
    assert load_config("tiny-style", "training.steps=7").training.steps == 7
    assert load_config("tiny-style", "training.steps=7").lora == load_config("tiny-style").lora


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match='did you mean "tiny-style"'):
        preset_text("tiny-stile")
    with pytest.raises(ConfigError, match='did you mean "sdxl-style-block"'):
        load_config("sdxl-styleblock")


def test_a_name_that_walks_out_of_the_folder_is_no_preset() -> None:
    with pytest.raises(ConfigError, match="no preset"):
        preset_text("../pyproject")


def test_copy_to_a_file_and_to_a_folder(tmp_path: Path) -> None:
    assert copy_preset("tiny-style", tmp_path / "mine.toml") == tmp_path / "mine.toml"
    assert copy_preset("tiny-style", tmp_path) == tmp_path / "tiny-style.toml"
    assert (tmp_path / "mine.toml").read_text("utf-8") == preset_text("tiny-style")
    assert load_config(str(tmp_path / "mine.toml")) == load_config("tiny-style")


def test_copy_refuses_to_overwrite(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("my own", "utf-8")
    with pytest.raises(ConfigError, match="exists"):
        copy_preset("tiny-style", file)
    assert file.read_text("utf-8") == "my own"


def test_copy_of_an_unknown_preset_or_into_no_folder_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no preset"):
        copy_preset("nope", tmp_path / "a.toml")
    with pytest.raises(ConfigError, match="cannot be written"):
        copy_preset("tiny-style", tmp_path / "no" / "a.toml")
    assert list(tmp_path.iterdir()) == []


def test_the_default_preset_belongs_to_the_base() -> None:
    assert default_preset("tiny") == "tiny-style"
    assert default_preset("/models/sd15") == "style"
    assert load_config() == load_config("tiny-style")
    assert load_config("", "model.base=/models/sd15").lora == load_config("style").lora


def test_a_copied_preset_with_a_wrong_key_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[lora]\nrnak = 3\n", "utf-8")
    with pytest.raises(ConfigError, match=r"mine\.toml: unknown key"):
        load_config(str(file))


def test_the_commands_list_show_and_copy(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["presets"]).stdout
    assert [line.split()[0] for line in listed.splitlines()] == preset_names()
    assert all(preset_summary(name) in listed for name in preset_names())
    assert CliRunner().invoke(app, ["presets", "show", "tiny-style"]).stdout == preset_text("tiny-style")
    copied = CliRunner().invoke(app, ["presets", "copy", "tiny-style", str(tmp_path / "mine.toml")])
    assert copied.exit_code == 0
    assert "mine.toml" in copied.stdout
    assert (tmp_path / "mine.toml").read_text("utf-8") == preset_text("tiny-style")


def test_all_settings_are_shown_with_their_meaning_and_can_be_used(tmp_path: Path) -> None:
    for name in preset_names():
        shown = CliRunner().invoke(app, ["presets", "show", name, "--all"]).stdout
        for section, kind in SECTIONS.items():
            assert f"\n[{section}]\n" in shown
            for field in fields(kind):
                assert re.search(rf"^(# )?{field.name} =", shown, re.MULTILINE), field.name
        (tmp_path / f"{name}.toml").write_text(shown, "utf-8")
        assert load_config(str(tmp_path / f"{name}.toml")) == load_config(name)
        assert "# the colour behind transparent images: a name or #rrggbb\nbackground = " in shown
        assert "# images in a step, over all processes\nbatch_size = " in shown
        assert "\n# one of auto, cpu, cuda, mps\ndevice = " in shown
        assert "\n# micro_batch =\n" in shown


def test_all_settings_hold_tables_and_odd_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '# odd\n[lora.ranks]\n"unet.mid_block.*" = 8\n"a \\"b\\" č" = 4\n[data]\ntrigger = "č\\t\\u0001"\n'
    monkeypatch.setattr("sd_lora.config.presets.preset_text", lambda _: text)
    (tmp_path / "odd.toml").write_text(all_settings("odd", {}), "utf-8")
    assert load_config(str(tmp_path / "odd.toml")) == load_config("odd")


def test_the_list_is_aligned() -> None:
    lines = CliRunner().invoke(app, ["presets"]).stdout.splitlines()
    assert len({line.index(preset_summary(line.split()[0])) for line in lines}) == 1


def test_a_setting_without_its_section_is_named_in_full() -> None:
    with pytest.raises(ConfigError, match=r'"rank=8" is not an override; did you mean "lora\.rank=8"'):
        load_config("tiny-style", "rank=8")
    with pytest.raises(ConfigError, match=r'did you mean "model.dtype=float32" or "output.dtype=float32"'):
        load_config("tiny-style", "dtype=float32")
    with pytest.raises(ConfigError, match=r"section.key=value"):
        load_config("tiny-style", "nothing=8")


@pytest.mark.parametrize(
    ("name", "base", "suiting", "why"),
    [
        ("tiny-style", "tiny", (), ""),
        ("style", "/models/sd15", (), ""),
        ("style", "/models/sd15", ("style",), ""),
        ("style", "tiny", (), 'for Stable Diffusion models, but "tiny" was given; use tiny-style'),
        ("flux-style", "tiny", (), 'for the base model "black-forest-labs/FLUX.1-dev", but "tiny" was given'),
        ("flux-style", "/models/flux", ("flux-style",), ""),
        ("flux-style", "/models/sd15", ("style",), 'than the base model "/models/sd15"; use style'),
        ("style", "/models/flux", ("flux-style",), 'than the base model "/models/flux"; use flux-style'),
        ("tiny-style", "/models/sd15", (), 'for the base model "tiny", but "/models/sd15" was given; use style'),
        ("sdxl-style-block", "/models/xl", ("style", "sdxl-style-block"), ""),
        ("sdxl-style-block", "/models/sd15", ("style",), "is for another family of models"),
        ("sdxl-style-block", "owner/unknown", (), ""),
    ],
)
def test_a_preset_of_another_base_model_is_refused(name: str, base: str, suiting: tuple[str, ...], why: str) -> None:
    found = preset_misfit(name, base, suiting)
    assert (why in found) if why else found == ""


def test_every_preset_is_for_the_embedded_base_or_for_a_family() -> None:
    of_families = [set(family.presets) for family in FAMILIES.values()]
    assert all(of_families)
    assert {"tiny-style"}.union(*of_families) == set(preset_names())
