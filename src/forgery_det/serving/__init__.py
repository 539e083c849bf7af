"""From a bundle to answers, without torch: `Predictor`, the HTTP service, the page.

Nothing is imported here, and nothing below imports torch or polars: a machine that serves has numpy, Pillow and a
runtime (onnxruntime or OpenVINO). Import what you need: `from forgery_det.serving.predictor import Predictor`.
"""
