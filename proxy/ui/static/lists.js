// An open list: rows that change are fetched as the server renders them and swapped in place. What
// is new enters at the top only where the reader is, and is not pointing at a row or standing on
// one; else a bar counts it. Nothing is ever moved under the pointer.

import { tick } from "./clock.js";
import { watch } from "./live.js";
import { say } from "./keys.js";
import "./search.js";

const FLUSH_MS = 120; // events come in batches; one fetch serves them all
const REST_MS = 400; // between two fetches
const changed = new Set();
const waiting = new Map(); // rows that have not entered yet, by id, the newest last
let timer = 0;
let again = false; // the whole page is to be read anew

const table = () => document.getElementById("rows");
const body = () => table().tBodies[0];
const row = (id) => table()?.querySelector(`tr[data-id="${CSS.escape(id)}"]`);
const markup = (text) => new DOMParser().parseFromString(text, "text/html");

function idOf(event) {
  if (table()) return table().dataset.kind === "trace" ? event.trace_id : event.session_id;
  return event.session_id ?? event.trace_id;
}

function take(event) {
  if (event.type === "resync" || !table()) again = true;
  const id = idOf(event);
  if (id) changed.add(id);
  if (again || id) timer ||= setTimeout(flush, FLUSH_MS);
}

async function flush() {
  try {
    if (again || !table()) await reread();
    else await refresh();
    await totals();
  } catch {
    again = true; // the server is gone; live.js says so, and what was missed is read on its return
  }
  timer = 0;
  if (changed.size) timer = setTimeout(flush, REST_MS);
}

async function get(address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  if (!answer.ok && answer.status !== 400) throw new Error(String(answer.status));
  return answer.text();
}

// Reads the page anew: an empty page turns into a list, a list takes what it missed.
async function reread() {
  again = false;
  changed.clear();
  const fresh = markup(await get(location.href));
  const rows = fresh.querySelectorAll("#rows tbody tr");
  if (table() && rows.length) return place([...rows].reverse());
  if (table() || document.querySelector("[data-empty]")) {
    const main = document.getElementById("main");
    main.replaceChildren(...document.importNode(fresh.getElementById("main"), true).childNodes);
    tick(main);
    if (table()) say("The first call has arrived");
  }
}

async function refresh() {
  const ids = [...changed].slice(0, 50);
  for (const id of ids) changed.delete(id);
  const query = new URLSearchParams({ q: table().dataset.q });
  for (const id of ids) {
    if (row(id)) query.append("id", id);
    else if ("takesNew" in table().dataset) query.append("new", id);
  }
  if (!query.has("id") && !query.has("new")) return;
  // Rows alone are no document: they need a table around them.
  const fresh = markup(`<table>${await get(`${table().dataset.rows}?${query}`)}</table>`);
  const rows = [...fresh.querySelectorAll("tr")];
  const found = new Set(rows.map((each) => each.dataset.id));
  for (const id of query.getAll("id")) if (!found.has(id)) row(id)?.classList.add("gone");
  place(rows.reverse());
}

// Puts rows, oldest first, where they belong.
function place(rows) {
  for (const each of rows) {
    const fresh = document.importNode(each, true);
    const old = row(fresh.dataset.id);
    if (old) swap(old, fresh);
    else if ("takesNew" in table().dataset) waiting.set(fresh.dataset.id, fresh);
  }
  if (undisturbed()) enter();
  count();
}

// The cells are exchanged, not the row: what has the focus or the pointer stays what it was.
function swap(old, fresh) {
  old.classList.remove("gone");
  [...fresh.cells].forEach((cell, n) => {
    if (old.cells[n].innerHTML === cell.innerHTML) return;
    const focused = old.cells[n].contains(document.activeElement) && document.activeElement;
    const again = focused && [...old.cells[n].querySelectorAll("a, button")].indexOf(focused);
    old.cells[n].replaceChildren(...cell.childNodes);
    if (focused) old.cells[n].querySelectorAll("a, button")[again]?.focus({ preventScroll: true });
  });
  tick(old);
  flash(old);
}

function flash(element) {
  element.classList.remove("fresh");
  void element.offsetWidth; // starts the animation anew
  element.classList.add("fresh");
}

function undisturbed() {
  const inside = table().matches(":hover") || table().contains(document.activeElement);
  return scrollY < 8 && !inside && !document.querySelector("tr.current");
}

function enter() {
  for (const [id, fresh] of waiting) {
    body().prepend(fresh);
    tick(fresh);
    flash(fresh);
    waiting.delete(id);
  }
}

function count() {
  const bar = document.getElementById("news");
  const kind = table().dataset.kind;
  bar.hidden = waiting.size === 0;
  bar.textContent = `${waiting.size} new ${kind}${waiting.size === 1 ? "" : "s"}`;
}

async function totals() {
  const place = document.getElementById("totals");
  if (!place) return;
  const fresh = markup(await get(place.dataset.href));
  place.replaceChildren(...document.importNode(fresh.body, true).childNodes);
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("#news")) return;
  enter();
  count();
  scrollTo({ top: 0 });
});

if (!document.querySelector("#totals dl") && table()) totals().catch(() => {});
watch({}, take);
