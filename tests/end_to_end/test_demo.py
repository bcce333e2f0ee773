"""The main job on the embedded base: a style is learnt, and the demo says so."""

import json

import pytest

from sd_lora.errors import ConfigError


@pytest.mark.slow
def test_a_style_is_learnt_and_content_kept(tmp_path):
    from sd_lora.commands.demo import measure_demo, train_demo

    out = tmp_path / "demo"
    train_demo(out, "woodcut", ["training.steps=120", "preview.every=0"])
    base, half, full = measure_demo(out, "woodcut")
    assert base.distance > half.distance > full.distance
    assert full.closed > 0.4
    assert full.subject + full.background > 0.8 * (base.subject + base.background)
    assert (out / "run" / "adapter.safetensors").stat().st_size <= 2 * 2**20
    assert json.loads((out / "measures.json").read_text())[-1]["closed"] == full.closed
    assert sorted(path.name for path in (out / "images").glob("*.txt")) == [f"{i:02d}.txt" for i in range(1, 13)]


def test_the_demo_refuses_before_it_writes(tmp_path):
    from sd_lora.commands.demo import check_demo

    with pytest.raises(ConfigError, match="woodcut"):
        check_demo(tmp_path / "new", "woodcuts")
    with pytest.raises(ConfigError, match="exists"):
        check_demo(tmp_path, "woodcut")
    assert list(tmp_path.iterdir()) == []


def test_demo_pictures_share_no_content_with_the_prompts_that_measure_them():
    from sd_lora.evaluation.tiny_measures import unseen_scenes
    from sd_lora.tinybase.folder import demo_scenes

    trained = {(s.subject, s.colour, s.background) for s in demo_scenes()}
    asked = {(s.subject, s.colour, s.background) for s in unseen_scenes(200)}
    assert not trained & asked
