"""Libraries' own chatter off: what the user of the command line reads is ours."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Turn off progress bars, advice and deprecations of the libraries; before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
