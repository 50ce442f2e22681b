// An open session: on an event its live part is fetched as the server renders it, and merged. A
// running answer grows by span_progress, as text and nothing else, until the server's rendering of
// the whole message takes its place.

import { tick } from "./clock.js";
import "./copy.js";
import { bind, current } from "./keys.js";
import { watch } from "./live.js";
import { onMark } from "./marks.js";
import { merge, parse, remember } from "./merge.js";
import { read, refetching } from "./refetch.js";

const FLUSH_MS = 120;
const LIVE_MESSAGES = 300; // of a page that grows while it is open
const NEAR_PX = 120; // from the end: the reader is at it

const root = document.getElementById("session");
const streams = new Map(); // what came of running answers: {start, count, text} by span
const schedule = refetching(refresh, FLUSH_MS);
let grows = false; // it had the newest message once, and takes those that come

function take(event) {
  if (event.type === "span_progress") progress(event);
  else schedule();
}

async function refresh(from) {
  const text = await read(address(from));
  root.classList.toggle("gone", text === null);
  if (text === null) return;
  const fresh = parse(`<div>${text}</div>`).body.firstElementChild;
  const follows = atEnd();
  // Full: who is at its end goes on to the newest, and finds there what was on the screen.
  const tail = fresh.querySelector("#messages")?.dataset.tail;
  if (tail && follows && isLast()) return refresh(tail);
  merge(root, fresh);
  tick(root);
  document.title = `${document.getElementById("called").textContent} · Traceway`;
  for (const span of streams.keys()) {
    if (!place(span)) streams.delete(span);
    else fill(span);
  }
  if (follows) toEnd();
}

function address(from) {
  const url = new URL(root.dataset.live, location);
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (!["at", "id"].includes(name)) url.searchParams.append(name, value);
  }
  if (messages()) {
    grows ||= isLast();
    url.searchParams.set("from", from ?? messages().dataset.start);
    const limit = Math.max(LIVE_MESSAGES, url.searchParams.get("limit"));
    if (grows) url.searchParams.set("limit", limit);
  }
  return url;
}

function messages() {
  return document.getElementById("messages");
}

function isLast() {
  return !("tail" in messages().dataset);
}

function place(span) {
  return root.querySelector(`[data-span="${CSS.escape(span)}"]`);
}

// Offsets count characters as Python does; a string of this language counts halves of some.
function progress({ span_id: span, offset, text }) {
  const known = streams.get(span) ?? { start: offset, count: 0, text: "" };
  const end = known.start + known.count;
  if (offset > end) Object.assign(known, { start: offset, count: 0, text: "" });
  const fresh = [...text].slice(Math.max(0, known.start + known.count - offset));
  known.text += fresh.join("");
  known.count += fresh.length;
  streams.set(span, known);
  fill(span);
}

function fill(span) {
  const element = place(span);
  if (!element) return; // on another view or page; or the fetch that its start asked for brings it
  const { start, count, text } = streams.get(span);
  const shown = Number(element.dataset.length);
  // What is missing between the two comes with the next save of the stream.
  if (shown < start) return schedule();
  if (shown >= start + count) return;
  const follows = atEnd();
  element.append([...text].slice(shown - start).join(""));
  element.dataset.length = start + count;
  if (follows) toEnd();
}

function atEnd() {
  const height = document.documentElement.scrollHeight;
  return height > innerHeight && scrollY + innerHeight > height - NEAR_PX;
}

function toEnd() {
  scrollTo({ top: document.documentElement.scrollHeight });
}

function step(selector, by) {
  const all = [...root.querySelectorAll(selector)];
  const from = current()?.getBoundingClientRect().top ?? 0;
  const tops = all.map((element) => element.getBoundingClientRect().top);
  const after = tops.findIndex((top) => top > from + 1);
  const before = tops.findLastIndex((top) => top < from - 1);
  const next = all[by > 0 ? (after < 0 ? 0 : after) : before < 0 ? all.length - 1 : before];
  if (!next) return;
  for (const row of root.querySelectorAll(".current")) row.classList.remove("current");
  next.classList.add("current");
  next.querySelector("a")?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "start" });
}

bind({
  "[": () => step("[data-turn]", -1),
  "]": () => step("[data-turn]", 1),
  e: () => step(".message.failed, tr:has(.status.failed)", 1),
});
onMark(schedule);
remember(root);
watch({ session: root.dataset.session, progress: "1" }, take);
