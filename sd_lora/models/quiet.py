"""What libraries print about themselves is turned off before they are imported. No torch."""

from __future__ import annotations

import logging
import os

#: of kernels for other devices, which do not concern the user
_LOGGERS = ("torchao", "torch.utils._pytree")


def quiet_libraries() -> None:
    """Turn off advice and deprecations of diffusers and transformers; what the environment says already is kept."""
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
