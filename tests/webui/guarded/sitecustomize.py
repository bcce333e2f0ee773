"""On the path of a server, this notes and refuses every connection to another machine, by it or its children.

Notes go to the file ``SD_LORA_REACHED``.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any


def _is_here(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(str(name).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _check(host: object) -> None:
    if not _is_here(host):
        with open(os.environ["SD_LORA_REACHED"], "a", encoding="utf-8") as notes:
            notes.write(f"{host}\n")
        raise OSError(f"{host} is not this machine")


class _Guarded(socket.socket):
    def connect(self, address: Any, /) -> None:
        _check(address[0] if self.family in (socket.AF_INET, socket.AF_INET6) else None)
        super().connect(address)

    def connect_ex(self, address: Any, /) -> int:
        _check(address[0] if self.family in (socket.AF_INET, socket.AF_INET6) else None)
        return super().connect_ex(address)


_resolve = socket.getaddrinfo


def _getaddrinfo(host: Any, *args: Any, **settings: Any) -> Any:
    _check(host)
    return _resolve(host, *args, **settings)


if "SD_LORA_REACHED" in os.environ:
    socket.socket = _Guarded  # type: ignore[misc]
    socket.getaddrinfo = _getaddrinfo
