"""Planning: the jobs of a generating source, all of them, in an order that never changes.

Text to image: every prompt of the set, level by level as the set has them, times `images_per_prompt`. With `images`:
every original of that source, times `images_per_prompt`; where there is a prompt set too, an original meets the prompts
that share its `content_id` (or name its key), and one without such a prompt goes to the quarantine as `no_prompt`.

Seeds depend on the recipe's seed, the prompt's id (or the input's sha256) and the number of the image, not on the level
and not on the generator: the same idea gets the same seed everywhere, and adding prompts changes no other image.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from forgery_det.core.artefacts import canonical_json, sha256_bytes, write_bytes
from forgery_det.core.errors import ConfigError, ImageError, SourceError
from forgery_det.core.image_io import decode_image
from forgery_det.recipes.generate.base import Generator
from forgery_det.recipes.generate.inputs import UNUSABLE, InputImage, input_images
from forgery_det.recipes.generate.job import Job, derive_seed
from forgery_det.recipes.generate.masks import Mask, draw_mask
from forgery_det.recipes.generate.registry import ResolvedGenerator
from forgery_det.recipes.generate.store import JobStore
from forgery_det.recipes.prompt_sets import Prompt, PromptSet
from forgery_det.recipes.sources.base import Peers, SourceContext
from forgery_det.recipes.work import WORK_NAME

if TYPE_CHECKING:
    from forgery_det.recipes.generate.source import GenerateParameters

NO_PROMPT, NO_MASK = "no_prompt", "no_mask"
"""Stable words of the quarantine: an input image that no prompt of the set, or no mask, belongs to."""

MASKS_NAME = "masks"
"""Folder of a dataset with the masks of its partial forgeries, `masks/<sha[:2]>/<sha>.png`, upright, before align."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An item to come.

    Args:
        key: The item's key.
        stamp: Changes when its image or its fields change.
        job: What makes it; None when there is no job.
        refusal: Why there is no job: reason and detail.
    """

    key: str
    stamp: str
    job: Job | None
    refusal: tuple[str, str] | None = None


class Planner:
    """Builds the jobs of one source.

    Args:
        parameters: What the recipe says.
        resolved: The generator with its card.
        generator: The generator; no model is loaded for planning.
        store: Takes input images and masks.
        context: Gives the other parts of the recipe.
    """

    def __init__(
        self,
        parameters: GenerateParameters,
        resolved: ResolvedGenerator,
        generator: Generator,
        store: JobStore,
        context: SourceContext,
    ) -> None:
        self._given = parameters
        self._resolved = resolved
        self._generator = generator
        self._store = store
        self._context = context
        self._version = generator.model_version()
        self._job_parameters = generator.job_parameters()
        self._negative_prompt = generator.negative_prompt()

    def planned(self) -> Iterator[Planned]:
        """Yield what is planned."""
        where = f"source {self._context.source_id!r}"
        self._check_fit(where)
        if self._given.images is None:
            yield from self._from_prompts(self._prompt_set(where))
        elif self._given.prompts is None:
            for image in self._images():
                yield from self._of_image(image, None, image.key)
        else:
            yield from self._of_pairs(self._prompt_set(where))

    def _check_fit(self, where: str) -> None:
        """Check that the recipe gives what the generator needs, and nothing that it cannot use."""
        given, generator, kind = self._given, self._generator, self._resolved.kind
        if given.images is None and generator.needs_image:
            raise ConfigError(f"Expected `images` for generator kind {kind!r} as it is set up, got none ({where}).")
        if given.images is not None and not generator.takes_image:
            raise ConfigError(f"Expected no `images` for generator kind {kind!r} as it is set up, got some ({where}).")
        if given.mask is None and generator.needs_mask:
            raise ConfigError(f"Expected a `mask` for inpainting, got none ({where}).")
        if given.mask is not None and generator.needs_image and not generator.needs_mask:
            raise ConfigError(f"Expected no `mask` where nothing is inpainted, got one ({where}).")
        if generator.needs_prompt and given.prompts is None and given.prompt is None:
            raise ConfigError(f"Expected `prompts` or `prompt` for generator kind {kind!r}, got neither ({where}).")

    def _peers(self) -> Peers:
        if self._context.peers is None:
            name = self._context.source_id
            raise ConfigError(f"Expected source {name!r} within a recipe, which gives prompts and images, got none.")
        return self._context.peers

    def _prompt_set(self, where: str) -> PromptSet:
        name = self._given.prompts or ""
        prompts = self._peers().prompt_set(name)
        if not prompts.at(self._given.levels):
            levels = ", ".join(self._given.levels)
            raise SourceError(f"Expected prompts at level {levels} in the set {name!r}, got none ({where}).")
        return prompts

    def _from_prompts(self, prompts: PromptSet) -> Iterator[Planned]:
        counts: dict[str, int] = defaultdict(int)
        for prompt in prompts.at(self._given.levels):
            counts[prompt.level] += 1
            if self._given.limit is not None and counts[prompt.level] > self._given.limit:
                continue
            for index in range(self._given.images_per_prompt):
                seed = derive_seed(self._given.seed, prompt.prompt_id, index)
                yield _planned(f"{_prompt_key(prompt)}/{index}", self._job(prompt.text, seed, _prompt_fields(prompt)))

    def _of_pairs(self, prompts: PromptSet) -> Iterator[Planned]:
        by_content: dict[str, list[Prompt]] = defaultdict(list)
        for prompt in prompts.at(self._given.levels):
            by_content[prompt.content_id].append(prompt)
        for image in self._images():
            own = by_content.get(image.content_id) or by_content.get(image.key) or []
            if image.refusal is None and not own:
                detail = f"Expected a prompt with content_id {image.content_id!r} in {self._given.prompts!r}, got none."
                yield Planned(image.key, "", None, (NO_PROMPT, detail))
                continue
            if image.refusal is not None:
                yield from self._of_image(image, None, image.key)
                continue
            for prompt in own:
                yield from self._of_image(image, prompt, f"{_prompt_key(prompt)}/{image.key}")

    def _images(self) -> Iterator[InputImage]:
        work = None if self._context.out is None else self._context.out / WORK_NAME
        images = input_images(self._peers(), self._given.images or "", self._store, work)
        for count, image in enumerate(images):
            if self._given.limit is not None and count >= self._given.limit:
                return
            yield image

    def _of_image(self, image: InputImage, prompt: Prompt | None, name: str) -> Iterator[Planned]:
        """Yield the jobs of one input image, which share its `source_id` and `content_id`."""
        if image.refusal is not None or image.sha256 is None:
            yield Planned(name, image.stamp, None, image.refusal or (UNUSABLE, "Expected an image, got none."))
            return
        same = {"source_id": image.source_id, "content_id": image.content_id}
        fields = ({} if prompt is None else _prompt_fields(prompt)) | same
        text = self._given.prompt if prompt is None else prompt.text
        for index in range(self._given.images_per_prompt):
            seed = derive_seed(self._given.seed, image.sha256, "" if prompt is None else prompt.prompt_id, index)
            key, notes, mask_sha256 = f"{name}/{index}", {"input_key": image.key}, None
            if self._given.mask is not None:
                try:
                    mask_sha256 = self._mask(image, seed)
                except ImageError as error:
                    yield Planned(key, "", None, (error.reason, error.detail))
                    continue
                notes |= {"mask": mask_path(mask_sha256), "mask_rule": self._given.mask.rule}
            yield _planned(key, self._job(text, seed, fields, image.sha256, mask_sha256, notes))

    def _job(
        self,
        prompt: str | None,
        seed: int,
        fields: Mapping[str, Any],
        image_sha256: str | None = None,
        mask_sha256: str | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Job:
        told = {} if prompt is None or "prompt" in fields else {"prompt": prompt}
        return Job(
            generator=self._resolved.name,
            kind=self._resolved.kind,
            model=self._resolved.model,
            model_version=self._version,
            prompt=prompt,
            negative_prompt=self._negative_prompt,
            seed=seed,
            parameters=self._job_parameters,
            image_sha256=image_sha256,
            mask_sha256=mask_sha256,
            fields={"label": "generated"} | dict(self._resolved.fields) | dict(fields) | told,
            notes=notes or {},
        )

    def _mask(self, image: InputImage, seed: int) -> str:
        """Draw or look up the mask of an input; keep it in the store and in the dataset, and return its sha256."""
        policy = self._given.mask
        assert policy is not None
        if policy.rule == "source":
            mask = self._drawn_by_others(image)
        else:
            mask = draw_mask(image.height_px, image.width_px, policy, seed)
        data = encode_mask(mask)
        sha256 = self._store.put_input(data)
        if self._context.out is not None:
            path = self._context.out / mask_path(sha256)
            if not path.is_file():
                write_bytes(path, data)
        return sha256

    def _drawn_by_others(self, image: InputImage) -> Mask:
        stem = _stem(image.key)
        found = self._masks_of_source().get(stem)
        if found is None:
            raise ImageError(NO_MASK, f"Expected a mask with the key {stem!r}, got none.")
        mask = decode_image(self._store.read_input(found)).image_HWC[:, :, 0] >= 128
        if mask.shape != (image.height_px, image.width_px):
            size = f"{image.width_px} x {image.height_px}"
            raise ImageError(NO_MASK, f"Expected a mask of {size} px, got {mask.shape[1]} x {mask.shape[0]} px.")
        return mask

    def _masks_of_source(self) -> Mapping[str, str]:
        if not hasattr(self, "_masks"):
            assert self._given.mask is not None
            work = None if self._context.out is None else self._context.out / WORK_NAME
            masks = input_images(self._peers(), self._given.mask.images or "", self._store, work)
            self._masks = {_stem(mask.key): mask.sha256 for mask in masks if mask.sha256 is not None}
        return self._masks


def mask_path(sha256: str) -> str:
    """Return where a mask lies below the dataset folder."""
    return f"{MASKS_NAME}/{sha256[:2]}/{sha256}.png"


def encode_mask(mask: Mask) -> bytes:
    """Return a mask as a PNG of one bit a pixel; white is painted anew.

    Example:
        >>> decode_image(encode_mask(np.array([[True, False]]))).image_HWC[0, :, 0].tolist()
        [255, 0]
    """
    target = io.BytesIO()
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).convert("1").save(target, "png")
    return target.getvalue()


def _stem(key: str) -> str:
    return str(PurePosixPath(key).with_suffix("")) if Path(key).suffix else key


def _prompt_key(prompt: Prompt) -> str:
    return f"{prompt.prompt_id}/{prompt.level}"


def _prompt_fields(prompt: Prompt) -> dict[str, Any]:
    fields = {
        "prompt": prompt.text,
        "prompt_id": prompt.prompt_id,
        "prompt_level": prompt.level,
        "content_id": prompt.content_id,
        "source_id": prompt.source_id,
    }
    return fields if prompt.clip_tokens is None else fields | {"prompt_clip_tokens": prompt.clip_tokens}


def _planned(key: str, job: Job) -> Planned:
    """Return the item of a job; its stamp follows the job and the fields."""
    told = {name: str(value) for name, value in {**job.fields, **job.notes}.items()}
    stamp = f"{job.job_id[:32]}-{sha256_bytes(canonical_json(told).encode('utf-8'))[:16]}"
    return Planned(key, stamp, job)
