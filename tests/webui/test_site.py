"""What the page lists: adapters, runs and datasets by id, and nothing outside of their folders."""

from __future__ import annotations

import os
import time
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
from rows import every_row
from sd_lora.webui.site import Site
from sd_lora.webui.temp_files import OLD, YOUNG, Janitor

from sd_lora import ConfigError
from sd_lora.preview.service import PreviewService

HOSTILE = ["../secret", "/etc/passwd", "..", "", "%2e%2e", "C:\\x", "a/b", "\0", "x" * 5000, "ink", "runs/ink"]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("ink/adapter.safetensors", "ink/adapters/step-000100.safetensors", "ink/diffusers/copy.safetensors",
                 "ink/checkpoints/step/state.safetensors", "ink/config.toml", "grain/config.toml",
                 "ink/cache/x.safetensors", ".hidden/adapter.safetensors", "loose.safetensors",
                 "notes.txt"):  # fmt: skip
        touch(tmp_path / "runs" / name)
    touch(tmp_path / "secret.safetensors")
    touch(tmp_path / "data" / "photos" / "1.png")
    touch(tmp_path / "outside" / "2.png")
    (tmp_path / "runs" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path)
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "work").mkdir()
    service = cast("PreviewService", None)
    return Site(service, tmp_path / "runs", tmp_path / "data", tmp_path / "work")


def test_adapters_of_runs_and_libraries_are_listed_without_copies(site: Site) -> None:
    names = {site.name_of(path) for path in site.adapters().values()}
    assert names == {"ink", "ink/step-000100", "loose"}
    library = touch(site.runs.parent / "library" / "deep" / "other.safetensors").parent.parent
    wider = Site(site.service, site.runs, site.data, site.work, libraries=(library,))
    assert "deep/other" in {wider.name_of(path) for path in wider.adapters().values()}


def test_runs_and_datasets_are_the_folders_that_exist(site: Site) -> None:
    assert {path.name for path in site.run_folders().values()} == {"ink", "grain"}
    assert [path.name for path in site.datasets().values()] == ["photos"]


@every_row("what, identity", product(["adapter", "run", "dataset"], HOSTILE))
def test_only_ids_of_listed_items_are_accepted(site: Site, what: str, identity: str) -> None:
    with pytest.raises(ConfigError, match=f"that {what} no longer exists"):
        getattr(site, what)(identity)


def test_ids_are_stable_and_find_their_files(site: Site) -> None:
    for identity, path in site.adapters().items():
        assert site.adapter(identity) == path
        assert identity == site.id_of(path)
    (identity,) = site.datasets()
    assert site.dataset(identity).name == "photos"


def test_missing_folders_are_empty(tmp_path: Path) -> None:
    site = Site(cast("Any", None), tmp_path / "no", tmp_path / "none", tmp_path)
    assert (site.adapters(), site.run_folders(), site.datasets()) == ({}, {}, {})


# ---- the janitor


def aged(path: Path, seconds: float, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_old_files_are_deleted_and_recent_ones_kept(tmp_path: Path) -> None:
    old, used, young = aged(tmp_path / "a/1", OLD + 1), aged(tmp_path / "a/2", YOUNG + 1), aged(tmp_path / "b/3", 0)
    assert Janitor(tmp_path).sweep() == 20
    assert [p.exists() for p in (old, used, young)] == [False, True, True]


def test_the_oldest_files_are_deleted_until_the_quota_is_met(tmp_path: Path) -> None:
    files = [aged(tmp_path / str(n), YOUNG + 100 - n, 100) for n in range(10)]
    fresh = aged(tmp_path / "fresh", 0, 1000)
    assert Janitor(tmp_path, quota=1350).sweep() == 1300
    assert [p.exists() for p in files] == [False] * 7 + [True] * 3
    assert fresh.exists()


def test_files_that_vanish_during_a_sweep_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(tmp_path / "a", OLD + 1)
    monkeypatch.setattr(Path, "unlink", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    assert Janitor(tmp_path).sweep() == 10
