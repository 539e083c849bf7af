// The heat map over a picture. Orange: covering this part lowers the logit, so it speaks for "generated". Blue: for real.

import { make } from "./dom.js";
import { place } from "./words.js";

const GENERATED = [216, 99, 27];
const REAL = [42, 127, 191];

// Lay the map on the stage. The box may reach beyond the picture (padded views); the stage cuts it off.
export function overlay(stage, map) {
  const { width, height } = map.image_px;
  const box = map.box_px;
  const canvas = make("canvas", { class: "heat", width: map.cols, height: map.rows, "aria-hidden": "true" });
  paint(canvas, map);
  const seen = make("div", { class: "seen", "aria-hidden": "true" });
  for (const node of [canvas, seen]) {
    node.style.left = `${(100 * box.left) / width}%`;
    node.style.top = `${(100 * box.top) / height}%`;
    node.style.width = `${(100 * box.width) / width}%`;
    node.style.height = `${(100 * box.height) / height}%`;
  }
  const whole = box.left <= 1 && box.top <= 1 && box.left + box.width >= width - 1 && box.top + box.height >= height - 1;
  stage.append(canvas, ...(whole ? [] : [seen]), ...signs(map));
  return { canvas, whole };
}

function paint(canvas, map) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(map.cols, map.rows);
  const deepest = Math.abs(map.strongest) || 1;
  map.delta.flat().forEach((delta, index) => {
    const colour = delta > 0 ? GENERATED : REAL;
    pixels.data.set([...colour, Math.round(255 * Math.min(1, Math.abs(delta) / deepest))], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
}

// A plus on the strongest part for "generated", a minus on the strongest for "real": colour never stands alone.
function signs(map) {
  return extremes(map).map(({ row, col, delta }) => {
    const node = make("span", { class: `sign ${delta > 0 ? "for-generated" : "for-real"}`, "aria-hidden": "true" }, delta > 0 ? "+" : "−");
    const { left, top, width, height } = map.box_px;
    node.style.left = `${(100 * (left + (width * (col + 0.5)) / map.cols)) / map.image_px.width}%`;
    node.style.top = `${(100 * (top + (height * (row + 0.5)) / map.rows)) / map.image_px.height}%`;
    return node;
  });
}

function extremes(map) {
  const cells = map.delta.flatMap((line, row) => line.map((delta, col) => ({ row, col, delta })));
  const highest = cells.reduce((best, cell) => (cell.delta > best.delta ? cell : best));
  const lowest = cells.reduce((best, cell) => (cell.delta < best.delta ? cell : best));
  const floor = 0.15 * Math.abs(map.strongest);
  return [highest, lowest].filter((cell) => Math.abs(cell.delta) > floor && cell.delta !== 0);
}

// The map in words, for people who do not see it and for those who do.
export function summary(map) {
  const told = extremes(map).map(({ row, col, delta }) => {
    const where = place(row, col, map.rows, map.cols);
    const what = delta > 0 ? "for “generated”" : "for “real”";
    return `${where} (covering it moves the logit by ${delta > 0 ? "−" : "+"}${Math.abs(delta).toFixed(2)}, so it speaks ${what})`;
  });
  return told.length ? `Strongest: ${told.join("; ")}.` : "No part alone moves the logit.";
}
