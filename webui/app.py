"""The page: builds its tabs, and serves them, to other machines only with a login."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, cast

import gradio as gr
import jinja2
from gradio import processing_utils, routes
from starlette.middleware import Middleware

from sd_lora.models.names import name_of_base
from sd_lora.models.sources import base_place, find_base
from sd_lora.preview.job import PreviewLimits
from sd_lora.runs.threads import claimed, free_threads, kept_for_a_page

from . import bases, http_api
from .access import Guard, check_address
from .installing import program_at
from .messages import escaped
from .opening import OpeningService
from .site import Site
from .tabs import adapters as adapters_tab
from .tabs import compare as compare_tab
from .tabs import mix as mix_tab
from .tabs import preview as preview_tab
from .tabs.dataset import tab as dataset_tab
from .tabs.train import tab as train_tab
from .temp_files import Janitor

if TYPE_CHECKING:
    from sd_lora.preview.service import PreviewService

STYLES, SCRIPT, SKELETON = (Path(__file__).with_name(name) for name in ("page.css", "page.js", "skeleton.html"))
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
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
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
    programs: Sequence[str | Path] = (),
    kept_mb: int = 256,
    models: str | Path | None = None,
    captioner: str = "",
) -> Site:
    """The site on `base`, which `launch` begins to load. `programs`: folders of other programs, into which adapters can
    be copied; `kept_mb`: megabytes of drawn pictures that stay in memory; `models`: a folder of base models that the
    page can change to; `captioner`: a captioning model, as `sd-lora caption --model` takes it.

    Raises BaseModelError if there is no base model of that name, and ConfigError for a program's folder that is none.
    """
    others = tuple(bases.bases_in(Path(models).expanduser().absolute())) if models else ()
    runs, limits = Path(runs).absolute(), PreviewLimits(kept=kept_mb * 2**20)
    opening = OpeningService(_name_of(base), limits, lambda: _opened(base, limits))
    installed = tuple(program_at(Path(folder)) for folder in programs)
    folders = tuple(Path(folder).absolute() for folder in libraries)
    work = Path(tempfile.mkdtemp(prefix="sd-lora-page-"))
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    service = cast("PreviewService", opening)
    return Site(
        service,
        runs,
        Path(data or runs / "datasets").absolute(),
        work,
        base,
        folders,
        programs=installed,
        captioner=captioner,
        models=others,
    )


def _name_of(base: str) -> str:
    """What `base` is called, before it is opened. Raises BaseModelError if it does not exist on this machine; a model
    of the hub is looked for when it is opened."""
    return base if base_place(base) == "hub" else name_of_base(find_base(base).path)


def _opened(base: str, limits: PreviewLimits) -> PreviewService:
    from sd_lora.preview.service import PreviewService  # loads torch, which the page needs no sooner

    return PreviewService.open(base, limits=limits, threads=free_threads)


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
    """Serve the page for `site`, and then load its base model, until this process ends.

    Raises ConfigError for an address that other machines can reach, if there is no login, and for a port that is
    taken; SdLoraError if the base model cannot be opened.
    """
    login = check_address(host, auth)
    os.environ["GRADIO_TEMP_DIR"] = str(site.work)
    processing_utils.async_ssrf_protected_download = _refuse_download
    routes.templates.env.loader = _with_skeleton(routes.templates.env.loader)
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
        _frontend=False,  # else the page asks itself, and gives up where a busy machine answers after seconds
        theme=theme(),
        css_paths=[STYLES, dataset_tab.STYLES, train_tab.STYLES],
        js=SCRIPT.read_text("utf-8"),
        app_kwargs={"middleware": guard, "docs_url": None, "redoc_url": None, "openapi_url": None},
    )
    print(f"sd_lora is at {address}  (base model {site.service.base}, runs in {site.runs}); Ctrl-C ends it", flush=True)
    with claimed(kept_for_a_page(), "the page"):
        if isinstance(site.service, OpeningService):
            _load_base(site.service)
        page.block_thread()


def _load_base(service: OpeningService) -> None:
    """Load the base model, and say so. Raises SdLoraError if it cannot be opened: a page without it is of no use."""
    began = time.monotonic()
    service.start()
    service.wait()
    print(f"the base model {service.base} is loaded, after {time.monotonic() - began:.1f} s", flush=True)


async def _refuse_download(url: str, cache_dir: str = "") -> NoReturn:  # noqa: ARG001
    """Replaces Gradio's download of URLs that a visitor gives as a file: nothing is fetched from other hosts."""
    raise gr.Error(f"{escaped(url[:80])} is not fetched; upload the file itself", print_exception=False)


def _with_skeleton(templates: jinja2.BaseLoader | None) -> jinja2.BaseLoader:
    """Gradio's pages with what is shown until its script has built them; its own `head=` comes with that script."""
    if templates is None:
        raise TypeError("Gradio's pages have no template")

    def source(name: str) -> str:
        text, *_ = templates.get_source(routes.templates.env, name)
        return text.replace("</head>", f"{SKELETON.read_text('utf-8')}</head>", 1)

    return jinja2.FunctionLoader(source)


def _free_port(host: str) -> int:
    """A port that is not in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])
