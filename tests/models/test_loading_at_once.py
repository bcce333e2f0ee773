"""Base models that several threads open at once."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from sd_lora.config.schema import ModelConfig
from sd_lora.models import opening


def test_two_threads_load_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    load, inside, most = opening._load, list[int](), list[int]()

    def watched(*args: Any, **options: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        try:
            return load(*args, **options)
        finally:
            inside.pop()

    monkeypatch.setattr(opening, "_load", watched)
    pipes: list[Any] = []
    threads = [threading.Thread(target=lambda: pipes.append(opening.open_base(ModelConfig()).pipe)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert not any(opening.is_empty(pipe.unet) or opening.is_empty(pipe.text_encoder) for pipe in pipes)
