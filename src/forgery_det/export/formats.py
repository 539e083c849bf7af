"""The registry of export formats: each a class like `job.ExportFormat`, imported when its name is asked for."""

from __future__ import annotations

from forgery_det.core.registry import Registry

FORMATS = Registry(
    "export format",
    {
        "onnx": "forgery_det.export.onnx_file:Onnx",
        "onnx_int8": "forgery_det.export.int8:OnnxInt8",
        "openvino": "forgery_det.export.openvino_file:OpenVino",
        "pt2": "forgery_det.export.pt2_file:Pt2",
        "triton": "forgery_det.export.triton_folder:Triton",
    },
)
