"""The JSON that goes in and out, as pydantic models: they check requests and write the OpenAPI schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Name = Annotated[str, Field(max_length=1000, description="what the client calls the image; echoed, never logged")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class JsonImage(_Strict):
    """One image of a JSON request: its bytes in base64, or a URL where the operator allows URLs."""

    name: _Name | None = None
    base64: str | None = Field(None, description="the bytes of the file, standard base64 with padding")
    url: str | None = Field(None, max_length=2048, description="only for hosts that the operator listed")

    @model_validator(mode="after")
    def _exactly_one(self) -> JsonImage:
        if (self.base64 is None) == (self.url is None):
            raise ValueError("exactly one of `base64` and `url`")
        return self


class PredictBody(_Strict):
    """The JSON form of a request."""

    images: list[JsonImage] = Field(min_length=1, max_length=10_000)


class Facts(BaseModel):
    """Facts of the file, read without trusting its name."""

    codec: str
    width_px: int
    height_px: int
    n_bytes: int
    jpeg_quality: int | None = Field(description="estimate on the IJG scale, null if not JPEG")
    bit_depth: int
    mode: str
    n_frames: int
    has_exif: bool
    has_icc: bool
    has_alpha: bool
    notes: list[str] = Field(description="rules that the decoder applied; see docs/decoding.md")


class ImageError(BaseModel):
    """Why an image could not be scored; the others of the request are not touched by it."""

    reason: str = Field(description="stable word, for programs")
    detail: str = Field(description="a sentence, for people")


class Warned(BaseModel):
    """What makes the answer less reliable."""

    code: str = Field(description="stable word, for programs")
    text: str = Field(description="a sentence, for people")


class ImageTimings(BaseModel):
    """Milliseconds of one image."""

    queue_ms: float = Field(description="waited for a place, for decoding and for the model")
    decode_ms: float
    model_ms: float = Field(description="the forward pass that held it")
    batch: int = Field(description="images in that forward pass")


class ImageResult(BaseModel):
    """What is said of one image."""

    index: int = Field(description="place in the request, from 0")
    name: str | None
    logit: float | None = Field(description="unbounded, higher = generated; null on an error")
    score: float | None = Field(description="calibrated probability of being generated")
    decision: Literal["generated", "real", "uncertain", "n/a"] | None
    abstained: bool = Field(description="the logit is too close to call; decision is `uncertain`")
    warnings: list[Warned]
    error: ImageError | None
    facts: Facts | None
    timings: ImageTimings | None
    provenance: dict[str, Any] | None = Field(None, description="with ?provenance=true: C2PA and generator metadata")


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str
    format: str


class OperatingPoint(BaseModel):
    """The threshold behind `decision`: generated from this logit on."""

    name: str
    threshold: float


class Timings(BaseModel):
    """Milliseconds of the request; queue, decode and model are the longest of its images."""

    upload_ms: float
    queue_ms: float
    decode_ms: float
    model_ms: float
    total_ms: float


class PredictAnswer(BaseModel):
    """The answer to `/v1/predict`; at least one image was scored."""

    request_id: str
    model: ModelName
    operating_point: OperatingPoint | None = Field(description="null when the bundle has none; decisions are `n/a`")
    images: list[ImageResult]
    timings: Timings


class ErrorBody(BaseModel):
    """What went wrong with the request as a whole."""

    code: str = Field(description="stable word, for programs")
    message: str


class Problem(BaseModel):
    """Every answer that is not a success."""

    request_id: str
    error: ErrorBody
    images: list[ImageResult] | None = Field(description="per image, when none could be scored")


class ExplainAnswer(BaseModel):
    """The heat map of one image by occlusion: how the logit falls when a cell is hidden."""

    model_config = ConfigDict(extra="allow")

    request_id: str
    model: ModelName
    name: str | None
    rows: int
    cols: int
    delta: list[list[float]] = Field(
        description="baseline logit minus the logit with the cell hidden, rows from the top"
    )
    baseline_logit: float
    timings: Timings


class Health(BaseModel):
    """Alive or ready."""

    status: Literal["ok"]


class ModelAnswer(BaseModel):
    """What the bundle says of itself."""

    name: str
    version: str
    format: str
    formats: list[str]
    tool_version: str
    operating_points: dict[str, float] | None
    default_operating_point: str | None
    abstention: dict[str, float] | None
    temperature: float | None
    input: dict[str, Any]
    limits: dict[str, float] = Field(description="bounds of this service")
    urls_allowed: bool
    warnings: dict[str, str] = Field(description="every warning word with its sentence")
    bundle: dict[str, Any] = Field(description="bundle.json: training data, held-out results, licence")
