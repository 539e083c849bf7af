// Plain words for numbers: pure functions, no page. What is said here must never be surer than the detector is.

export const DECISIONS = {
  generated: { title: "Looks generated", sign: "◆", short: "looks generated" },
  real: { title: "Looks like a real photo", sign: "●", short: "looks real" },
  uncertain: { title: "Too close to call", sign: "◇", short: "too close to call" },
  "n/a": { title: "A score, no verdict", sign: "○", short: "no verdict" },
};

export const WARNINGS = {
  tiny_image: "The picture is tiny (a side below 64 px). There is little to judge by.",
  upscaled: "The picture is smaller than what the detector looks at, so it was enlarged or padded first.",
  heavy_recompression: "The JPEG was compressed strongly. That removes the traces a detector reads.",
  screenshot_like: "This may be a screenshot: lossless, of exactly a screen's size, no camera data. Then the detector judges the screen, not the picture on it.",
  first_frame_only: "The file holds several frames. Only the first was judged.",
};

const REASONS = {
  not_an_image: "This is not a picture that can be read.",
  empty: "The file is empty.",
  truncated: "The file ends too early; it was probably cut off while it was copied.",
  corrupt: "The file is damaged.",
  unsupported_format: "This format is not read. Save it as PNG without loss.",
  unsupported_variant: "This is a rare variant of the format that is not read. Save it as PNG without loss.",
  too_many_pixels: "The picture has too many pixels for this service.",
  side_too_long: "A side of the picture is too long for this service.",
  too_many_bytes: "The file is too large for this service.",
  zero_size: "The picture has no pixels.",
  too_small: "The picture is too small.",
  too_slow: "This detector is too slow for a heat map of this picture here.",
};

const METRICS = {
  auroc: "Ranks a generated picture above a real one (AUROC)",
  average_precision: "Average precision",
  balanced_accuracy: "Right answers, both kinds counted alike",
  accuracy: "Right answers",
  tpr: "Generated pictures found",
  fpr: "Real pictures called generated",
  ece: "Calibration error (ECE)",
  brier: "Brier score",
};

export function reason(code, detail) {
  return REASONS[code] || detail || code || "The file was refused.";
}

export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)} %`;
}

// With a true minus sign.
export function number(value, digits = 4) {
  return value.toFixed(digits).replace("-", "−");
}

export function bytes(count) {
  if (count < 1024) return `${count} bytes`;
  const unit = count < 1024 ** 2 ? ["KiB", 1024] : ["MiB", 1024 ** 2];
  const value = count / unit[1];
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit[0]}`;
}

// A score that rounds to 0 or 1 is shown as a bound: nothing is certain.
export function score(value) {
  if (value < 0.005) return "below 0.01";
  if (value > 0.995) return "above 0.99";
  return value.toFixed(2);
}

export function toScore(logit, temperature) {
  return 1 / (1 + Math.exp(-logit / (temperature || 1)));
}

// "fpr_5pct" -> 0.05; null for points that promise no rate of false alarms.
export function falseAlarms(point) {
  const found = /^fpr_(\d+)(?:_(\d+))?pct$/.exec(point || "");
  return found ? Number(`${found[1]}.${found[2] || 0}`) / 100 : null;
}

export function pointWords(point) {
  const rate = falseAlarms(point);
  if (rate !== null) return `false alarms ${percent(rate, rate < 0.01 ? 1 : 0)}`;
  return point === "balanced" ? "balanced: both kinds mistaken about equally often" : point;
}

function alarmSentence(point, bundle) {
  const heldOut = bundle?.held_out;
  const count = bundle?.training?.n_val_real;
  const rate = falseAlarms(point);
  const measured = (heldOut || []).find((row) => row.metric === `fpr@${point}` && row.slice === "overall");
  const parts = [];
  if (rate !== null) {
    parts.push(`The line was drawn so that about ${percent(rate, rate < 0.01 ? 1 : 0)} of the ${count ? `${count} ` : ""}real validation pictures lie above it`);
  } else if (point === "balanced") {
    parts.push("The line was drawn on validation pictures, where both kinds are mistaken about equally often");
  }
  if (measured) {
    const range = measured.ci_low === null || measured.ci_low === undefined
      ? "" : ` (95 % interval ${percent(measured.ci_low)} to ${percent(measured.ci_high)})`;
    parts.push(`${parts.length ? "on" : "On"} held-out test pictures ${percent(measured.value)} did${range}`);
  }
  return parts.length ? `${parts.join("; ")}.` : "";
}

// The sentence below the verdict.
export function verdict(image, point, model) {
  const line = point ? score(toScore(point.threshold, model?.temperature)) : null;
  const shown = score(image.score);
  const alarms = point ? alarmSentence(point.name, model?.bundle) : "";
  if (image.decision === "generated") {
    return `Its score of ${shown} is on or above the line at ${line}. ${alarms} So a real photo can end up here, too.`;
  }
  if (image.decision === "real") {
    return `Its score of ${shown} is below the line at ${line}. That does not prove a camera took it: generators that the detector never saw are missed more often.`;
  }
  if (image.decision === "uncertain") {
    const alpha = model?.abstention?.alpha;
    const rule = alpha ? ` Answers are held back where either kind is still likely (error level ${percent(alpha)}).` : "";
    return `Its score of ${shown} lies where real and generated validation pictures overlap, so no verdict is given.${rule}`;
  }
  return `Its score is ${shown}. This model was exported without operating points, so nothing says where to draw a line.`;
}

export function metricName(metric) {
  const [name, point] = metric.split("@");
  const words = METRICS[name] || name.replaceAll("_", " ");
  if (!point) return words;
  const rate = falseAlarms(point);
  return rate === null ? `${words}, at the ${point.replaceAll("_", " ")} line` : `${words}, at the ${percent(rate)} line`;
}

const PLACES = [["upper left", "top", "upper right"], ["left", "middle", "right"], ["lower left", "bottom", "lower right"]];

export function place(row, col, rows, cols) {
  const third = (index, count) => Math.min(2, Math.floor((3 * (index + 0.5)) / count));
  return PLACES[third(row, rows)][third(col, cols)];
}

export const SAYS = {
  generated: "made by a generator",
  edited_with_ai: "edited with generated parts",
  composite: "put together from several pictures",
  drawn: "made by people with software",
  captured: "taken by a camera",
  other: "something else",
};

export const MANIFEST = {
  absent: ["none", "No C2PA manifest"],
  trusted: ["good", "C2PA manifest holds, signer trusted"],
  valid: ["good", "C2PA manifest holds, signer not checked"],
  invalid: ["bad", "C2PA manifest does not validate"],
  unreadable: ["bad", "C2PA manifest cannot be read"],
  not_installed: ["none", "C2PA was not looked for"],
  too_large: ["none", "C2PA was not looked for"],
  remote: ["none", "C2PA manifest elsewhere, not fetched"],
};

export const ACTIONS = {
  "c2pa.created": "created",
  "c2pa.opened": "opened",
  "c2pa.edited": "edited",
  "c2pa.converted": "converted",
  "c2pa.cropped": "cropped",
  "c2pa.resized": "resized",
  "c2pa.placed": "placed a part",
  "c2pa.color_adjustments": "colours changed",
  "c2pa.published": "published",
};
