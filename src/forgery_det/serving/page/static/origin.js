// What the file says about itself, kept apart from what the detector says of the pixels.

import { make, pairs } from "./dom.js";
import { ACTIONS, MANIFEST, SAYS } from "./words.js";

const KINDS = { text: "PNG text", exif: "EXIF", xmp: "XMP", iptc: "IPTC", comment: "Comment" };

// One line: what stands out.
export function originBadge(found) {
  if (!found) return "";
  const claim = strongest(found);
  if (claim) return `The file says: ${claim}.`;
  const [, words] = MANIFEST[found.c2pa.state] || MANIFEST.absent;
  return found.c2pa.state === "absent" ? "" : `${words}.`;
}

function strongest(found) {
  if (found.c2pa.says) return SAYS[found.c2pa.says];
  const mark = found.marks.find((one) => one.says === "generated") || found.marks[0];
  if (!mark) return "";
  return mark.generator ? `${SAYS[mark.says]} (${mark.generator})` : SAYS[mark.says];
}

export function origin(found, decision) {
  if (!found) return null;
  const { c2pa, marks, fields } = found;
  const [tone, title] = MANIFEST[c2pa.state] || MANIFEST.absent;
  const claim = strongest(found);
  const block = make("section", { class: "origin", "data-tone": claim ? "claim" : tone, "aria-label": "What the file says about itself" },
    make("h4", {}, "What the file says about itself"),
    make("p", { class: "origin-claim" }, claimWords(claim, tone, c2pa)),
    disagreement(c2pa, marks, decision),
    make("p", { class: `badge ${tone}` }, make("span", { "aria-hidden": "true" }, { good: "✓ ", bad: "✕ ", none: "– " }[tone]), title),
    c2pa.state === "absent" ? null : manifest(c2pa));
  const shown = marks.filter((mark) => mark.generator || mark.says !== "captured" || !c2pa.says);
  if (shown.length) block.append(make("ul", { class: "marks" }, shown.map((mark) => make("li", {}, make("strong", {}, mark.generator || SAYS[mark.says]), `: ${mark.generator ? "found in" : ""} ${mark.where}. ${mark.generator ? "" : mark.why}`))));
  if (shown.length) block.append(make("p", { class: "fine" }, "Such notes are easily written and easily removed."));
  if (fields.length) {
    block.append(make("details", {}, make("summary", {}, "Notes in the file", make("span", { class: "hint" }, `${fields.length}`)),
      pairs(fields.map((field) => [`${KINDS[field.kind] || field.kind} ${field.key}`.trim(), make("span", { class: "raw" }, field.value)]))));
  }
  return block;
}

function claimWords(claim, tone, c2pa) {
  if (claim) return `It claims to be ${claim}.`;
  return tone === "none" ? "Nothing about how it was made. That proves nothing: most services remove such notes." : c2pa.words;
}

// Where detector and file disagree, say which weighs more and why.
function disagreement(c2pa, marks, decision) {
  const says = c2pa.says || marks.find((mark) => mark.says === "generated")?.says;
  const isSigned = c2pa.state === "trusted" || c2pa.state === "valid";
  if (decision === "real" && says === "generated") {
    return make("p", { class: "origin-note" }, isSigned && c2pa.says
      ? "The detector disagrees. A signed statement that a picture was generated weighs more than a detector's score."
      : "The detector disagrees. Hardly anybody writes such a note into a real photo, so take it seriously.");
  }
  if (decision === "generated" && says === "captured") {
    return make("p", { class: "origin-note" }, "The detector disagrees. It may be wrong; so may the note.");
  }
  return null;
}

function manifest(c2pa) {
  return make("details", {}, make("summary", {}, "The manifest"),
    make("p", { class: "fine" }, c2pa.words),
    pairs([
      ["Signed by", [c2pa.signer, c2pa.issuer].filter(Boolean).join(", ")],
      ["Signed at", c2pa.signed_at],
      ["Written by", c2pa.claim_generator],
      ["Steps", c2pa.actions.map((step) => [ACTIONS[step.action] || step.action, step.software && `with ${step.software}`, step.source_type && `(${step.source_type.split("/").pop()})`].filter(Boolean).join(" ")).join("; ")],
      ["Made from", c2pa.ingredients.map((one) => one.title || "a picture without a title").join(", ")],
      ["What failed", c2pa.problems.filter((code) => c2pa.state !== "valid" || code !== "signingCredential.untrusted").join(", ")],
    ]));
}
