"""The one place that states the version (read by the build and by `forgery_det.__version__`)."""

__version__ = "0.1.0"
