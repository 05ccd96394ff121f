"""The read-only web app that serves reports and bundles out of the store, and the API of the pages.

A mounted app inherits no authentication from Airflow, so every route here asks for it: the user
must be signed in, may open plugin pages, and may read the DAG the object belongs to. What it serves
was made from data, so it is not trusted: a report runs in a sandbox without an origin, cannot reach
Airflow's session, and loads nothing from the network. No policy of its own keeps a page from leading its
frame elsewhere, that of the page around it does: the address of a report answers with such a page, whose
frame shows the report itself. (WebRTC alone no policy stops; it could send what stands in the report.)
"""

from __future__ import annotations

import hashlib
import html
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_dag, requires_access_view
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from airflow_mlops.exceptions import CorruptObject, MLOpsError, ObjectNotFound
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.plugins.api.app import create_api
from airflow_mlops.plugins.plugin import web_state
from airflow_mlops.store import layout
from airflow_mlops.store.trash import recovering

if TYPE_CHECKING:
    from starlette.types import Scope

    from airflow_mlops.store.base import Store

log = logging.getLogger(__name__)

# Evidently's report is one file with inline scripts, which compile templates and unpack inlined fonts and images.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'unsafe-eval' blob: data:; img-src data: blob:; font-src data:"
)
# The page around a report has no script. Its policy is asked wherever its frame goes, by whose wish whatsoever.
FRAME_POLICY = "default-src 'none'; frame-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
WEB = Path(__file__).with_name("web")
"""The pages' own files: the same for everybody, no data among them."""

PAGE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"

_TITLES = {
    401: "Sign in to Airflow first",
    403: "You may not read this",
    404: "Not found",
    502: "The stored file is damaged",
    503: "The store cannot be reached",
}


def _page(status: int, text: str) -> HTMLResponse:
    """Return a plain page for a person; ``text`` is escaped."""
    title = _TITLES.get(status, "This did not work")
    body = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<body style='font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:15vh auto;padding:0 1rem'>"
        f"<h1 style='font-size:1.4rem'>{title}</h1><p style='white-space:pre-wrap'>{html.escape(text)}</p>"
        "</body></html>"
    )
    headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return HTMLResponse(body, status_code=status, headers=headers)


def _key(kind: str, dag_id: str, digest: str) -> str:
    try:
        return layout.report(dag_id, digest) if kind == "report" else layout.handover(dag_id, digest)
    except ValueError as e:
        raise HTTPException(404, f"There is no {kind} under this address.") from e


def _open_store() -> Store:
    return MLOpsHook().store(impatient=True)


_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # no-cache: the browser keeps its copy but asks each time, so a withdrawn permission counts at once.
    "Cache-Control": "private, no-cache",
}


def _headers(digest: str, policy: str) -> dict[str, str]:
    return _HEADERS | {"Content-Security-Policy": policy, "ETag": f'"{digest}"'}


def _unchanged(request: Request, digest: str) -> bool:
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    return f'"{digest}"' in known


def _frame_report(dag_id: str, digest: str) -> Response:
    """Serve the page whose frame shows one report."""
    key = _key("report", dag_id, digest)
    store = _open_store()
    recovering(store, key, lambda: store.stat(key))
    title = html.escape(f"Report of {dag_id}")
    # The address in the frame is relative: Airflow may live under a prefix.
    body = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>html,body,iframe{display:block;width:100%;height:100%;margin:0;border:0}html{overflow:hidden}</style>"
        f'<iframe sandbox="allow-scripts" referrerpolicy="no-referrer" title="{title}" src="{digest}/raw"></iframe>'
        "</html>"
    )
    return HTMLResponse(body, headers=_HEADERS | {"Content-Security-Policy": FRAME_POLICY})


def _show_report(dag_id: str, digest: str, request: Request) -> Response:
    """Serve one report for its frame; its sha256 is checked first."""
    key = _key("report", dag_id, digest)
    # Alone in a tab it could lead the tab elsewhere.
    if request.headers.get("sec-fetch-dest") == "document":
        return Response(status_code=303, headers={"Location": f"../{digest}", "Cache-Control": "no-store"})
    headers = _headers(digest, REPORT_POLICY)
    # The address names the content, so a browser that has it has the right bytes.
    if _unchanged(request, digest):
        return Response(status_code=304, headers=headers)
    store = _open_store()
    data = recovering(store, key, lambda: store.get(key))
    if hashlib.sha256(data).hexdigest() != digest:
        raise CorruptObject(f"{key} does not have the content its name promises", hint="run the task again")
    return HTMLResponse(data, headers=headers)


def _send_file(dag_id: str, digest: str, request: Request) -> Response:
    """Send one handover bundle as a download; its sha256 is checked first, in constant memory."""
    key = _key("file", dag_id, digest)
    headers = _headers(digest, "sandbox; default-src 'none'")
    if _unchanged(request, digest):
        return Response(status_code=304, headers=headers)
    store = _open_store()
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "file.zip")
        recovering(store, key, lambda: store.get_file(key, path))
        # Read from the open file, which is gone when it is closed: also where a reader goes away half-way.
        stream = path.open("rb")
    if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
        stream.close()
        raise CorruptObject(f"{key} does not have the content its name promises", hint="run the task again")
    size = stream.tell()
    stream.seek(0)
    headers |= {
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="{dag_id}-{digest[:12]}.zip"',
    }
    return StreamingResponse(_chunks(stream), media_type="application/zip", headers=headers)


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(1 << 20):
            yield chunk


async def _on_http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    headers = getattr(error, "headers", None) or {}
    response = _page(status, detail)
    response.headers.update(headers)
    return response


async def _on_mlops_error(_: Request, error: Exception) -> Response:
    if isinstance(error, ObjectNotFound):
        return _page(404, "There is no such report in the store. It may have been removed, or the store was changed.")
    log.error("%s", error)
    if isinstance(error, CorruptObject):
        return _page(502, str(error))
    if isinstance(error, MLOpsError) and not error.retryable:
        return _page(500, str(error))
    return _page(503, f"{error}\nTry again in a minute.")


async def _on_any_error(_: Request, error: Exception) -> Response:
    # A missing connection, a full disk: Starlette logs the traceback after this page is sent.
    return _page(500, f"{type(error).__name__}. The API server's log says more.")


class _PageFiles(StaticFiles):
    """The modules of the pages, below the name of their state (``/static/<state>/mlops.js``).

    Browsers keep what they got under the present name. Under any other, as of another server while an upgrade goes on,
    they ask again each time: none is left from before.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        state, _, name = path.partition("/")
        known = bool(re.fullmatch("[0-9a-f]{8}", state))
        response = await super().get_response(name if known else path, scope)
        # Edited while this server runs: it is another state already.
        kept = known and state == web_state()
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if kept else "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def create_app() -> FastAPI:
    """Return the app to mount at ``/mlops``; every route is authenticated and authorised by itself.

    ``/static`` alone is open to anybody: a mount inherits no dependencies.
    """
    app = FastAPI(
        title="airflow-mlops",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(requires_access_view(AccessView.PLUGINS))],
        exception_handlers={HTTPException: _on_http_error, MLOpsError: _on_mlops_error, Exception: _on_any_error},
    )
    may_read_dag = [Depends(requires_access_dag(method="GET"))]
    # Plain functions: Starlette runs them in its thread pool, since the store blocks.
    app.add_api_route("/reports/{dag_id}/{digest}", _frame_report, dependencies=may_read_dag, response_model=None)
    app.add_api_route("/reports/{dag_id}/{digest}/raw", _show_report, dependencies=may_read_dag, response_model=None)
    app.add_api_route("/files/{dag_id}/{digest}", _send_file, dependencies=may_read_dag, response_model=None)
    app.mount("/api", create_api())
    app.mount("/static", _PageFiles(directory=WEB), name="static")
    return app
