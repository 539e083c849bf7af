"""`forgery-det serve`: an HTTP service around a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from forgery_det.core.errors import ConfigError
from forgery_det.serving.http.auth import read_keys
from forgery_det.serving.http.server import Address
from forgery_det.serving.http.server import serve as run_server
from forgery_det.serving.http.settings import FetchRules, Limits, ServeSettings
from forgery_det.serving.predictor import Predictor


def serve(
    bundle: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    format: str | None = None,  # noqa: A002 - the word of bundle.json
    threads: int | None = None,
    providers: list[str] | None = None,
    public_key: Path | None = None,
    self_test: bool = True,
    api_key_file: Path | None = None,
    fetch: FetchRules = FetchRules(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008 - frozen
    log_names: bool = False,
    log_level: Literal["debug", "info", "warning", "error"] = "info",
    certificate: Path | None = None,
    private_key: Path | None = None,
) -> int:
    """Answer over HTTP until SIGTERM or Ctrl-C; exit code 1 when the self-test fails or the address is taken.

    Args:
        bundle: folder that `forgery-det export` wrote
        host: address to listen on; 0.0.0.0 for all, and then set an API key
        port: port to listen on; 0 lets the system choose
        format: onnx, onnx_int8 or openvino; without it the bundle's default
        threads: processor threads of the model; without it all
        providers: execution providers of onnxruntime, for instance CUDAExecutionProvider
        public_key: Ed25519 public key; the bundle must then be signed
        self_test: score the bundle's golden images before the first request
        api_key_file: file with one API key a line; FORGERY_DET_API_KEY in the environment is one more
        fetch: which hosts images may be fetched from by URL; none unless --fetch.hosts is given
        limits: bounds on bytes, pixels, time and queues; see docs/serving.md
        log_names: write file names and URLs into the log
        log_level: debug, info, warning or error
        certificate: PEM certificate chain for TLS
        private_key: PEM key of the certificate
    """
    if (certificate is None) != (private_key is None):
        raise ConfigError("Expected --certificate and --private_key together, got one of them.")
    # jsonargparse hands nested options over as a namespace with the same fields.
    settings = ServeSettings(Limits(**vars(limits)), FetchRules(**vars(fetch)), read_keys(api_key_file), log_names)
    predictor = Predictor(bundle, format=format, threads=threads, providers=providers, public_key=public_key)
    if self_test:
        tested = predictor.self_test()
        print(tested.explain(), file=sys.stderr)
        if not tested.passed:
            return 1
    tls = (None, None) if certificate is None or private_key is None else (str(certificate), str(private_key))
    print(f"forgery-det serves {bundle} at http{'s' * bool(tls[0])}://{host}:{port}/ (docs at /docs)", file=sys.stderr)
    return 0 if run_server(predictor, settings, Address(host, port, *tls), log_level=log_level) else 1
