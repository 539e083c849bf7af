// What a reader needs of a page, looked at in the browser: names, words for pictures, order of headings, contrast.
// Returns a list of troubles; empty is good. Not a full audit: what axe-core does beside is not done here.
() => {
  const troubles = [];
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  if (new Set(ids).size !== ids.length) troubles.push("an id stands twice");
  for (const node of document.querySelectorAll("a, button, input")) {
    const labels = [...(node.labels || [])].map((one) => one.textContent).join("");
    const name = node.getAttribute("aria-label") || labels || node.textContent;
    if (!name.trim()) troubles.push(`no name: ${node.outerHTML.slice(0, 80)}`);
  }
  for (const node of document.querySelectorAll("img")) if (!node.alt) troubles.push("a picture without words");
  for (const node of document.querySelectorAll("[aria-labelledby], [aria-describedby]")) {
    const id = node.getAttribute("aria-labelledby") || node.getAttribute("aria-describedby");
    if (!document.getElementById(id)) troubles.push(`nothing is called ${id}`);
  }
  let level = 0;
  for (const node of document.querySelectorAll("h1, h2, h3, h4")) {
    const now = Number(node.tagName[1]);
    if (now > level + 1) troubles.push(`heading ${now} after ${level}: ${node.textContent}`);
    level = now;
  }
  const numbers = (colour) => [...colour.match(/[\d.]+/g).map(Number), 1].slice(0, 4);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const found = numbers(getComputedStyle(one).backgroundColor);
      if (found[3] === 1) return found;
    }
    return [255, 255, 255, 1];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    if (node.closest(".visually-hidden, .sign, :disabled, noscript, .skip")) continue;
    const style = getComputedStyle(node);
    const [high, low] = [light(numbers(style.color)), light(ground(node))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    seen += 1;
    if (ratio < 4.5) troubles.push(`contrast ${ratio.toFixed(2)}: ${texts.currentNode.textContent.slice(0, 40)}`);
  }
  if (seen < 60) troubles.push(`only ${seen} texts were looked at`);
  return troubles;
}
