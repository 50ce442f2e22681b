// An open list: rows that change are fetched as the server renders them and swapped in place. What
// is new enters at the top only where the reader is, and is not pointing at a row or standing on
// one; else a bar counts it. Nothing is ever moved under the pointer.

import { Ended, isOver } from "./ask.js";
import { tick } from "./clock.js";
import { watch } from "./live.js";
import { onMark } from "./marks.js";
import { Away, read } from "./refetch.js";
import { say } from "./keys.js";
import { attach } from "./search.js";

const FLUSH_MS = 120; // events come in batches; one fetch serves them all
const REST_MS = 400; // between two fetches
const RETRY_MS = 2000; // after one that failed
const MAX_QUERY = 16_000; // characters of an address, of which servers take 64 KiB
const MAX_IDS = 50; // rows that are fetched at once, and that are added one by one
const MAX_ROWS = 500; // a page that stays open for days begins anew
const changed = new Set();
const waiting = new Map(); // rows that have not entered yet, by id, the newest last
const unsure = new Set(); // rows of which something may have been missed
let timer = 0;
let many = false; // more came than are worth adding one by one
let again = false; // the whole page is to be read anew

const table = () => document.getElementById("rows");
const body = () => table().tBodies[0];
const shown = () => table() ?? document.querySelector("[data-empty]");
const row = (id) => table()?.querySelector(`tr[data-id="${CSS.escape(id)}"]`);
const takesNew = () => "takesNew" in table().dataset;
const markup = (text) => new DOMParser().parseFromString(text, "text/html");

function idOf(event) {
  const { kind } = shown().dataset;
  if (!kind) return event.session_id ?? event.trace_id; // whatever comes is the first
  return kind === "trace" ? event.trace_id : event.session_id;
}

function take(event) {
  if (!shown()) return; // nothing here can change
  if (event.type === "resync") again = true;
  const id = idOf(event);
  if (id) changed.add(id);
  if (again || id) timer ||= setTimeout(flush, FLUSH_MS);
}

async function flush() {
  let wait = REST_MS;
  try {
    await update();
  } catch (error) {
    if (error instanceof Ended) return; // as ask.js says
    if (!(error instanceof Away)) throw error;
    // The server is gone, as live.js says; what was missed is read when it is back.
    again = true;
    wait = RETRY_MS;
  } finally {
    timer = (again || changed.size || unsure.size) && !isOver() ? setTimeout(flush, wait) : 0;
  }
}

async function update() {
  if (!again && table()) await refresh();
  else if (again || (await belongs())) await reread();
  else return;
  await totals();
}

async function get(address) {
  const text = await read(address);
  if (text === null) throw new Away(); // no list is ever gone: another server answered
  return text;
}

// Whether something came that a page without rows has now; to ask for that costs less than the page.
async function belongs() {
  const came = [...changed].map((id) => ["new", id]);
  changed.clear();
  if (!shown()?.dataset.rows) return Boolean(shown());
  const query = new URLSearchParams([["q", shown().dataset.q], ...came]);
  return String(query).length > MAX_QUERY || (await rows(query)).length > 0;
}

// Reads the page anew: an empty page turns into a list, a list takes what it missed.
async function reread() {
  again = false;
  changed.clear();
  const fresh = markup(await get(location.href));
  if (!table()) return show(fresh);
  const all = [...fresh.querySelectorAll("#rows tbody tr")];
  many ||= all.some((each) => !row(each.dataset.id));
  for (const each of body().rows) unsure.add(each.dataset.id);
  for (const id of waiting.keys()) unsure.add(id);
  for (const each of all) unsure.delete(each.dataset.id);
  return place(all.filter((each) => row(each.dataset.id)));
}

// Shows the page as it is now, with rows or without, round the search, where somebody may be typing.
function show(fresh) {
  const main = document.getElementById("main");
  const search = main.querySelector(".search");
  const parts = [...document.importNode(fresh.getElementById("main"), true).children];
  const at = search ? parts.findIndex((each) => each.matches(".search")) : -1;
  if (at < 0) {
    main.replaceChildren(...parts);
    attach();
  } else {
    for (const each of [...main.children]) if (each !== search) each.remove();
    search.before(...parts.slice(0, at));
    search.after(...parts.slice(at + 1));
  }
  waiting.clear();
  unsure.clear();
  tick(main);
  if (table()) say(`The first ${table().dataset.q ? "match" : "call"} has arrived`);
}

// Rows as the server renders them. Alone they are no document: they need a table around them.
async function rows(query) {
  const fresh = markup(`<table>${await get(`${shown().dataset.rows}?${query}`)}</table>`);
  return [...fresh.querySelectorAll("tr")];
}

async function refresh() {
  const query = new URLSearchParams({ q: table().dataset.q });
  const added = [...changed].filter((id) => !row(id));
  if (added.length > MAX_IDS || !takesNew()) {
    many ||= takesNew();
    for (const id of added) changed.delete(id);
  }
  const isFull = () => query.size > MAX_IDS || String(query).length > MAX_QUERY;
  for (const id of changed) {
    if (isFull()) break;
    changed.delete(id);
    query.append(row(id) ? "id" : "new", id);
  }
  for (const id of unsure) {
    if (isFull()) break;
    unsure.delete(id);
    if (row(id)) query.append("id", id);
    else if (waiting.has(id)) query.append("new", id);
  }
  if (!query.has("id") && !query.has("new")) return place([]);
  const fresh = await rows(query);
  const found = new Set(fresh.map((each) => each.dataset.id));
  for (const id of query.getAll("id")) if (!found.has(id)) row(id)?.classList.add("gone");
  for (const id of query.getAll("new")) if (!found.has(id)) waiting.delete(id);
  return place(fresh.reverse());
}

// Puts rows, oldest first, where they belong.
async function place(all) {
  for (const each of all) {
    const fresh = document.importNode(each, true);
    const old = row(fresh.dataset.id);
    if (old) swap(old, fresh);
    else waiting.set(fresh.dataset.id, fresh);
  }
  many ||= waiting.size > MAX_IDS; // or one may wait that is not among the newest any more
  if (undisturbed()) await enter();
  count();
}

async function enter() {
  many ||= waiting.size > 0 && body().rows.length + waiting.size > MAX_ROWS;
  if (many) return renew();
  for (const [id, fresh] of waiting) {
    body().prepend(fresh);
    tick(fresh);
    flash(fresh);
    waiting.delete(id);
  }
}

// Begins anew, where rows one by one would leave gaps or grow without end.
async function renew() {
  const known = new Set(waiting.keys());
  many = false; // while it is fetched there may be many again
  let fresh;
  try {
    fresh = markup(await get(location.href));
  } catch (error) {
    many = true;
    throw error;
  }
  if (!table() || !fresh.querySelector(".scroll")) return show(fresh);
  for (const part of [".scroll", ".pager"]) {
    document.querySelector(part).replaceWith(document.importNode(fresh.querySelector(part), true));
  }
  for (const id of waiting.keys()) if (known.has(id) || row(id)) waiting.delete(id);
  tick();
}

function count() {
  if (!table()) return;
  const bar = document.getElementById("news");
  const kind = table().dataset.kind;
  bar.hidden = waiting.size === 0 && !many;
  bar.textContent = many
    ? `Many new ${kind}s`
    : `${waiting.size} new ${kind}${waiting.size === 1 ? "" : "s"}`;
}

// The cells are exchanged, not the row: what has the focus or the pointer stays what it was.
function swap(old, fresh) {
  old.classList.remove("gone");
  [...fresh.cells].forEach((cell, n) => {
    if (old.cells[n].innerHTML === cell.innerHTML) return;
    const focused = old.cells[n].contains(document.activeElement) && document.activeElement;
    const at = focused ? [...old.cells[n].querySelectorAll("a, button")].indexOf(focused) : -1;
    old.cells[n].replaceChildren(...cell.childNodes);
    old.cells[n].querySelectorAll("a, button")[at]?.focus({ preventScroll: true });
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
  return scrollY < 8 && !inside;
}

async function totals() {
  const place = document.getElementById("totals");
  if (!place) return;
  const fresh = markup(await get(place.dataset.href));
  place.replaceChildren(...document.importNode(fresh.body, true).childNodes);
}

document.addEventListener("click", async (event) => {
  if (!event.target.closest("#news")) return;
  scrollTo({ top: 0 });
  await enter().catch(() => {}); // what could not be read is still counted
  count();
  if (!table()) totals().catch(() => {}); // as below
});

onMark((form) => take({ session_id: form.closest("tr").dataset.id }));
attach();
if (!document.querySelector("#totals dl")) totals().catch(() => {}); // the next event brings them
watch({}, take);
