"""The read-only API of the MLOps pages: typed JSON, and errors as JSON.

An application of its own inside that of the reports, mounted at ``/mlops/api``: a mounted application inherits no
authentication, so this one asks for it on every route. Which pipelines there are for a user is decided in
:func:`~airflow_mlops.plugins.api.live.live_pipelines` alone, from the DAGs that the user may read.
"""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from airflow_mlops.exceptions import MLOpsError, ObjectNotFound, VersionNotFound
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.plugins.api.attention import LEVELS
from airflow_mlops.plugins.api.compare import ALIASES, comparison, versions
from airflow_mlops.plugins.api.fleet import Order, Sort, attention_card, fleet
from airflow_mlops.plugins.api.keys import keys
from airflow_mlops.plugins.api.lineage import lineage, reports
from airflow_mlops.plugins.api.monitoring import distribution, drift, performance
from airflow_mlops.plugins.api.one import with_records
from airflow_mlops.plugins.api.pipeline import pipeline_head
from airflow_mlops.plugins.api.reader import StoreReader
from airflow_mlops.plugins.api.run import run_page
from airflow_mlops.plugins.api.timeline import KINDS, timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from pydantic import BaseModel

    from airflow_mlops.plugins.api.one import One
    from airflow_mlops.store.base import Store

log = logging.getLogger(__name__)

Numbered = Annotated[str, Query(pattern=rf"^(\d{{1,9}}|{'|'.join(ALIASES)})$")]
"""A version, as its number or by what it is."""

_HEADERS = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}


def _open_store() -> Store:
    return MLOpsHook().store(impatient=True)


def _answer(request: Request, found: BaseModel) -> Response:
    """The answer as JSON, or 304 where the browser has it; its tag is made of what this user sees and nothing else."""
    body = found.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = _HEADERS | {"ETag": tag}
    asked = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if tag in asked:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"detail": text}, status_code=status, headers={**_HEADERS, "Cache-Control": "no-store"})


async def _on_http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = _error(status, str(getattr(error, "detail", "")))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _on_mlops_error(_: Request, error: Exception) -> Response:
    if isinstance(error, (ObjectNotFound, VersionNotFound)):
        return _error(404, error.message)
    log.error("%s", error)
    if isinstance(error, MLOpsError):
        return _error(503 if error.retryable else 500, error.message)
    return _error(500, type(error).__name__)


async def _on_any_error(_: Request, error: Exception) -> Response:
    # Its text may hold anything; Starlette logs the traceback after this answer is sent.
    return _error(500, f"{type(error).__name__}. The API server's log says more.")


def create_api(reader: StoreReader | None = None) -> FastAPI:
    """Return the application to mount at ``/api``; every route is authenticated and authorised by itself."""
    reader = reader or StoreReader(_open_store)
    app = FastAPI(
        title="airflow-mlops pages",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(requires_access_view(AccessView.PLUGINS))],
        exception_handlers={HTTPException: _on_http_error, MLOpsError: _on_mlops_error, Exception: _on_any_error},
    )
    # Plain functions: they run in Starlette's threads, never in the event loop.
    get = partial(app.get, response_model=None)

    def about(request: Request, user: BaseUser, pipeline: str, work: Callable[[One], BaseModel]) -> Response:
        return _answer(request, with_records(user, reader, pipeline, work))

    @get("/fleet")
    def show_fleet(
        request: Request,
        user: GetUserDep,
        search: Annotated[str, Query(max_length=200)] = "",
        attention: Annotated[str, Query(pattern=f"^({'|'.join(LEVELS)})?(,({'|'.join(LEVELS)}))*$")] = "",
        level: Annotated[str, Query(pattern=r"^(\d(,\d)*)?$")] = "",
        owner: Annotated[str | None, Query(max_length=500)] = None,
        sort: Sort = "attention",
        order: Order = "asc",
        limit: Annotated[int, Query(ge=1, le=200)] = 25,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        return _answer(
            request,
            fleet(
                user,
                reader,
                search=search,
                attention=attention.split(",") if attention else (),
                levels=map(int, level.split(",")) if level else (),
                owner=owner or None,
                sort=sort,
                order=order,
                limit=limit,
                offset=offset,
            ),
        )

    @get("/attention")
    def show_attention(request: Request, user: GetUserDep, limit: Annotated[int, Query(ge=1, le=50)] = 5) -> Response:
        return _answer(request, attention_card(user, reader, limit=limit))

    @get("/pipelines/{pipeline}")
    def show_pipeline(request: Request, user: GetUserDep, pipeline: str) -> Response:
        return _answer(request, pipeline_head(user, reader, pipeline))

    @get("/pipelines/{pipeline}/timeline")
    def show_timeline(
        request: Request,
        user: GetUserDep,
        pipeline: str,
        kind: Annotated[str, Query(pattern=f"^({'|'.join(KINDS)})?(,({'|'.join(KINDS)}))*$")] = "",
        key: str | None = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        kinds = kind.split(",") if kind else ()
        return about(
            request,
            user,
            pipeline,
            lambda one: timeline(one.story_of_key(key), kinds=kinds, limit=limit, offset=offset),
        )

    @get("/pipelines/{pipeline}/keys")
    def show_keys(
        request: Request,
        user: GetUserDep,
        pipeline: str,
        run_id: Annotated[str | None, Query(max_length=1000)] = None,
        search: Annotated[str, Query(max_length=200)] = "",
        state: Annotated[str, Query(pattern=r"^([a-z_]+(,[a-z_]+)*)?$")] = "",
        alarmed: bool = False,
        sort: Annotated[str, Query(max_length=200)] = "key",
        order: Order = "asc",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        return about(
            request,
            user,
            pipeline,
            lambda one: keys(
                one,
                reader,
                run_id=run_id or None,
                search=search,
                states=state.split(",") if state else (),
                alarmed=alarmed,
                sort=sort,
                descending=order == "desc",
                limit=limit,
                offset=offset,
            ),
        )

    @get("/pipelines/{pipeline}/versions")
    def show_versions(request: Request, user: GetUserDep, pipeline: str, key: str | None = None) -> Response:
        return about(request, user, pipeline, lambda one: versions(one.of_key(key), key))

    @get("/pipelines/{pipeline}/compare")
    def show_comparison(
        request: Request, user: GetUserDep, pipeline: str, a: Numbered = "latest", b: Numbered = "champion",
        key: str | None = None,
    ) -> Response:  # fmt: skip
        return about(request, user, pipeline, lambda one: comparison(one.of_key(key), a, b, key, one.records.runs))

    @get("/pipelines/{pipeline}/performance")
    def show_performance(request: Request, user: GetUserDep, pipeline: str) -> Response:
        return about(request, user, pipeline, performance)

    @get("/pipelines/{pipeline}/drift")
    def show_drift(
        request: Request, user: GetUserDep, pipeline: str, windows: Annotated[int, Query(ge=1, le=400)] = 60
    ) -> Response:
        return about(request, user, pipeline, lambda one: drift(one, windows=windows))

    @get("/pipelines/{pipeline}/distribution")
    def show_distribution(
        request: Request,
        user: GetUserDep,
        pipeline: str,
        window: Annotated[str, Query(max_length=100)],
        column: Annotated[str, Query(max_length=1000)],
    ) -> Response:
        return about(request, user, pipeline, lambda one: distribution(one, window, column))

    @get("/pipelines/{pipeline}/lineage")
    def show_lineage(
        request: Request, user: GetUserDep, pipeline: str, version: Numbered = "latest", key: str | None = None
    ) -> Response:
        return about(request, user, pipeline, lambda one: lineage(one.of_key(key), version, key))

    @get("/pipelines/{pipeline}/reports")
    def show_reports(
        request: Request, user: GetUserDep, pipeline: str, version: Numbered | None = None, key: str | None = None
    ) -> Response:
        return about(request, user, pipeline, lambda one: reports(one, version, key))

    @get("/runs/{dag_id}")
    def show_run(
        request: Request, user: GetUserDep, dag_id: str, run_id: Annotated[str, Query(max_length=1000)]
    ) -> Response:
        return _answer(request, run_page(user, reader, dag_id, run_id))

    return app
