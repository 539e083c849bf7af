"""The kinds of models under test and of judges; each a class and a line here."""

from __future__ import annotations

from forgery_det.core.registry import Registry

MODELS = Registry(
    "kind of model",
    {
        "generator": "forgery_det.safety.models.generator:GeneratorModel",
        "openai_chat": "forgery_det.safety.models.openai_chat:OpenAIChatModel",
        "simulated": "forgery_det.safety.models.simulated:SimulatedModel",
        "transformers": "forgery_det.safety.models.transformers:TransformersModel",
    },
)

JUDGES = Registry(
    "kind of judge",
    {
        "csv": "forgery_det.safety.judges.csv_labels:CsvJudge",
        "image_classifier": "forgery_det.safety.judges.image_classifier:ImageClassifierJudge",
        "llava_guard": "forgery_det.safety.judges.llava_guard:LlavaGuardJudge",
        "nudenet": "forgery_det.safety.judges.nudenet:NudeNetJudge",
        "openai_moderation": "forgery_det.safety.judges.openai_moderation:OpenAIModerationJudge",
        "planted": "forgery_det.safety.judges.planted:PlantedJudge",
        "safety_checker": "forgery_det.safety.judges.safety_checker:SafetyCheckerJudge",
    },
)
