"""Content is read from errors even where a style makes some prompts cheap for every picture."""

from __future__ import annotations

import pytest
import torch

from sd_lora.evaluation.content import OTHERS, corrected, others_of

PROMPTS = [
    f"a {colour} {thing} {place}"
    for colour in ("red", "blue")
    for thing in ("cat", "boat", "house")
    for place in ("at night", "on the sea")
]


def test_others_share_words_and_are_asked_about_as_often() -> None:
    table = others_of(PROMPTS)
    asked = [sum(row.count(i) for row in table) for i in range(len(PROMPTS))]
    assert all(len(set(row)) == OTHERS and i not in row for i, row in enumerate(table))
    assert min(asked) >= 2
    common = [len(set(PROMPTS[i].split()) & set(PROMPTS[j].split())) for i, row in enumerate(table) for j in row]
    assert sum(common) / len(common) > 2


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="7 different prompts; there are 6"):
        others_of(PROMPTS[:6])


def errors(kept: list[bool], prompt_shift: float) -> tuple[torch.Tensor, list[list[int]]]:
    """Errors of pictures under their own prompt and others: lower by 0.05 where content is kept; each picture and each
    prompt adds something of its own, as styles do."""
    table, generator = others_of(PROMPTS), torch.Generator().manual_seed(0)
    picture = torch.randn(len(PROMPTS), generator=generator)
    prompt = torch.randn(len(PROMPTS), generator=generator) * prompt_shift
    asked = torch.tensor([[i, *row] for i, row in enumerate(table)])
    noise = 0.005 * torch.randn(asked.shape, generator=generator)
    own = torch.zeros(asked.shape)
    own[:, 0] = torch.tensor([-0.05 if each else 0.05 for each in kept])
    return picture[:, None] + prompt[asked] + own + noise, table


@pytest.mark.parametrize("prompt_shift", [0.0, 1.0])
def test_what_a_prompt_adds_to_every_picture_is_taken_off(prompt_shift: float) -> None:
    kept = [i % 3 != 0 for i in range(len(PROMPTS))]
    assert corrected(*errors(kept, prompt_shift)) == kept


def test_the_lowest_error_alone_would_be_wrong() -> None:
    table, _ = errors([True] * len(PROMPTS), 1.0)
    assert (table[:, 0] < table[:, 1:].min(dim=1).values).float().mean() < 0.6
