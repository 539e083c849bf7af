"""The service under load and abuse: a real process on loopback, real sockets, clients in threads.

    python benchmarks/serve_load.py BUNDLE [--seconds 10] [--clients 16] [--threads 2] [--rounds 3]

It prints one line a phase: requests a second, latencies, shares of statuses, memory of the service process; and ends
with exit code 1 when a request got no answer, a good request was harmed by bad ones, memory grew, or the process did
not survive. Clients and service share the machine's cores, so throughput is a lower bound.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from synth.hostile import EITHER, SCORED, Hostile, hostile_images

BOUNDARY = "load"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
GROWTH_LIMIT_MIB = 30


@dataclass
class Tally:
    """What came back, from all clients of a phase."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    retry_after: int = 0

    def line(self, wall_s: float) -> str:
        """One line: rate of good answers, their latencies, shares of statuses."""
        total = sum(self.statuses.values())
        shares = ", ".join(f"{status} {100 * n / total:.1f} %" for status, n in sorted(self.statuses.items()))
        p50, p95, p99 = 1000 * np.percentile(self.seconds or [0], [50, 95, 99])
        return (
            f"{total:5d} requests, {len(self.seconds) / wall_s:6.1f} good/s, ms p50 {p50:.0f} p95 {p95:.0f} "
            f"p99 {p99:.0f}; {shares}"
        )


class Service:
    """`forgery-det serve` as a process."""

    def __init__(self, bundle: str, threads: int, *limits: str) -> None:
        command = [sys.executable, "-c", "from forgery_det.cli import main; raise SystemExit(main())", "serve", bundle]
        options = ["--port", "0", "--threads", str(threads), "--log_level", "info", *limits]
        start = time.perf_counter()
        self.process = subprocess.Popen(command + options, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.search(r"running on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        else:
            raise SystemExit("the service did not start")
        self.start_s = time.perf_counter() - start
        # The pipe must be read, or the service would wait for us once it is full.
        self.log: list[str] = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def rss_mib(self) -> float:
        """Resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) / 1024

    def peak_mib(self) -> float:
        """Largest resident memory so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text).group(1)) / 1024

    def has_torch(self) -> bool:
        """Whether torch's library is mapped."""
        return "libtorch" in Path(f"/proc/{self.process.pid}/maps").read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Ask for a path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def form(images: list[tuple[str, bytes]]) -> bytes:
    """A multipart body."""
    head = '--{}\r\nContent-Disposition: form-data; name="files"; filename="{}"\r\n\r\n'
    parts = [head.format(BOUNDARY, name).encode() + data + b"\r\n" for name, data in images]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Client:
    """One client with a connection that is kept as long as the service keeps it."""

    def __init__(self, port: int, tally: Tally) -> None:
        self.port, self.tally = port, tally
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(self, body: bytes) -> dict | None:
        """Send a body; the answer's JSON, None when there was no answer."""
        start = time.perf_counter()
        for attempt in (1, 2):
            try:
                self.connection.request("POST", "/v1/predict", body, TYPE)
                answer = self.connection.getresponse()
                value = json.loads(answer.read())
                break
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()  # a kept connection that the service closed meanwhile: once more, as clients do
                if attempt == 2:
                    self.tally.statuses[f"no answer ({type(error).__name__})"] += 1
                    return None
        self.tally.statuses[str(answer.status)] += 1
        self.tally.retry_after += answer.getheader("Retry-After") is not None
        if answer.status == 200:
            self.tally.seconds.append(time.perf_counter() - start)
        return value


def run_clients(count: int, work: Callable[[int], None]) -> float:
    """Run `work` in `count` threads; the seconds until the last one is done."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Good:
    """A good request and the logit it must always get."""

    body: bytes
    logit: float

    def check(self, value: dict | None, tally: Tally) -> None:
        """Note an answer that is not the expected one."""
        if value is None or "model" not in value:
            return
        got = value["images"][0]["logit"]
        if got is None or abs(got - self.logit) > 1e-3 * max(1, abs(self.logit)):
            tally.wrong.append(f"logit {got}, expected {self.logit}")


def steady(service: Service, goods: list[Good], clients: int, seconds: float) -> tuple[Tally, float]:
    """Clients that ask again as soon as they were answered."""
    tally = Tally()
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        client = Client(service.port, tally)
        for step in range(10**9):
            if time.perf_counter() > end:
                return
            good = goods[(number + step) % len(goods)]
            good.check(client.post(good.body), tally)

    return tally, run_clients(clients, work)


def burst(service: Service, goods: list[Good], count: int) -> tuple[Tally, float]:
    """Everybody at once, each with a connection of its own."""
    tally = Tally()
    barrier = threading.Barrier(count)

    def work(number: int) -> None:
        barrier.wait()
        good = goods[number % len(goods)]
        good.check(Client(service.port, tally).post(good.body), tally)

    return tally, run_clients(count, work)


@contextmanager
def beside(service: Service, goods: list[Good], clients: int) -> Iterator[Tally]:
    """Good clients that go on as long as the block runs."""
    tally, stop = Tally(), threading.Event()

    def work(number: int) -> None:
        client = Client(service.port, tally)
        while not stop.is_set():
            good = goods[number % len(goods)]
            good.check(client.post(good.body), tally)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def hostile(service: Service, images: list[Hostile]) -> Tally:
    """Every hostile image, alone in its request; it must be scored or refused as it deserves."""
    tally = Tally()

    def work(number: int) -> None:
        client = Client(service.port, tally)
        for image in images[number::4]:
            value = client.post(form([(image.name, image.data)]))
            is_scored = value is not None and bool(value.get("images")) and value["images"][0]["error"] is None
            if value is not None and image.fate != EITHER and is_scored != (image.fate == SCORED):
                tally.wrong.append(f"{image.name}: {value}")

    run_clients(4, work)
    return tally


def head(length: int, more: str = "") -> bytes:
    """The head of a request."""
    text = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE['Content-Type']}\r\n{more}"
    return (text + f"Content-Length: {length}\r\n\r\n").encode()


def abuse(service: Service, body: bytes) -> Counter[str]:
    """Aborted, slow and malformed requests; what each kind was told."""
    told: Counter[str] = Counter()
    kinds: list[tuple[str, int, Callable[[socket.socket], bool]]] = [
        ("aborted upload", 40, lambda peer: peer.sendall(head(len(body)) + body[: len(body) // 2]) or False),
        ("aborted wait", 40, lambda peer: peer.sendall(head(len(body)) + body) or False),
        ("slow head", 10, lambda peer: _drip(peer, b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 99)),
        ("slow body", 10, lambda peer: _drip(peer, body[:99], head(len(body)))),
        ("garbage", 20, lambda peer: peer.sendall(b"\x16\x03\x01\x02\0\x01\0\x01\xfc" * 20 + b"\r\n\r\n") or True),
        (
            "broken form",
            20,
            lambda peer: peer.sendall(head(200) + b"--load\r\nno: colon\r\r\n".ljust(200, b"-")) or True,
        ),
        ("wrong length", 20, lambda peer: peer.sendall(head(10) + body) or True),
        ("endless body", 4, lambda peer: _flood(peer)),
    ]
    lock = threading.Lock()

    def one(name: str, act: Callable[[socket.socket], bool]) -> None:
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as peer:
            try:
                answer = peer.recv(200).split(b"\r\n")[0].decode() if act(peer) else "left"
            except OSError as error:
                answer = type(error).__name__
        with lock:
            told[f"{name}: {answer.removeprefix('HTTP/1.1 ') or 'closed'}"] += 1

    for name, count, act in kinds:  # one kind after the other, so that none hides behind full queues of another
        jobs = [threading.Thread(target=one, args=(name, act)) for _ in range(count)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    return told


def _drip(peer: socket.socket, data: bytes, first: bytes = b"") -> bool:
    peer.sendall(first)
    peer.settimeout(0.2)
    for byte in data:
        peer.sendall(bytes([byte]))
        try:
            if peer.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
    peer.settimeout(60)
    return True


def _flood(peer: socket.socket) -> bool:
    peer.sendall(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    opening = form([("endless", b"")]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    peer.sendall(f"{len(opening):x}\r\n".encode() + opening + b"\r\n")
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    for _ in range(4_000):
        try:
            peer.sendall(chunk)
        except OSError:
            break
    return True


def drain(service: Service, good: Good, clients: int) -> tuple[Tally, int]:
    """SIGTERM while requests are in flight: they are answered, and the process ends with code 0."""
    tally = Tally()

    def work(number: int) -> None:
        if number == clients:
            time.sleep(0.25)
            service.process.send_signal(signal.SIGTERM)
            return
        good.check(Client(service.port, tally).post(good.body), tally)

    run_clients(clients + 1, work)
    return tally, service.process.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    limits = ["--limits.max_requests", "32", "--limits.upload_timeout_s", "3", "--limits.header_timeout_s", "3"]
    service = Service(options.bundle, options.threads, *limits)
    print(f"started in {service.start_s:.2f} s, {service.rss_mib():.0f} MiB, torch loaded: {service.has_torch()}")
    failures: list[str] = []
    goods = []
    for path in sorted((Path(options.bundle) / "golden").glob("*")):
        if path.suffix != ".json":
            body = form([(path.name, path.read_bytes())])
            value = Client(service.port, Tally()).post(body)
            goods.append(Good(body, value["images"][0]["logit"]))

    def report(name: str, tally: Tally, wall_s: float) -> None:
        print(f"{name:18} {tally.line(wall_s)}; {service.rss_mib():.0f} MiB", flush=True)
        failures.extend(f"{name}: {text}" for text in tally.wrong[:3])
        failures.extend(f"{name}: {text}" for text in tally.statuses if not text.isdigit() or text == "500")

    report("one client", *(alone := steady(service, goods, 1, options.seconds)))
    report(f"{options.clients} clients", *(many := steady(service, goods, options.clients, options.seconds)))
    rates = [len(tally.seconds) / wall_s for tally, wall_s in (alone, many)]
    print(f"{'':18} {rates[1] / rates[0]:.2f} times the rate of one client after another")
    crowd = burst(service, goods, 400)
    report("burst of 400", *crowd)
    refused = sum(n for status, n in crowd[0].statuses.items() if status in ("429", "503"))
    print(f"{'':18} {crowd[0].retry_after} of {refused} refusals say when to come back")
    images = hostile_images()
    memory = []
    for number in range(1, options.rounds + 1):
        start = time.perf_counter()
        with beside(service, goods, 2) as good:
            bad = hostile(service, images)
        report(f"200 hostile, {number}", bad, time.perf_counter() - start)
        report("  good beside them", good, time.perf_counter() - start)
        start = time.perf_counter()
        with beside(service, goods, 2) as good:
            told = abuse(service, goods[0].body)
        report("abuse, good beside", good, time.perf_counter() - start)
        failures += [f"good: {status}" for status in good.statuses if status not in ("200", "429")]
        memory.append(service.rss_mib())
    print("  " + "\n  ".join(f"{n:3d} {text}" for text, n in sorted(told.items())))
    time.sleep(1)
    ready, (_, metrics) = service.get("/readyz")[0], service.get("/metrics")
    left = dict(re.findall(r"^forgery_det_(\w+_in_flight|\w+_bytes) (\S+)$", metrics, re.MULTILINE))
    growth = memory[-1] - memory[0]
    print(f"ready: {ready}; left over: {left}; memory after each round: {[round(one) for one in memory]} MiB, "
          f"peak {service.peak_mib():.0f} MiB")  # fmt: skip
    if ready != 200 or any(float(value) for value in left.values()):
        failures.append("places were not given back")
    if growth > GROWTH_LIMIT_MIB:
        failures.append(f"memory grew by {growth:.0f} MiB")
    ended, code = drain(service, goods[0], 16)
    report_line = ", ".join(f"{status}: {n}" for status, n in ended.statuses.items())
    print(f"SIGTERM with 16 requests on their way: {report_line}; exit code {code}")
    if code != 0:
        failures.append(f"exit code {code}")
    print("FAILED: " + "; ".join(failures) if failures else "every request was answered, none of the good ones harmed")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
