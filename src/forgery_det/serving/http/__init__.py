"""The HTTP service around a bundle: `forgery-det serve BUNDLE`.

**Why a batcher of our own.** Dynamic batching was to come from a well-kept server library. Judged by their own
documentation and sources in November 2026 (`docs/serving.md` has the table):

- LitServe runs the model in worker processes fed by `multiprocessing` or ZeroMQ queues and sends exceptions between
  them as pickles; we keep one process and no pickle anywhere.
- Ray Serve is at least three kinds of Ray actors (controller, proxy, replicas), each a process; its answer to a full
  queue is one configurable status (503 or 429, an alpha interface).
- BentoML's dispatcher adapts to a latency goal and answers one status, 503, when it is missed.

None tells a full queue (429) from a lack of memory (503), a late answer (504) and a slow upload (408), none bounds the
memory of decoded images, and none lets a poisoned image fail by itself inside a batch. So the HTTP part is FastAPI on
uvicorn (kept by others), and `batcher` is one small asyncio task of ours.

The parts, in the order a request meets them: `protocol` (slow headers), `gate` (request id, key, bytes while reading,
lingering close, log line, metrics), `uploads` and `multipart` (bodies), `fetch` (URLs), `admission` (places),
`pipeline` (decode, batch, decide), `routes` (endpoints), `app` (all of it together). No module here imports torch.
"""
