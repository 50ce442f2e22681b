// The keyboard: one row is current, and the same keys work on every list. Keys are left alone while
// somebody types. Rows are any elements with [data-id]; the link in one opens it.

import { toggle } from "./live.js";

const help = document.getElementById("help");
const said = document.getElementById("said");
const opener = document.getElementById("help-open");
let extra = {};

// Gives a page keys of its own: {key: function}.
export function bind(keys) {
  extra = { ...extra, ...keys };
}

export function say(text) {
  said.textContent = text;
}

function rows() {
  return [...document.querySelectorAll("[data-id]")];
}

export function current() {
  return document.activeElement?.closest?.("[data-id]") ?? document.querySelector("[data-id].current");
}

function step(by) {
  const all = rows();
  if (all.length === 0) return;
  const at = all.indexOf(current());
  const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
  for (const row of all) row.classList.toggle("current", row === next);
  const link = next.querySelector("a");
  link?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    return say("The browser did not allow copying");
  }
  button.classList.add("done");
  say("Copied");
  setTimeout(() => button.classList.remove("done"), 1200);
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  Enter: () => current()?.querySelector("a")?.click(),
  o: () => {
    const link = current()?.querySelector("a");
    if (link) window.open(link.href, "_blank", "noopener");
  },
  c: () => {
    const button = current()?.querySelector("[data-copy]");
    if (button) copy(button);
  },
  "/": () => document.getElementById("q")?.focus(),
  ".": toggle,
  "?": () => help.showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || help.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const run = extra[event.key] ?? KEYS[event.key];
  // Enter on a link or a button is the browser's.
  if (!run || (event.key === "Enter" && event.target.closest("a, button, summary"))) return;
  event.preventDefault();
  run();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

opener.hidden = false;
opener.addEventListener("click", () => help.showModal());
