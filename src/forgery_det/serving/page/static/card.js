// One picture and what is said of it. Built from text nodes only: file names and metadata are hostile.

import { make, pairs } from "./dom.js";
import { overlay, summary } from "./heat.js";
import { origin, originBadge } from "./origin.js";
import { DECISIONS, WARNINGS, bytes, number, reason, score, toScore, verdict } from "./words.js";

let count = 0;

// Calls: onRetry, onRemove, onDownload, onHeat -> Promise of a map.
export function createCard(item, model, calls) {
  const id = `card-${++count}`;
  const image = make("img", { src: item.url, alt: `The picture ${item.name}`, decoding: "async" });
  const stage = make("div", { class: "stage" }, image);
  image.addEventListener("load", () => {
    stage.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) < 300);
  });
  image.addEventListener("error", () => {
    stage.replaceChildren(make("p", { class: "no-preview" }, "This browser cannot show the picture."));
  });
  const body = make("div", { class: "body" });
  const node = make("article", { class: "card", id, "aria-labelledby": `${id}-title`, tabindex: "-1" },
    make("div", { class: "card-inner" }, make("div", { class: "picture" }, stage), body));
  const name = make("p", { class: "file", title: item.name }, item.name);
  const remove = make("button", { class: "quiet", type: "button", "aria-label": `Remove ${item.name}`, onclick: calls.onRemove }, "Remove");

  const show = (state, ...parts) => {
    node.dataset.state = state;
    body.replaceChildren(name, ...parts.filter(Boolean));
  };
  const title = (text, sign = null) => make("h3", { class: "verdict", id: `${id}-title` }, sign && make("span", { class: "verdict-sign", "aria-hidden": "true" }, sign), text);

  return {
    node,
    waiting() {
      show("waiting", title("Waiting its turn"), make("progress", { "aria-label": `${item.name}: waiting` }), make("div", { class: "actions" }, remove));
    },
    sending(share) {
      const old = body.querySelector("progress.sending");
      const words = share < 1 ? `Sending, ${Math.round(100 * share)} %` : "The detector is looking";
      if (old && share < 1) { old.value = share; body.querySelector("h3").textContent = words; return; }
      show("working", title(words), share < 1
        ? make("progress", { class: "sending", value: share, max: 1, "aria-label": `${item.name}: sending` })
        : make("progress", { "aria-label": `${item.name}: being judged` }), make("div", { class: "actions" }, remove));
    },
    pausing(seconds, why) {
      show("waiting", title(`Busy, next try in ${seconds} s`), make("p", { class: "sentence" }, why), make("div", { class: "actions" }, remove));
    },
    failed(error, canRetry) {
      const found = error.images?.[0];
      const refused = Boolean(found?.error) || error.kind === "refused";
      const code = found?.error?.reason || error.code;
      const words = refused ? reason(code, found?.error?.detail || error.message) : error.message;
      show("failed", title(refused ? "Not judged" : "No answer yet", "✕"), make("p", { class: "sentence" }, words),
        refused && make("details", {}, make("summary", {}, "What the service said"), make("p", { class: "fine wrap" }, `${code}: ${found?.error?.detail || error.message}`)),
        found?.provenance && origin(found.provenance, null),
        make("div", { class: "actions" }, canRetry && make("button", { class: "button", type: "button", onclick: calls.onRetry }, "Try again"), remove));
    },
    done(answer) {
      const found = answer.images[0];
      const words = DECISIONS[found.decision] || DECISIONS["n/a"];
      node.dataset.decision = found.decision;
      show("done", title(words.title, words.sign), scale(found, answer.operating_point, model()),
        make("p", { class: "sentence" }, verdict(found, answer.operating_point, model())),
        warnings(found.warnings), heatControls(node, stage, image, model(), calls.onHeat), origin(found.provenance, found.decision),
        facts(found), numbers(answer, found, model()),
        make("div", { class: "actions" }, make("button", { class: "quiet", type: "button", onclick: calls.onDownload, "aria-label": `Download the result for ${item.name} as JSON` }, "Download JSON"), remove));
      return `${item.name}: ${words.short}, score ${score(found.score)}. ${originBadge(found.provenance)}`;
    },
  };
}

// The score on a line from real to generated, with the operating point and the band of no verdict.
function scale(found, point, model) {
  const temperature = model?.temperature;
  const at = (share) => `${(100 * Math.min(1, Math.max(0, share))).toFixed(2)}%`;
  const track = make("div", { class: "track" });
  const band = model?.abstention;
  const told = [`Score ${score(found.score)} on a scale from 0, like real pictures, to 1, like generated ones.`];
  if (band) {
    const [low, high] = [toScore(band.low, temperature), toScore(band.high, temperature)];
    const zone = make("span", { class: "zone" });
    zone.style.left = at(low);
    zone.style.width = at(high - low);
    track.append(zone);
    told.push(`No verdict between ${score(low)} and ${score(high)}.`);
  }
  if (point) {
    const line = make("span", { class: "line" });
    line.style.left = at(toScore(point.threshold, temperature));
    track.append(line);
    told.push(`The line is at ${score(toScore(point.threshold, temperature))}.`);
  }
  const marker = make("span", { class: "marker" });
  marker.style.left = at(found.score);
  const value = make("span", { class: "marker-value" }, score(found.score));
  const edge = value.textContent.length > 4 ? "2.4rem" : "1rem"; // half the text, so that it stays on the card
  value.style.left = `clamp(${edge}, ${at(found.score)}, calc(100% - ${edge}))`;
  track.append(marker);
  return make("div", { class: "scale", role: "img", "aria-label": told.join(" ") }, make("div", { class: "scale-value" }, value), track,
    make("div", { class: "scale-ends" }, make("span", {}, "0 real"), band && make("span", { class: "key-zone" }, "no verdict"), point && make("span", { class: "key-line" }, "line"), make("span", {}, "generated 1")));
}

function warnings(words) {
  if (!words?.length) return null;
  return make("ul", { class: "warnings", "aria-label": "Reasons to trust this less" }, words.map((word) => make("li", {}, WARNINGS[word.code] || word.text)));
}

function heatControls(card, stage, image, model, onHeat) {
  if (model && model.bundle && model.bundle.heatmap === null) return null;
  const words = make("p", { class: "fine", role: "status" });
  const strength = make("input", { type: "range", min: 0, max: 100, value: 75, id: `${card.id}-strength` });
  const legend = make("div", { class: "legend" },
    make("div", { class: "ramp", "aria-hidden": "true" }),
    make("div", { class: "ramp-ends" }, make("span", {}, "− speaks for real"), make("span", {}, "speaks for generated +")),
    make("p", { class: "fine" }, "Each part was covered once with the picture's mean colour. Orange: covering it lowers the logit, so it speaks for “generated”. Blue: covering it raises the logit. Traces that every part carries alone do not show."),
    make("label", { class: "strength", for: strength.id }, "Strength of the colours", strength));
  const extra = make("div", { class: "heat-extra", hidden: true }, words, legend);
  const button = make("button", { class: "button", type: "button", "aria-pressed": "false" }, "Show what drives the score");
  let laid = null;

  const toggle = (on) => {
    card.classList.toggle("with-heat", on);
    extra.hidden = !on;
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Hide what drives the score" : "Show what drives the score";
  };
  strength.addEventListener("input", () => laid && (laid.canvas.style.opacity = strength.value / 100));
  button.addEventListener("click", async () => {
    if (laid) return toggle(!card.classList.contains("with-heat"));
    button.disabled = true;
    button.textContent = "Covering one part after the other…";
    try {
      const map = await onHeat();
      if (!stage.contains(image)) throw new Error("The picture cannot be shown here, so there is nothing to lay the map on.");
      laid = overlay(stage, map);
      laid.canvas.style.opacity = strength.value / 100;
      words.textContent = `${summary(map)}${laid.whole ? "" : " The detector saw only the part inside the frame."}`;
      toggle(true);
    } catch (error) {
      toggle(false);
      extra.hidden = false;
      legend.hidden = true;
      const told = error.images?.[0]?.error;
      words.textContent = `No heat map: ${told ? reason(told.reason, told.detail) : error.message}`;
    } finally {
      if (laid) legend.hidden = false;
      button.disabled = false;
      button.focus({ preventScroll: true });
    }
    return undefined;
  });
  return make("div", { class: "heat-controls" }, button, extra);
}

function facts(found) {
  const file = found.facts;
  if (!file) return null;
  return make("details", {}, make("summary", {}, "The file", make("span", { class: "hint" }, `${file.width_px} × ${file.height_px} ${file.codec.toUpperCase()}`)),
    pairs([
      ["Size", `${file.width_px} × ${file.height_px} pixels, ${bytes(file.n_bytes)}`],
      ["Format", `${file.codec.toUpperCase()}, ${file.mode}, ${file.bit_depth} bits a sample`],
      ["JPEG quality", file.jpeg_quality === null || file.jpeg_quality === undefined ? null : `about ${file.jpeg_quality} of 100`],
      ["Colour subsampling", file.chroma_subsampling],
      ["Frames", file.n_frames > 1 ? `${file.n_frames}, the first was judged` : null],
      ["Inside", [file.has_exif && "EXIF", file.has_icc && "a colour profile", file.has_alpha && "transparency"].filter(Boolean).join(", ") || "pixels only"],
      ["How it was read", (file.notes || []).map((note) => note.replaceAll("_", " ")).join(", ")],
    ]));
}

function numbers(answer, found, model) {
  const point = answer.operating_point;
  const band = model?.abstention;
  const time = found.timings;
  return make("details", {}, make("summary", {}, "The numbers", make("span", { class: "hint" }, `logit ${number(found.logit, 2)}`)),
    pairs([
      ["Logit", number(found.logit)],
      ["Score", found.score.toFixed(4)],
      ["Line", point && `${point.name}: generated from a logit of ${number(point.threshold)}`],
      ["No verdict", band && `logits between ${number(band.low)} and ${number(band.high)}`],
      ["Detector", `${answer.model.name}, version ${answer.model.version}, ${answer.model.format}`],
      ["Time", time && `${Math.round(time.decode_ms)} ms to read it, ${Math.round(time.model_ms)} ms to judge it`],
      ["Request", answer.request_id],
    ]),
    make("p", { class: "fine" }, "The score is the logit after calibration on validation pictures. It is a probability only where pictures are as mixed as those."));
}
