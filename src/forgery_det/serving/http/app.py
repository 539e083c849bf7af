"""`create_app`: the ASGI application around a loaded bundle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from forgery_det._version import __version__
from forgery_det.serving.http.docs_page import render_docs
from forgery_det.serving.http.fetch import Fetcher
from forgery_det.serving.http.gate import Gate, record_of
from forgery_det.serving.http.problems import RefusalError
from forgery_det.serving.http.routes import ROUTES, make_router
from forgery_det.serving.http.service import Drain, Service
from forgery_det.serving.http.settings import ServeSettings
from forgery_det.serving.predictor import Predictor

PAGE = Path(__file__).parents[1] / "page" / "static"
"""Files of the page at `/`; the service works without them."""


def create_app(
    predictor: Predictor,
    settings: ServeSettings | None = None,
    *,
    drain: Drain | None = None,
    fetcher: Fetcher | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        predictor: The loaded bundle; shared by all requests.
        settings: Limits, keys and URL rules; None takes the defaults.
        drain: Switched on by the server when it is told to end.
        fetcher: For images by URL; None makes the usual one.

    Returns:
        An application whose lifespan must run (a server sees to it; tests use `with TestClient(app)`).
    """
    settings = settings or ServeSettings()
    service = Service(predictor, settings, drain or Drain(), fetcher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.run():
            yield

    app = FastAPI(
        title="forgery-det",
        version=__version__,
        summary="Is this image generated? Scores, decisions and doubts from a forgery-det bundle.",
        lifespan=lifespan,
        # FastAPI's own documentation pages load scripts from the net; `/docs` is made here instead.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(make_router(service))
    app.add_exception_handler(RefusalError, _answer_refusal)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_middleware(Gate, keys=settings.api_keys, metrics=service.metrics, routes=ROUTES)
    if settings.api_keys:
        _document_keys(app)

    def docs(_: Request) -> Response:
        return HTMLResponse(render_docs(app.openapi()))

    app.router.routes.append(Route("/docs", docs, include_in_schema=False))
    app.router.routes.extend(_page_routes(PAGE))
    app.state.service = service
    return app


def _refused(request: Request, refusal: RefusalError) -> Response:
    record = record_of(request.scope)
    record.code = refusal.code
    return refusal.response(record.request_id)


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    return _refused(request, error)


async def _answer_validation(request: Request, error: Exception) -> Response:
    """Parameters of the query only: bodies are read by `uploads`. Values are not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    return _refused(request, RefusalError("invalid_request", f"Expected a valid {where}: {first['msg'][:200]}"))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    response = _refused(request, RefusalError(code, f"Expected an endpoint of /docs: {error.detail}"))
    response.headers.update(error.headers or {})
    return response


def _document_keys(app: FastAPI) -> None:
    """Say in the OpenAPI schema which endpoints ask for a key."""
    plain = app.openapi

    def with_keys() -> dict[str, object]:
        schema = plain()
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}}
        schema.setdefault("components", {})["securitySchemes"] = schemes
        for path, operations in schema["paths"].items():
            if path.startswith(("/v1/", "/metrics")):
                for operation in operations.values():
                    operation["security"] = [{"bearer": []}]
        return schema

    app.openapi = with_keys  # type: ignore[method-assign]


def _page_routes(folder: Path) -> list[Route]:
    """Return a route for each file of the page. Named one by one: nothing outside the list can be asked for."""

    def serve(path: Path) -> Route:
        name = "/" if path == folder / "index.html" else f"/{path.relative_to(folder).as_posix()}"
        return Route(name, lambda _: FileResponse(path, headers={"Cache-Control": "no-cache"}), include_in_schema=False)

    return [serve(path) for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
