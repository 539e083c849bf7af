"""Real images through a generator's autoencoder, or through a few steps of noise and denoise: hard pairs.

    z = E(x),    x' = D(z)                                        an autoencoder alone
    z_t = (1 - s) E(x) + s e,  denoised in some steps,  x' = D(z_0)      with `strength` s and a whole pipeline

A reconstruction shows the same content as its original, so that a detector can only learn what the decoder leaves
behind: AlignedForensics (arXiv 2410.11835) trains on pairs of the first kind, B-Free (arXiv 2412.17671) on pairs of the
second, DDA (arXiv 2505.14359) also aligns the JPEG history and blends pairs pixel by pixel,

    x'' = m x + (1 - m) x',        m = the share of the original

Size and pixel grid stay (padding by reflection, cut back), and so does the JPEG history: see `pixel_grid`. An item has
the `source_id` and `content_id` of its original, so a pair never straddles a split.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import DecodedImage, decode_image, encode_image
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.generate.base import INCIDENTAL, Generator, Inputs
from forgery_det.recipes.generate.diffusers_pipeline import DiffusersParameters, LoadedPipeline
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.local_model import (
    Failures,
    check_model_keys,
    commit_of,
    device_name,
    loading,
    local_version,
    model_folder,
    pick_device,
    quiet_libraries,
    require,
    versions,
)
from forgery_det.recipes.generate.pixel_grid import ImageArray, check_history, encode_like, pad_to_multiple

MIX_RULES = ("fixed", "uniform")
HISTORIES = ("like_input", "png")
_ADVICE = "Set `tiling: true`, choose `dtype: bfloat16`, leave out images that are too large, or take a larger GPU."


@dataclass(frozen=True, slots=True)
class ReconstructParameters:
    """Keys of a `reconstruct` generator, which needs `images`.

    Args:
        autoencoder: Class of diffusers, such as `AutoencoderKL`, `VQModel`, `AutoencoderTiny` or `AutoencoderDC`; None
            takes the class that the model's own files name.
        subfolder: Where the autoencoder lies in the repository, for instance `vae`.
        dtype: `bfloat16`, `float16` or `float32`; half precision leaves traces of its own.
        sample: Draw the latent from its distribution; otherwise its mode is taken.
        strength: Noise and denoise with the whole pipeline, in (0, 1]; None passes the autoencoder alone.
        steps: Denoising steps of the pipeline; about `strength` of them are taken.
        prompt: Text of the pipeline; empty for none.
        guidance: `guidance_scale` of the pipeline.
        mix: Share of the original in the blend, in [0, 1): 0 leaves the reconstruction as it is.
        mix_rule: `fixed`, or `uniform`: the share of an image is drawn from [0, mix].
        probability: Share of the images that are blended; the others stay as they are.
        history: `like_input` or `png`.
        tiling: Decode in tiles, for large images; changes pixels near the seams.
        device: Such as `cuda:1`; None takes the first accelerator.
    """

    autoencoder: str | None = None
    subfolder: str | None = None
    dtype: str = "float32"
    sample: bool = False
    strength: float | None = None
    steps: int | None = None
    prompt: str = ""
    guidance: float | None = None
    mix: float = 0.0
    mix_rule: str = "fixed"
    probability: float = 1.0
    history: str = "like_input"
    tiling: bool = False
    device: str | None = dataclasses.field(default=None, metadata=INCIDENTAL)

    def __post_init__(self) -> None:
        check_model_keys(self.dtype)
        for name, value, known in (("mix_rule", self.mix_rule, MIX_RULES), ("history", self.history, HISTORIES)):
            if value not in known:
                raise ConfigError(f"Unknown {name} {value!r}: {did_you_mean(value, known)}")
        if not 0 <= self.mix < 1:
            raise ConfigError(f"Expected `mix`, the share of the original, in [0, 1), got {self.mix}")
        if not 0 < self.probability <= 1:
            raise ConfigError(f"Expected `probability` in (0, 1], got {self.probability}")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ConfigError(f"Expected `strength` in (0, 1], got {self.strength}")
        if self.strength is not None and (self.autoencoder or self.subfolder or self.sample or self.tiling):
            raise ConfigError("Expected `strength` with a whole pipeline, got keys of an autoencoder alone beside it")
        if self.strength is None and (self.steps or self.prompt or self.guidance is not None):
            raise ConfigError("Expected `strength` where `steps`, `prompt` or `guidance` are given, got none")


class ReconstructGenerator(Generator):
    """Reconstructs images; see the module."""

    Parameters = ReconstructParameters
    needs_prompt = False
    needs_image = True
    parameters: ReconstructParameters

    def model_version(self) -> str:
        """Return the revision, or the hash of a local model's files."""
        return local_version(self.context)

    def run(self, jobs: Sequence[Job], inputs: Inputs) -> Iterator[tuple[Job, Outcome]]:
        """Yield the jobs one after the other.

        Raises:
            SourceError: The model cannot be loaded or memory is short.
        """
        if not jobs:
            return
        model: _Model | None = None
        failures = Failures(self.context, _ADVICE)
        for job in jobs:
            try:
                data, original = self._original(job, inputs)
            except ImageError as error:
                yield job, Outcome("failed", None, str(error), {})
                continue
            # After the first usable input: a run that only meets the unusable ones again loads no model.
            model = model or self._loaded()
            try:
                with quiet_libraries():
                    outcome = self._outcome(job, model, data, original)
            except ImageError as error:
                yield job, Outcome("failed", None, str(error), {})
                continue
            except (RuntimeError, ValueError, TypeError, MemoryError) as error:
                yield from failures.outcomes([job], error)
                continue
            failures.succeeded()
            yield job, outcome

    def _loaded(self) -> _Model:
        with quiet_libraries():
            return _Pipeline(self) if self.parameters.strength is not None else _Autoencoder(self)

    def _original(self, job: Job, inputs: Inputs) -> tuple[bytes, DecodedImage]:
        assert job.image_sha256 is not None
        data = inputs(job.image_sha256)
        decoded = decode_image(data)
        if self.parameters.history == "like_input":
            check_history(decoded, data)
        return data, decoded

    def _outcome(self, job: Job, model: _Model, data: bytes, decoded: DecodedImage) -> Outcome:
        began = time.monotonic()
        made_HWC, facts = model.reconstruct(job, data, decoded.image_HWC)
        share = original_share(job.seed, self.parameters)
        blended_HWC = blend(decoded.image_HWC, made_HWC, share)
        change = np.abs(blended_HWC.astype(np.int16) - decoded.image_HWC).mean()
        result, history = encode_image(blended_HWC, "png", None), "png"
        if self.parameters.history == "like_input":
            result, history = encode_like(blended_HWC, data, decoded.facts)
        told = {
            "original_share": share,
            "history": history,
            "mean_abs_change": round(float(change), 4),
            "seed": job.seed,
            "dtype": self.parameters.dtype,
            "cost_usd": 0.0,
            "duration_s": round(time.monotonic() - began, 3),
        }
        return Outcome("image", result, "", facts | told)


def original_share(seed: int, parameters: ReconstructParameters) -> float:
    """Return the share of the original in the blend of one image, drawn from its seed.

    Example:
        >>> original_share(7, ReconstructParameters(mix=0.5))
        0.5
    """
    rng = np.random.default_rng([seed, 0x6D6978])
    is_blended = rng.random() < parameters.probability
    share = parameters.mix if parameters.mix_rule == "fixed" else float(rng.uniform(0, parameters.mix))
    return round(share, 6) if is_blended else 0.0


def blend(original_HWC: ImageArray, made_HWC: ImageArray, share: float) -> ImageArray:
    """Return `share` of the original and the rest of the other image, rounded.

    Example:
        >>> zeros, hundreds = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 100, np.uint8)
        >>> blend(hundreds, zeros, 0.25)[0, 0, 0]
        np.uint8(25)
    """
    if share == 0:
        return made_HWC
    mixed = share * original_HWC.astype(np.float64) + (1 - share) * made_HWC
    return np.rint(mixed).astype(np.uint8)


class _Autoencoder:
    """An autoencoder of diffusers on its device."""

    def __init__(self, generator: ReconstructGenerator) -> None:
        given, context = generator.parameters, generator.context
        require("diffusers", context)
        import diffusers
        import torch

        self._given = given
        self._device = pick_device(given.device)
        if given.autoencoder is not None and not hasattr(diffusers, given.autoencoder):
            known = [
                one for one in dir(diffusers) if one.startswith(("Autoencoder", "VQ", "Asymmetric", "Consistency"))
            ]
            raise ConfigError(f"Unknown autoencoder {given.autoencoder!r}: {did_you_mean(given.autoencoder, known)}")
        with loading(context):
            self._model: Any = getattr(diffusers, given.autoencoder or "AutoModel").from_pretrained(
                str(model_folder(context) or context.model),
                subfolder=given.subfolder,
                revision=context.model_version,
                torch_dtype=getattr(torch, given.dtype),
                use_safetensors=True,
            )
        self._model.to(self._device).eval()
        if given.tiling:
            self._model.enable_tiling()
        self._multiple = _multiple_of(self._model.config)
        file = f"{given.subfolder}/config.json" if given.subfolder else "config.json"
        self._facts = {
            "autoencoder": type(self._model).__name__,
            "multiple_px": self._multiple,
            "device": self._device.type,
            "device_name": device_name(self._device),
            "model_version_returned": commit_of(context, file),
            "versions": versions("diffusers", "torch"),
        }

    def reconstruct(self, job: Job, data: bytes, image_HWC: ImageArray) -> tuple[ImageArray, dict[str, Any]]:
        del data
        import torch

        height, width = image_HWC.shape[:2]
        padded = pad_to_multiple(image_HWC, self._multiple)
        image_BCHW = torch.from_numpy(padded).permute(2, 0, 1)[None].to(self._device, self._model.dtype) / 127.5 - 1
        with torch.inference_mode():
            latent = self._encoded(self._model.encode(image_BCHW), job.seed)
            decoded_BCHW = self._model.decode(latent).sample
        pixels = ((decoded_BCHW[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        made_HWC = pixels.permute(1, 2, 0).cpu().numpy()
        return np.ascontiguousarray(made_HWC[:height, :width]), self._facts

    def _encoded(self, output: Any, seed: int) -> Any:
        """Return the latent of any autoencoder: a distribution (KL), or the latent itself (VQ, DC, tiny)."""
        import torch

        if hasattr(output, "latent_dist"):
            if self._given.sample:
                return output.latent_dist.sample(torch.Generator("cpu").manual_seed(seed))
            return output.latent_dist.mode()
        return output.latents if hasattr(output, "latents") else output.latent


class _Pipeline:
    """An image-to-image pipeline of diffusers that adds noise and takes it away."""

    def __init__(self, generator: ReconstructGenerator) -> None:
        given = generator.parameters
        own = DiffusersParameters(
            task="image_to_image",
            dtype=given.dtype,
            steps=given.steps,
            guidance=given.guidance,
            strength=given.strength,
            device=given.device,
        )
        self._pipeline = LoadedPipeline(own, generator.context)
        self._prompt = given.prompt

    def reconstruct(self, job: Job, data: bytes, image_HWC: ImageArray) -> tuple[ImageArray, dict[str, Any]]:
        del image_HWC
        asked = dataclasses.replace(job, prompt=self._prompt, mask_sha256=None)
        (outcome,) = self._pipeline.make([asked], lambda _sha256: data)
        if outcome.data is None:
            raise ImageError(outcome.kind, outcome.detail)
        return decode_image(outcome.data).image_HWC, dict(outcome.provenance)


_Model = _Autoencoder | _Pipeline


def _multiple_of(config: Mapping[str, Any]) -> int:
    """Return what the sides must divide by: the factor by which an autoencoder shrinks, at least 8.

    Example:
        >>> _multiple_of({"block_out_channels": (1, 2, 4, 4)}), _multiple_of({"encoder_block_out_channels": (1,) * 6})
        (8, 32)
    """
    levels: Any = config.get("encoder_block_out_channels") or config.get("block_out_channels") or ()
    if isinstance(levels, int):
        levels = (levels,)
    return max(8, 1 << (len(levels) - 1))
