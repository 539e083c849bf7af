// Requests to the service. XMLHttpRequest for uploads, because fetch cannot tell how far an upload is.

let key = "";
export const setKey = (value) => { key = value; };

export class ServiceError extends Error {
  constructor(kind, message, { status = 0, code = "", retryAfter = null, images = null } = {}) {
    super(message);
    Object.assign(this, { kind, status, code, retryAfter, images });
  }
}

const TIMEOUT_MS = 120_000;
const LOST = "No answer from the service: the connection was lost, or it is not running.";

// Kinds: "lost" (network), "busy" (429, 503), "key" (401), "refused" (the file), "broken" (anything else).
function failure(status, body, retryAfter) {
  const code = body?.error?.code || "";
  const message = body?.error?.message || `The service answered ${status}.`;
  const kind = status === 429 || status === 503 ? "busy" : status === 401 ? "key" : status >= 500 ? "broken" : "refused";
  return new ServiceError(kind, message, { status, code, retryAfter, images: body?.images || null });
}

function read(text) {
  try { return JSON.parse(text); } catch { return null; }
}

export async function model() {
  let answer;
  try {
    answer = await fetch("v1/model", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  } catch {
    throw new ServiceError("lost", LOST);
  }
  const body = read(await answer.text());
  if (!answer.ok || !body) throw failure(answer.status, body, null);
  return body;
}

function upload(path, file, { onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.timeout = TIMEOUT_MS;
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      const body = read(request.responseText);
      const seconds = Number.parseInt(request.getResponseHeader("Retry-After"), 10);
      if (request.status === 200 && body) resolve(body);
      else reject(failure(request.status, body, Number.isFinite(seconds) ? seconds : null));
    };
    request.onerror = () => reject(new ServiceError("lost", LOST));
    request.ontimeout = () => reject(new ServiceError("lost", "The service took longer than two minutes."));
    request.onabort = () => reject(new ServiceError("gone", "Taken back."));
    signal?.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("files", file, file.name || "pasted picture");
    request.send(form);
  });
}

export const predict = (file, options) => upload("v1/predict?provenance=true", file, options);
export const explain = (file, options) => upload("v1/explain", file, options);
