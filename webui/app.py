"""The page: builds its tabs, and serves them, to other machines only with a login."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import gradio as gr
from gradio import processing_utils
from starlette.middleware import Middleware

from sd_lora.preview.job import PreviewLimits
from sd_lora.preview.service import PreviewService
from sd_lora.runs.threads import claimed, free_threads, kept_for_a_page

from . import bases, http_api
from .access import Guard, check_address
from .messages import escaped
from .site import Site
from .tabs import adapters as adapters_tab
from .tabs import compare as compare_tab
from .tabs import mix as mix_tab
from .tabs import preview as preview_tab
from .tabs.dataset import tab as dataset_tab
from .tabs.train import tab as train_tab
from .temp_files import Janitor

STYLES, SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_QUEUED, _SESSIONS, _LARGEST = 32, 64, "50mb"  # an open page takes about 0.7 MB


def build(site: Site) -> gr.Blocks:
    """The page for `site`."""
    with gr.Blocks(title="sd_lora", analytics_enabled=False, fill_width=True) as page:
        bases.header(site)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Dataset", id="dataset"):
                dataset = dataset_tab.build(site)
            with gr.Tab("Train", id="train"):
                train = train_tab.build(site, dataset)
            with gr.Tab("Preview", id="preview"):
                preview = preview_tab.build(site)
            with gr.Tab("Compare", id="compare"):
                compare_tab.build(site)
            with gr.Tab("Mix", id="mix"):
                mix_tab.build(site)
            with gr.Tab("LoRAs", id="adapters"):
                adapters_tab.build(site, preview)
        train.send_results_to(preview)
        http_api.add(site)
    return page.queue(max_size=_QUEUED, api_open=False, default_concurrency_limit=_QUEUED)


def theme() -> gr.themes.Base:
    """Calm, with fonts that every machine has or that the package contains, so that nothing is fetched."""
    fonts = [gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"]
    soft = gr.themes.Soft(
        primary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "Consolas", "monospace"]
    )
    return soft.set(  # readable labels and buttons: a contrast of at least 4.5 to 1
        block_label_text_color="*primary_800",
        block_label_text_color_dark="*primary_100",
        block_title_text_color="*primary_800",
        block_title_text_color_dark="*primary_100",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_300",
        input_border_width="1px",  # edges of fields: a contrast of at least 3 to 1
        input_border_color="*neutral_500",
        input_border_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def open_site(
    base: str = "tiny",
    runs: str | Path = "runs",
    *,
    data: str | Path = "",
    libraries: Sequence[str | Path] = (),
    kept_mb: int = 256,
    models: str | Path | None = None,
    captioner: str = "",
) -> Site:
    """The site with `base` opened. `kept_mb`: megabytes of drawn pictures that stay in memory; `models`: a folder of
    base models that the page can change to; `captioner`: a captioning model, as `sd-lora caption --model` takes it.

    Raises SdLoraError if `base` cannot be opened.
    """
    others = tuple(bases.bases_in(Path(models).expanduser().absolute())) if models else ()
    runs = Path(runs).absolute()
    service = PreviewService.open(base, limits=PreviewLimits(kept=kept_mb * 2**20), threads=free_threads)
    folders = tuple(Path(folder).absolute() for folder in libraries)
    work = Path(tempfile.mkdtemp(prefix="sd-lora-page-"))
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    return Site(service, runs, Path(data or runs / "datasets").absolute(), work, base, folders, captioner, others)


def end_at_signals(site: Site) -> None:
    """From now on Ctrl-C, SIGTERM and a closed terminal end this process at once, whatever its threads are doing, and
    delete the private folder. Call it in the main thread, of a program that does nothing else."""

    def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        shutil.rmtree(site.work, ignore_errors=True)
        os._exit(128 + number)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def launch(site: Site, *, host: str = "127.0.0.1", port: int = 7860, auth: str = "") -> None:
    """Serve the page for `site`, until this process ends.

    Raises ConfigError for an address that other machines can reach, if there is no login.
    """
    login = check_address(host, auth)
    os.environ["GRADIO_TEMP_DIR"] = str(site.work)
    processing_utils.async_ssrf_protected_download = _refuse_download
    Janitor(site.work).start()
    port = port or _free_port(host)
    site = replace(site, restart=bases.restarting(site.work, port))
    page, guard = build(site), [Middleware(Guard, host=host)]
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        auth=login,
        allowed_paths=[],
        run_history=False,
        enable_monitoring=False,
        max_file_size=_LARGEST,
        ssr_mode=False,
        footer_links=[],
        pwa=False,
        mcp_server=False,
        state_session_capacity=_SESSIONS,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        inbrowser=False,
        theme=theme(),
        css_paths=[STYLES, dataset_tab.STYLES, train_tab.STYLES],
        js=SCRIPT.read_text("utf-8"),
        app_kwargs={"middleware": guard, "docs_url": None, "redoc_url": None, "openapi_url": None},
    )
    print(f"sd_lora is at {address}  (base model {site.service.base}, runs in {site.runs}); Ctrl-C ends it", flush=True)
    with claimed(kept_for_a_page(), "the page"):
        page.block_thread()


async def _refuse_download(url: str, cache_dir: str = "") -> NoReturn:  # noqa: ARG001
    """Replaces Gradio's download of URLs that a visitor gives as a file: nothing is fetched from other hosts."""
    raise gr.Error(f"{escaped(url[:80])} is not fetched; upload the file itself", print_exception=False)


def _free_port(host: str) -> int:
    """A port that is not in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])
