"""Page and guard together, and a server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import webbrowser
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse

from demo.guard import LOOPBACK, Guard
from demo.page import build_page, theme
from starchat.errors import UserError
from starchat.generate import Assistant

FOLDER = Path(__file__).parent


def build_app(assistant: Assistant, hosts: tuple[str, ...] | None = LOOPBACK) -> FastAPI:
    """Return the application; `hosts` are the host names that it answers, None for any."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/page.js")
    def page_script() -> FileResponse:
        return FileResponse(FOLDER / "page.js", media_type="text/javascript")

    app.add_middleware(CORSMiddleware, allow_origins=[])  # while the parent has one, Gradio adds no headers that admit other sites
    app.add_middleware(Guard, hosts=hosts)
    asyncio.run(_mount(app, assistant))
    return app


async def _mount(app: FastAPI, assistant: Assistant) -> None:
    """Mount the page. Within a running event loop, because Gradio otherwise opens four and closes none."""
    gr.mount_gradio_app(
        app,
        build_page(assistant),
        path="/",
        theme=theme(),
        css_paths=FOLDER / "page.css",
        head='<script src="/page.js" defer></script>',
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size="1kb",
        allowed_paths=[],
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )


def serve(assistant: Assistant, host: str = "127.0.0.1", port: int = 7860, open_browser: bool = False) -> None:
    """Serve the page until interrupted; port 0 takes a free one. Prints the address. Raises `UserError` if the port is taken."""
    listening = listen(host, port)
    address = f"http://{host}:{listening.getsockname()[1]}"
    print(f"{assistant.name}: {address} (Ctrl-C ends it)", flush=True)
    local = host in LOOPBACK
    if not local:
        print("Everyone who can reach this address can use the page: it asks for no password.", flush=True)
    if open_browser:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    server = make_server(build_app(assistant, LOOPBACK if local else None))
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has ended in order
        server.run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise UserError(f"{host}:{port}: {os.strerror(error.errno or 0)}; choose another port with --port, or 0 for a free one") from None


def make_server(app: FastAPI) -> uvicorn.Server:
    """Return a server that does not wait for open pages when it ends, nor complains of them (Gradio reports its own errors)."""
    return uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1))
