"""The kinds of prompt sources and of models that write text: a line each, imported when used."""

from __future__ import annotations

from forgery_det.core.registry import Registry

_HERE = "forgery_det.recipes.prompting"

PROMPT_KINDS = Registry(
    "prompt kind",
    {
        "prompt_captions": f"{_HERE}.captions:PromptCaptions",
        "prompt_dataset": f"{_HERE}.hub_rows:PromptDataset",
        "prompt_file": f"{_HERE}.file_rows:PromptFile",
    },
)
"""Kind -> `PromptKind`: where the prompts as given come from."""

TEXT_MODELS = Registry(
    "text model",
    {
        "openai_chat": f"{_HERE}.chat:OpenAIChat",
        "pipeline": f"{_HERE}.pipeline_upsampler:PipelineUpsampler",
        "transformers_text": f"{_HERE}.local_text:TransformersText",
        "transformers_vision": f"{_HERE}.local_vision:TransformersVision",
    },
)
"""Kind -> `TextModel`: what writes expansions and captions."""
