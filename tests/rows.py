"""A table that is one test: each row is a subtest, so a row that fails is named and the others still run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import pytest


def every_row(names: str, rows: Iterable[Any], ids: Iterable[str] | Callable[[Any], str] | None = None) -> Any:
    """Like `pytest.mark.parametrize`, for rows too small to be tests of their own; each has a `tmp_path` of its own."""
    keys, table = names.split(", "), list(rows)
    assert table, f"no rows for {names}"
    values = [row if len(keys) > 1 else (row,) for row in table]
    labels = list(map(ids or str, table)) if ids is None or callable(ids) else list(ids)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)
        fixtures = [parameter for name, parameter in signature.parameters.items() if name not in keys]
        asked = inspect.Parameter("subtests", inspect.Parameter.KEYWORD_ONLY)

        @wraps(test)
        def over_all_rows(subtests: pytest.Subtests, **given: Any) -> None:
            for number, (label, row) in enumerate(zip(labels, values, strict=True)):
                fixtures_of_row = dict(given)
                if "tmp_path" in given:
                    fixtures_of_row["tmp_path"] = given["tmp_path"] / f"row-{number}"
                    fixtures_of_row["tmp_path"].mkdir()
                # workers can send each other nothing but UTF-8
                shown = label[:100].encode("utf-8", "backslashreplace").decode()
                with subtests.test(shown, row=number):
                    test(**fixtures_of_row, **dict(zip(keys, row, strict=True)))

        over_all_rows.__signature__ = signature.replace(parameters=[*fixtures, asked])  # type: ignore[attr-defined]
        return over_all_rows

    return decorate
