"""Runs a command: errors become one sentence and an exit code, Ctrl-C leaves no traceback, and of several processes
only the first prints."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from sd_lora.errors import SdLoraError, SdLoraWarning

#: click's class, wherever this version of typer has it
_UsageError: Any = typer.BadParameter.__base__
#: seconds that the first of several processes has before another prints its error
_GRACE = 10.0
_SHOWWARNING = warnings.showwarning


def run(app: typer.Typer) -> NoReturn:
    """Run the command that the arguments of this process name, and exit."""
    number, _ = processes()
    warnings.showwarning = _show_warning
    try:
        with _interruptible(), _silenced() if number else contextlib.nullcontext():
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
            _wait_for_the_first(1)
        raise


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Our own warnings are shown to the user as sentences; those of libraries are shown as usual."""
    if issubclass(category, SdLoraWarning):
        typer.echo(f"warning: {message}", err=True)
    else:
        _SHOWWARNING(message, category, *place, **more)


def processes() -> tuple[int, int]:
    """The number of this process and how many share the run, from what torchrun and accelerate set."""
    rank, local, count = (os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    if not count.isdecimal() or int(count) < 2:
        return 0, 1
    return next((int(number) for number in (rank, local) if number.isdecimal()), 0), int(count)


def _fail(sentence: str, code: int, number: int) -> NoReturn:
    """Print an error and exit. Most errors occur in every process, so only the first prints them; another prints
    its error if the first has not ended the run by then. All processes get signals."""
    signalled = code >= 128
    if number and not signalled:
        _wait_for_the_first(code)
        sentence = f"process {number}: {sentence}"
    if sentence and not (number and signalled):
        typer.echo(sentence if signalled else f"error: {sentence}", err=True)
        if "--json" in sys.argv[1:]:  # stdout is a JSON document in any case
            typer.echo(json.dumps({"error": sentence}))
    sys.exit(code)


def _wait_for_the_first(code: int) -> None:
    """Wait: if the first process ends with an error, the launcher ends the others, including this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
    time.sleep(_GRACE)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Print nothing: the first of several processes does."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end imports at once, as their C code may swallow an exception; elsewhere it is a KeyboardInterrupt."""
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
    """What is wrong with the arguments, and which help to read; "" if the help was printed."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""
    message, context = error.format_message().rstrip("."), error.ctx
    if context is not None and context.info_name in ("train", "check", "plan", "demo"):
        message = _unknown_options(error) or message
    if context is None:  # an option without its value
        return f"{message[:1].lower()}{message[1:]}; give it one"
    help_hint = "" if message.endswith("?") else f"; see {context.command_path} --help"
    return f"{message[:1].lower()}{message[1:]}{help_hint}"


def _unknown_options(error: Any) -> str:
    """What those of the options that the command does not have are here; "" if nobody has the one that the `error` is
    about."""
    from sd_lora.config.presets import suggested_option

    words, first = sys.argv[1:], getattr(error, "option_name", None) or ""
    known = {name for parameter in error.ctx.command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = [word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2]
    unknown = [option for option in dict.fromkeys([first, *options]) if option and option not in (*known, "--help")]
    said = {option: suggested_option(option, words) or f"no such option: {option}" for option in unknown}
    return "; ".join(said.values()) if any(";" in sentence for sentence in said.values()) and first else ""
