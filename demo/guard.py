"""What the server answers at all.

Stands before Gradio. Only the paths that the page uses are answered: no upload, no files, no proxy, no API client, no
monitoring. On loopback only loopback host names are answered, which stops DNS rebinding; what another site sends is refused.
The page's own inline scripts are named by hash in its Content-Security-Policy, so that no other one runs and nothing is
loaded from elsewhere, whatever comes through the sanitizer.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_PATHS = re.compile(
    r"/|/page\.js|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|svelte)/.*"
    r"|/gradio_api/(queue/(join|data)|heartbeat/.*|startup-events|app_id|info|cancel|reset)/?"
)
_INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)


class Guard:
    """ASGI middleware. `hosts` are the host names that are answered, None for any."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif scope["path"] == "/":
            await self._app(scope, receive, _PageSender(send))
        else:
            await self._app(scope, receive, _sender(send, b""))

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and re.sub(r":\d+$", "", host) not in self._hosts:
            return PlainTextResponse(f"host {host!r} is not served here; open http://127.0.0.1", status_code=421)
        if origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse("requests from other sites are not answered", status_code=403)
        if not _PATHS.fullmatch(scope["path"]):
            return PlainTextResponse("not found", status_code=404)
        return None


def policy(page: bytes) -> str:
    """Return the Content-Security-Policy for a page: its inline scripts by hash, everything else from this server."""
    hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(page)]
    scripts = " ".join(["'self'", *(f"'sha256-{h}'" for h in hashes)])
    return (
        f"default-src 'self'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; object-src 'none'; frame-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    )


def _sender(send: Send, page: bytes) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Content-Security-Policy"] = policy(page)
        await send(message)

    return with_headers


class _PageSender:
    """Holds the page back until it is whole, because its policy names the hashes of its scripts."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            assert self._start is not None, "a response starts before its body"
            send = _sender(self._send, self._body)
            await send(self._start)
            await send({"type": "http.response.body", "body": self._body})
