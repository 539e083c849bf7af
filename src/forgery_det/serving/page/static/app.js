// The page: takes pictures in, sends them two at a time, and shows one card each. No framework, no build step.

import { about, chip, limits } from "./about.js";
import { ServiceError, explain, model as askModel, predict, setKey } from "./api.js";
import { createCard } from "./card.js";
import { save } from "./dom.js";
import { DECISIONS, bytes } from "./words.js";

const AT_ONCE = 2;
const RETRIES = 3;
const at = (id) => document.getElementById(id);
const items = new Set();
let model = null;
let running = 0;

const say = (text) => { at("live").textContent = text; };
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

// --- pictures in ---------------------------------------------------------------------------------------------------

function add(files) {
  const fresh = [...files].map((file) => new Item(file));
  if (!fresh.length) return;
  for (const item of fresh) {
    items.add(item);
    at("cards").append(item.card.node);
  }
  say(fresh.length === 1 ? `${fresh[0].name} was added.` : `${fresh.length} pictures were added.`);
  refresh();
  next();
  at("answers").scrollIntoView({ block: "nearest" });
}

class Item {
  constructor(file) {
    this.file = file;
    this.name = file.name || "pasted picture";
    this.url = URL.createObjectURL(file);
    this.state = "waiting";
    this.abort = new AbortController();
    this.card = createCard(this, () => model, {
      onRetry: () => { this.state = "waiting"; this.card.waiting(); refresh(); next(); this.card.node.focus(); },
      onRemove: () => this.remove(),
      onDownload: () => save(`${this.name}.forgery-det.json`, report([this])),
      onHeat: () => this.heat(),
    });
    this.card.waiting();
  }

  async judge() {
    const most = model?.limits?.max_image_bytes;
    if (most && this.file.size > most) {
      return this.fail(new ServiceError("refused", `Expected at most ${bytes(most)}, got ${bytes(this.file.size)}.`, { code: "too_many_bytes" }));
    }
    for (let attempt = 1; ; attempt += 1) {
      try {
        this.card.sending(0);
        const signal = this.abort.signal;
        this.answer = await predict(this.file, { onProgress: (share) => this.card.sending(share), signal });
        this.state = "done";
        return say(this.card.done(this.answer));
      } catch (error) {
        if (error.kind === "gone") return undefined;
        if (error.kind !== "busy" || attempt > RETRIES) return this.fail(error);
        await this.wait(error, attempt);
        if (this.abort.signal.aborted) return undefined;
      }
    }
  }

  async wait(error, attempt) {
    for (let left = Math.min(error.retryAfter ?? 2 ** attempt, 60); left > 0 && !this.abort.signal.aborted; left -= 1) {
      this.card.pausing(left, "The service has more to do than it can take just now.");
      await pause(1000);
    }
  }

  fail(error) {
    this.state = "failed";
    this.error = error;
    this.card.failed(error, error.kind !== "refused");
    say(`${this.name}: not judged. ${error.message}`);
    if (error.kind === "key") askForKey();
  }

  async heat() {
    if (!this.map) this.map = await explain(this.file, { signal: this.abort.signal });
    return this.map;
  }

  remove() {
    const after = this.card.node.nextElementSibling || this.card.node.previousElementSibling;
    this.abort.abort();
    this.card.node.remove();
    items.delete(this);
    URL.revokeObjectURL(this.url);
    say(`${this.name} was removed.`);
    refresh();
    (after || at("files")).focus();
  }
}

async function next() {
  while (running < AT_ONCE) {
    const item = [...items].find((one) => one.state === "waiting");
    if (!item) return;
    item.state = "working";
    running += 1;
    item.judge().finally(() => { running -= 1; refresh(); next(); });
  }
}

// --- the bar above the cards ------------------------------------------------------------------------------------------

function refresh() {
  const all = [...items];
  const open = all.filter((item) => item.state === "waiting" || item.state === "working").length;
  const failed = all.filter((item) => item.state === "failed").length;
  const tally = Object.entries(DECISIONS)
    .map(([decision, words]) => [all.filter((item) => item.state === "done" && item.answer.images[0].decision === decision).length, words])
    .filter(([number]) => number)
    .map(([number, words]) => `${number} ${words.short}`);
  if (failed) tally.push(`${failed} not judged`);
  if (open) tally.push(`${open} to go`);
  at("summary").textContent = all.length > 1 ? `${all.length} pictures: ${tally.join(", ")}` : tally.join(", ");
  at("answers").hidden = !all.length;
  at("hero").classList.toggle("compact", all.length > 0);
  at("cards").dataset.count = Math.min(all.length, 3);
  at("download-all").disabled = !all.some((item) => item.state === "done");
}

function report(chosen) {
  return {
    tool: "forgery-det",
    note: "logit: higher = generated; score: calibrated probability; provenance: what the file claims, not what the detector found",
    model: model && { name: model.name, version: model.version, format: model.format, temperature: model.temperature, abstention: model.abstention, operating_points: model.operating_points },
    results: chosen.map((item) => ({
      file: item.name,
      answer: item.answer ?? null,
      heatmap: item.map ?? null,
      error: item.state === "failed" ? { code: item.error.code, message: item.error.message, images: item.error.images } : null,
    })),
  };
}

// --- the model and the key ----------------------------------------------------------------------------------------------

async function loadModel() {
  at("model-trouble").hidden = true;
  try {
    model = await askModel();
  } catch (error) {
    if (error.kind === "key") return askForKey();
    at("model-trouble-words").textContent = error.message;
    at("model-trouble").hidden = false;
    at("model").replaceChildren();
    return undefined;
  }
  at("key-form").hidden = true;
  at("chip").textContent = chip(model);
  at("chip").hidden = false;
  at("limits").textContent = limits(model);
  at("model").replaceChildren(...about(model));
  return undefined;
}

function askForKey() {
  at("key-form").hidden = false;
  at("key").focus();
}

at("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setKey(at("key").value);
  await loadModel();
  if (!model) { at("key-words").textContent = "That key was not accepted."; return; }
  for (const item of items) {
    if (item.state === "failed" && item.error.kind === "key") { item.state = "waiting"; item.card.waiting(); }
  }
  next();
});
at("model-retry").addEventListener("click", loadModel);

// --- choosing, pasting, dropping ------------------------------------------------------------------------------------------

at("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
at("download-all").addEventListener("click", () => save("forgery-det.json", report([...items])));
at("clear").addEventListener("click", () => { [...items].forEach((item) => item.remove()); say("All pictures were removed."); at("files").focus(); });

document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) { event.preventDefault(); add(event.clipboardData.files); }
});

let depth = 0; // dragenter and dragleave come for every element on the way
const holdsFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
const curtain = (on) => { at("curtain").classList.toggle("down", on); };
window.addEventListener("dragenter", (event) => { if (holdsFiles(event)) { depth += 1; curtain(true); } });
window.addEventListener("dragleave", (event) => { if (holdsFiles(event)) { depth = Math.max(0, depth - 1); curtain(depth > 0); } });
window.addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
window.addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  depth = 0;
  curtain(false);
  const entries = [...event.dataTransfer.items].map((one) => one.webkitGetAsEntry?.());
  if (entries.some((entry) => entry?.isDirectory)) say("Folders cannot be dropped here. For folders, use forgery-det predict.");
  add([...event.dataTransfer.files].filter((_, index) => !entries[index]?.isDirectory));
});

loadModel();
