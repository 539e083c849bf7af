"""From outcomes to the JSON of an answer."""

from __future__ import annotations

from typing import Any

from forgery_det.core.image_facts import ImageFacts
from forgery_det.serving.http import schema
from forgery_det.serving.http.pipeline import Outcome
from forgery_det.serving.http.problems import RefusalError
from forgery_det.serving.http.settings import ServeSettings
from forgery_det.serving.image_warnings import WARNINGS
from forgery_det.serving.predictor import Predictor


def ms(seconds: float) -> float:
    """Return milliseconds with two decimals."""
    return round(1000 * seconds, 2)


def model_name(predictor: Predictor) -> schema.ModelName:
    """Return which model answers."""
    return schema.ModelName(name=predictor.facts.name, version=predictor.facts.version, format=predictor.format.name)


def operating_point(predictor: Predictor, wanted: str | None) -> schema.OperatingPoint | None:
    """Return the operating point that decides, None when the bundle has none."""
    threshold = predictor.facts.threshold(wanted)
    if threshold is None:
        return None
    return schema.OperatingPoint(name=wanted or predictor.facts.default_operating_point or "", threshold=threshold)


def _facts(facts: ImageFacts) -> schema.Facts:
    names = schema.Facts.model_fields
    return schema.Facts.model_validate(
        {name: getattr(facts, name) for name in names if name != "notes"} | {"notes": list(facts.notes)}
    )


def image_result(index: int, outcome: Outcome) -> schema.ImageResult:
    """Return the answer about one image."""
    found = outcome.prediction
    timings = schema.ImageTimings(
        queue_ms=ms(outcome.queue_s), decode_ms=ms(outcome.decode_s), model_ms=ms(outcome.model_s), batch=outcome.batch
    )
    return schema.ImageResult(
        index=index,
        name=outcome.upload.name,
        logit=found.logit if found else None,
        score=found.score if found else None,
        decision=found.decision if found else None,
        abstained=bool(found and found.abstained),
        warnings=[schema.Warned(code=word, text=WARNINGS[word]) for word in (found.warnings if found else ())],
        error=None if outcome.error is None else schema.ImageError(reason=outcome.error[0], detail=outcome.error[1]),
        facts=_facts(outcome.facts) if outcome.facts else None,
        timings=timings if found else None,
        provenance=outcome.provenance,
    )


def timings(outcomes: list[Outcome], upload_s: float, total_s: float) -> schema.Timings:
    """Return the times of a request: of its images, the longest."""
    return schema.Timings(
        upload_ms=ms(upload_s),
        queue_ms=ms(max((one.queue_s for one in outcomes), default=0)),
        decode_ms=ms(max((one.decode_s for one in outcomes), default=0)),
        model_ms=ms(max((one.model_s for one in outcomes), default=0)),
        total_ms=ms(total_s),
    )


def refuse_if_none_scored(outcomes: list[Outcome], images: list[schema.ImageResult]) -> None:
    """Turn a request without a single score into a refusal that shows its images.

    Raises:
        RefusalError: `image_too_large` when bytes are the only reason, `no_image_scored` otherwise.
    """
    if any(outcome.prediction for outcome in outcomes):
        return
    reasons = {(outcome.error or ("other", ""))[0] for outcome in outcomes}
    shown = [image.model_dump(mode="json") for image in images]
    if reasons == {"too_many_bytes"}:
        raise RefusalError("image_too_large", "Expected smaller images; `images` says how small.", images=shown)
    raise RefusalError("no_image_scored", "Expected at least one usable image, got none; see `images`.", images=shown)


def model_answer(predictor: Predictor, settings: ServeSettings) -> dict[str, Any]:
    """Return what `/v1/model` says."""
    facts, limits = predictor.facts, settings.limits
    band = facts.abstention
    return schema.ModelAnswer(
        name=facts.name,
        version=facts.version,
        format=predictor.format.name,
        formats=list(facts.formats),
        tool_version=facts.tool_version,
        operating_points=None if facts.operating_points is None else dict(facts.operating_points),
        default_operating_point=facts.default_operating_point,
        abstention=None if band is None else {"alpha": band.alpha, "low": band.low, "high": band.high},
        temperature=facts.temperature,
        input={
            "shape": list(facts.input.shape),
            "dynamic_size": facts.input.dynamic_size,
            "views": facts.input.views,
        },
        limits=dict(vars(limits)),
        urls_allowed=bool(settings.fetch.hosts),
        warnings=dict(WARNINGS),
        bundle=dict(facts.document),
    ).model_dump(mode="json")
