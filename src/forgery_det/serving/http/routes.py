"""The endpoints: parse, ask for places, wait for the pipeline, answer."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.serving.http import schema
from forgery_det.serving.http.answers import (
    image_result,
    model_answer,
    model_name,
    ms,
    operating_point,
    refuse_if_none_scored,
    timings,
)
from forgery_det.serving.http.gate import record_of
from forgery_det.serving.http.multipart import Upload
from forgery_det.serving.http.openapi import BODY, problems
from forgery_det.serving.http.pipeline import Outcome, Wish
from forgery_det.serving.http.problems import RefusalError
from forgery_det.serving.http.service import Service
from forgery_det.serving.http.uploads import read_uploads

ROUTES = frozenset({"/v1/predict", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/metrics", "/openapi.json", "/"})

_POINT = Query(description="whose threshold decides; without it, the bundle's default", max_length=100)
_GRID = Query(description="cells along each side; the work grows with its square", ge=1, le=16)
_ORIGIN = Query(description="also read C2PA manifests and generator metadata")


def make_router(service: Service) -> APIRouter:
    """Return the endpoints of a service."""
    router = APIRouter()

    @router.post(
        "/v1/predict",
        response_model=schema.PredictAnswer,
        responses=problems(400, 401, 408, 413, 415, 422, 429, 503, 504),
        openapi_extra=BODY,
        summary="Judge one or several images",
        tags=["images"],
    )
    async def predict(
        request: Request,
        operating_point: Annotated[str | None, _POINT] = None,
        provenance: Annotated[bool, _ORIGIN] = False,
    ) -> Response:
        _check_query(request, {"operating_point", "provenance"})
        return await _predict(service, request, operating_point, provenance)

    @router.post(
        "/v1/explain",
        response_model=schema.ExplainAnswer,
        responses=problems(400, 401, 408, 413, 415, 422, 429, 503, 504),
        openapi_extra=BODY,
        summary="Show which part of one image drives the logit",
        tags=["images"],
    )
    async def explain(request: Request, grid: Annotated[int, _GRID] = 8) -> Response:
        _check_query(request, {"grid"})
        return await _explain(service, request, grid)

    @router.get("/v1/model", response_model=schema.ModelAnswer, responses=problems(401), tags=["service"])
    async def model() -> Response:
        """What the bundle says of itself, and the limits of this service."""
        return JSONResponse(model_answer(service.predictor, service.settings))

    @router.get("/healthz", response_model=schema.Health, responses=problems(503), tags=["service"])
    async def healthz() -> Response:
        """Alive; 503 when the model hangs and the process should be replaced."""
        return _health(service, is_liveness=True)

    @router.get("/readyz", response_model=schema.Health, responses=problems(503), tags=["service"])
    async def readyz() -> Response:
        """Ready for requests; 503 while it ends or hangs."""
        return _health(service, is_liveness=False)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(401)},
        tags=["service"],
    )
    async def metrics() -> Response:
        """Metrics in the text format of Prometheus."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _predict(service: Service, request: Request, point: str | None, with_provenance: bool) -> Response:
    start = time.perf_counter()
    record = record_of(request.scope)
    service.check_open()
    try:
        decider = operating_point(service.predictor, point)
    except ConfigError as error:
        raise RefusalError("invalid_request", str(error)) from None
    limits, pipeline = service.settings.limits, service.pipeline
    with service.admission.request(), service.admission.buffer() as take:
        uploads, record.bytes_in = await read_uploads(request, limits, take, pipeline.executor)
        upload_s = time.perf_counter() - start
        _note(service, request, uploads)
        with service.admission.queued(len(uploads)):
            wish = Wish(point, with_provenance, take)
            outcomes = await service.within_limits(pipeline.score(uploads, wish), request.receive)
    images = [image_result(index, outcome) for index, outcome in enumerate(outcomes)]
    times = timings(outcomes, upload_s, time.perf_counter() - start)
    record.n_failed = sum(outcome.prediction is None for outcome in outcomes)
    record.timings_ms |= times.model_dump()
    refuse_if_none_scored(outcomes, images)
    answer = schema.PredictAnswer(
        request_id=record.request_id,
        model=model_name(service.predictor),
        operating_point=decider,
        images=images,
        timings=times,
    )
    return JSONResponse(answer.model_dump(mode="json"))


async def _explain(service: Service, request: Request, grid: int) -> Response:
    start = time.perf_counter()
    record = record_of(request.scope)
    service.check_open()
    limits, pipeline = service.settings.limits, service.pipeline
    with service.admission.request(), service.admission.buffer() as take:
        uploads, record.bytes_in = await read_uploads(request, limits, take, pipeline.executor)
        upload_s = time.perf_counter() - start
        _note(service, request, uploads)
        if len(uploads) != 1 or uploads[0].url is not None:
            raise RefusalError("invalid_request", "Expected the bytes of one image, got several or a URL.")
        # A heat map is `grid` squared forward passes, so it takes a few places.
        with service.admission.queued(max(1, grid * grid // 16)):
            try:
                heatmap, decode_s, map_s = await service.within_limits(
                    pipeline.explain(uploads[0], grid), request.receive
                )
            except ImageError as error:
                record.n_failed = 1
                failed = Outcome(uploads[0], error=(error.reason, error.detail))
                refuse_if_none_scored([failed], [image_result(0, failed)])
    total_s = time.perf_counter() - start
    waited_s = max(0.0, total_s - upload_s - decode_s - map_s)
    times = schema.Timings(
        upload_ms=ms(upload_s), queue_ms=ms(waited_s), decode_ms=ms(decode_s), model_ms=ms(map_s), total_ms=ms(total_s)
    )
    record.timings_ms |= times.model_dump()
    head: dict[str, Any] = {
        "request_id": record.request_id,
        "model": model_name(service.predictor).model_dump(mode="json"),
        "name": uploads[0].name,
        "timings": times.model_dump(mode="json"),
    }
    return JSONResponse(heatmap | head)


def _note(service: Service, request: Request, uploads: list[Upload]) -> None:
    record = record_of(request.scope)
    record.n_images = len(uploads)
    if service.settings.log_names:
        record.names = [upload.name or upload.url for upload in uploads]


def _check_query(request: Request, known: set[str]) -> None:
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        raise RefusalError(
            "invalid_request", f"Expected the parameters {', '.join(sorted(known))}, got {unknown[0][:40]!r}."
        )


def _health(service: Service, *, is_liveness: bool) -> Response:
    trouble = service.trouble(is_liveness=is_liveness)
    if trouble is not None:
        raise trouble
    return JSONResponse({"status": "ok"})
