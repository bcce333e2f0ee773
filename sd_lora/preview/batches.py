"""How many pictures are drawn at once: as many as memory holds, by what one takes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sd_lora.models.device import free_memory

#: the share of the available memory that pictures drawn together may take; the rest is for what kernels need besides
_SHARE = 0.7


def fitting(device: torch.device, bytes_each: int) -> int:
    """How many pictures of `bytes_each` fit into the memory that is available on `device` now; at least one."""
    return max(1, int(_SHARE * free_memory(device)) // max(1, bytes_each))


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes of tensors that `work` holds at a time, besides those that exist already; on any device."""
    with torch.no_grad(), _Held() as held:
        work()
    return held.peak


class _Held(TorchDispatchMode):
    """Adds up the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):  # weights, which results may be views of
            self._known.add(tensor.untyped_storage())
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self._change(storage.nbytes())
                weakref.finalize(storage, self._change, -storage.nbytes())
        return result

    def _change(self, count: int) -> None:
        self.now += count
        self.peak = max(self.peak, self.now)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
