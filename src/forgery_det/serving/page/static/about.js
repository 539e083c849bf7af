// The detector behind the answers: name, version, held-out numbers with intervals, lines, licence.

import { make, pairs } from "./dom.js";
import { bytes, metricName, percent, pointWords, score, toScore } from "./words.js";

const FIRST = ["auroc", "balanced_accuracy@balanced", "tpr@fpr_5pct", "fpr@fpr_5pct", "tpr@fpr_1pct", "fpr@fpr_1pct", "ece"];

export function chip(model) {
  return `${model.name} · ${model.version}`;
}

export function limits(model) {
  const bound = model.limits || {};
  const size = bound.max_image_bytes ? `, up to ${bytes(bound.max_image_bytes)} each` : "";
  return `JPEG, PNG, WebP, AVIF, GIF or TIFF${size}`;
}

export function about(model) {
  const bundle = model.bundle || {};
  const detector = bundle.detector || {};
  return [
    pairs([
      ["Detector", [model.name, detector.paper || detector.title].filter(Boolean).join(": ")],
      ["Version", `${model.version} (${model.format}, exported by forgery-det ${model.tool_version})`],
      ["Lines", points(model)],
      ["No verdict", model.abstention && `scores between ${score(toScore(model.abstention.low, model.temperature))} and ${score(toScore(model.abstention.high, model.temperature))}, where either kind is still likely at an error level of ${percent(model.abstention.alpha)}`],
      ["Trained on", training(bundle)],
      ["Generators", generators(bundle.training || {})],
      ["Licence", bundle.licence],
    ]),
    heldOut(bundle.held_out || []),
  ];
}

function points(model) {
  return Object.entries(model.operating_points || {})
    .map(([name, threshold]) => `${pointWords(name)} (score ${score(toScore(threshold, model.temperature))}${name === model.default_operating_point ? ", in use" : ""})`)
    .join("; ") || "none: this model gives scores without verdicts";
}

function training(bundle) {
  const facts = bundle.training || {};
  const name = bundle.created_from?.dataset || facts.dataset;
  const real = facts.n_val_real ? `, ${facts.n_val_real} of them real` : "";
  return [name, facts.n_train && `${facts.n_train} pictures`, facts.n_val && `the lines were drawn on ${facts.n_val} others${real}`].filter(Boolean).join("; ");
}

function generators(facts) {
  const names = facts.generators && (Array.isArray(facts.generators) ? facts.generators : Object.keys(facts.generators));
  if (!names?.length) return null;
  if (names.length < 8) return names.join(", ");
  return make("details", { class: "plain" }, make("summary", {}, `${names.length} were seen in training`), make("p", { class: "fine" }, names.join(", ")));
}

function heldOut(rows) {
  const overall = FIRST.map((metric) => rows.find((row) => row.metric === metric && row.slice === "overall")).filter(Boolean);
  if (!overall.length) {
    return make("p", { class: "fine" }, "This bundle came without held-out results, so nothing here says how often it is wrong.");
  }
  const slices = rows.filter((row) => row.metric === "auroc" && row.slice !== "overall" && row.value !== null);
  return make("div", { class: "held-out" },
    make("h3", {}, "On pictures it never saw"),
    table(overall, "Measure", (row) => metricName(row.metric)),
    slices.length ? make("details", {}, make("summary", {}, "By kind of picture", make("span", { class: "hint" }, "AUROC")), table(slices, "Pictures", (row) => row.slice.replaceAll("=", ": ").replaceAll("_", " "))) : null,
    make("p", { class: "fine" }, "Bars are 95 % intervals. On other kinds of pictures the numbers will differ."));
}

function table(rows, head, name) {
  return make("div", { class: "table-wrap" }, make("table", {},
    make("thead", {}, make("tr", {}, [head, "Value", "Interval", "Pictures"].map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, make("th", { scope: "row" }, name(row)),
      make("td", { class: "number" }, number(row)), make("td", { class: "interval" }, interval(row)), make("td", { class: "number" }, row.n ?? ""))))));
}

function number(row) {
  if (row.value === null || row.value === undefined) return "–";
  return /^(tpr|fpr|balanced_accuracy|accuracy)/.test(row.metric) ? percent(row.value) : row.value.toFixed(3);
}

function interval(row) {
  if (row.ci_low === null || row.ci_low === undefined) return "–";
  const bar = make("span", { class: "ci", "aria-hidden": "true" });
  const span = make("span", { class: "ci-span" });
  const dot = make("span", { class: "ci-dot" });
  const at = (value) => `${(100 * Math.min(1, Math.max(0, value))).toFixed(1)}%`;
  span.style.left = at(row.ci_low);
  span.style.width = at(row.ci_high - row.ci_low);
  dot.style.left = at(row.value);
  bar.append(span, dot);
  const as = (value) => number({ ...row, value });
  return [bar, make("span", { class: "ci-words" }, `${as(row.ci_low)} to ${as(row.ci_high)}`)];
}
