"""The protocols by name."""

from __future__ import annotations

from forgery_det.core.registry import Registry

PROTOCOLS = Registry(
    "protocol",
    {
        "contamination": "forgery_det.evaluation.protocols.contamination:contamination",
        "false_alarm": "forgery_det.evaluation.protocols.false_alarm:false_alarm",
        "held_out_generator": "forgery_det.evaluation.protocols.held_out_generator:held_out_generator",
        "prompt_length": "forgery_det.evaluation.protocols.prompt_length:prompt_length",
        "robustness": "forgery_det.evaluation.protocols.robustness:robustness",
        "temporal": "forgery_det.evaluation.protocols.temporal:temporal",
    },
)
"""Protocol name -> where its function lives."""
