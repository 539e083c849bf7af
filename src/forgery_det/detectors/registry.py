"""The registry of detectors: adding one is its module, its YAML in `configs/detector`, and one line here.

Importing this module imports no torch: a class is imported when its name is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import Registry, did_you_mean

if TYPE_CHECKING:
    from forgery_det.detectors.base import Detector

DETECTORS = Registry(
    "detector",
    {
        "aeroblade": "forgery_det.detectors.aeroblade:Aeroblade",
        "aide": "forgery_det.detectors.aide:AIDE",
        "attention_probe": "forgery_det.detectors.attention_probe:AttentionProbe",
        "b_free": "forgery_det.detectors.b_free:BFree",
        "c2p_clip": "forgery_det.detectors.c2p_clip:C2PClip",
        "clipdet": "forgery_det.detectors.clipdet:ClipDet",
        "cnndetection": "forgery_det.detectors.cnndetection:CNNDetection",
        "co_spy": "forgery_det.detectors.co_spy:CoSpy",
        "community_forensics": "forgery_det.detectors.community_forensics:CommunityForensics",
        "d3": "forgery_det.detectors.d3:D3",
        "dda": "forgery_det.detectors.dda:DDA",
        "dimd": "forgery_det.detectors.dimd:DIMD",
        "drct": "forgery_det.detectors.drct:DRCT",
        "effort": "forgery_det.detectors.effort:Effort",
        "ensemble": "forgery_det.detectors.ensemble:Ensemble",
        "fatformer": "forgery_det.detectors.fatformer:FatFormer",
        "freqnet": "forgery_det.detectors.freqnet:FreqNet",
        "frozen_probe": "forgery_det.detectors.frozen_probe:FrozenProbe",
        "gramnet": "forgery_det.detectors.gramnet:GramNet",
        "lgrad": "forgery_det.detectors.lgrad:LGrad",
        "noise_residual": "forgery_det.detectors.noise_residual:NoiseResidual",
        "npr": "forgery_det.detectors.npr:NPR",
        "patchcraft": "forgery_det.detectors.patchcraft:PatchCraft",
        "power_spectrum": "forgery_det.detectors.power_spectrum:PowerSpectrum",
        "rigid": "forgery_det.detectors.rigid:Rigid",
        "rine": "forgery_det.detectors.rine:Rine",
        "safe": "forgery_det.detectors.safe:SAFE",
        "spai": "forgery_det.detectors.spai:SPAI",
        "timm_classifier": "forgery_det.detectors.timm_classifier:TimmClassifier",
        "univfd": "forgery_det.detectors.univfd:UnivFD",
        "warpad": "forgery_det.detectors.warpad:WaRPAD",
    },
)


def list_detectors() -> tuple[str, ...]:
    """Return the names of all detectors, sorted.

    Example:
        >>> "frozen_probe" in list_detectors()
        True
    """
    return DETECTORS.names()


def build_detector(name: str, arguments: Mapping[str, Any]) -> Detector:
    """Build the detector called `name` and note on it the keywords it was built with, defaults included.

    Raises:
        UnknownNameError: `name` is not registered.
        ConfigError: The detector takes no such keyword, one that it needs is missing, or a value is out of range.
    """
    detector_class = DETECTORS.get(name)
    signature = inspect.signature(detector_class)
    for keyword in arguments:
        if keyword not in signature.parameters:
            raise ConfigError(f"Unknown setting {keyword!r} of {name}: {did_you_mean(keyword, signature.parameters)}")
    try:
        bound = signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"Expected the settings that {name} needs, got {sorted(arguments)}: {error}") from error
    bound.apply_defaults()
    detector: Detector = detector_class(**bound.arguments)
    detector.arguments = dict(bound.arguments)
    return detector
