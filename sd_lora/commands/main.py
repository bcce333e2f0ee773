"""The way into the command line and out of it: errors are sentences, Ctrl-C ends without a traceback, and of several
processes the first speaks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from sd_lora.errors import SdLoraError

#: click's, wherever this typer keeps it
_UsageError: Any = typer.BadParameter.__base__
#: seconds in which the first of several processes is heard before another tells its error
_GRACE = 10.0


def run(app: typer.Typer) -> NoReturn:
    """Run the command that the arguments of this process name, and end it."""
    number, _ = processes()
    try:
        with _interruptible(), _hushed() if number else contextlib.nullcontext():
            code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except _UsageError as error:
        _fail(_usage(error), 2, number)
    except SdLoraError as error:
        _fail(str(error), error.exit_code, number)
    except Exception:
        if number:
            _let_the_first_speak(1)
        raise


def processes() -> tuple[int, int]:
    """The number of this process and how many share the run, as torchrun and accelerate tell them."""
    rank, local, count = (os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    if not count.isdecimal() or int(count) < 2:
        return 0, 1
    return next((int(number) for number in (rank, local) if number.isdecimal()), 0), int(count)


def _fail(sentence: str, code: int, number: int) -> NoReturn:
    """Tell an error and end. Most are the same in every process, so that only the first tells them; what another alone
    has it tells when the first has had its time. Signals come to all."""
    signalled = code >= 128
    if number and not signalled:
        _let_the_first_speak(code)
        sentence = f"process {number}: {sentence}"
    if sentence and not (number and signalled):
        typer.echo(sentence if signalled else f"error: {sentence}", err=True)
        if "--json" in sys.argv[1:]:  # who reads stdout finds a document there in any case
            typer.echo(json.dumps({"error": sentence}))
    sys.exit(code)


def _let_the_first_speak(code: int) -> None:
    """Wait; when the first process ends with an error its launcher ends the others, which is the end of this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
    time.sleep(_GRACE)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing is printed: the first of several processes says it."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends imports too, whose C code may not survive an exception; elsewhere it is a KeyboardInterrupt."""
    plain = signal.getsignal(signal.SIGINT)
    if plain is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, plain)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _usage(error: Any) -> str:
    """What is wrong with the words of a command, and where its help is; "" if that was the help itself."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""
    said, context = error.format_message().rstrip("."), error.ctx
    if context.info_name in ("train", "check", "plan", "demo"):
        from sd_lora.config.presets import suggested_option

        said = suggested_option(getattr(error, "option_name", None) or "", sys.argv[1:]) or said
    more = "" if said.endswith("?") else f"; see {context.command_path} --help"
    return f"{said[:1].lower()}{said[1:]}{more}"
