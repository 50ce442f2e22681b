// The connection to /api/events, and the indicator that says how it is.
//
// Owns one EventSource per page. It begins after the event that the page was made at (data-since of
// <html>) and goes on after the last one that came, so that nothing is missed. What events mean is
// the caller's: watch(query, take) hands each to take(event); {type: "resync"} says that some are
// gone for good, and that the page must be read anew. Before it connects again it asks whether it
// still may (ask.js); if not, that is the end. A tab that nobody sees never connects: what it missed
// comes when it is seen.

import { isOver, isStillHere } from "./ask.js";

const WORDS = {
  live: "Live",
  connecting: "Connecting",
  disconnected: "Disconnected",
  off: "Paused",
  ended: "Ended",
};
const RETRY_MS = [300, 600, 1200, 2500, 5000];
// A browser gives one server six connections; a tab that nobody sees must not keep one of them.
const HIDDEN_MS = 20_000;

const button = document.getElementById("live");
const text = document.getElementById("live-text");
let watched = null;
let source = null;
let last = document.documentElement.dataset.since ?? "";
let tries = 0;
let retryTimer = 0;
let hideTimer = 0;
let attempt = 0; // which of them is the newest: an older one that was still asking does nothing

export function watch(query, take) {
  watched = { query, take };
  button.hidden = false;
  button.addEventListener("click", toggle);
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hideTimer);
    if (document.hidden) hideTimer = setTimeout(close, HIDDEN_MS);
    else if (!source && !isOff()) connect();
  });
  addEventListener("online", () => source && connect()); // the old one may be dead and not know it
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && !isOff() && connect());
  addEventListener("ended", () => {
    close();
    show("ended");
  });
  connect();
}

// Pauses a live page; sets a paused or a broken one going.
export function toggle() {
  if (!watched || isOver()) return;
  if (isOff() || button.dataset.state === "disconnected") return connect();
  close();
  show("off");
}

function isOff() {
  return button.dataset.state === "off";
}

function show(state) {
  if (button.dataset.state === state) return;
  button.dataset.state = state;
  button.setAttribute("aria-pressed", String(state !== "off"));
  text.textContent = WORDS[state];
}

function close() {
  clearTimeout(retryTimer);
  attempt += 1;
  source?.close();
  source = null;
}

async function connect() {
  if (isOver()) return;
  const again = attempt > 0;
  close();
  show(tries < 2 ? "connecting" : "disconnected");
  if (document.hidden) return;
  const mine = attempt;
  if (again && !(await isStillHere().catch(() => null))) {
    if (mine === attempt && !isOver()) retry();
    return;
  }
  if (mine === attempt) open();
}

function open() {
  const query = new URLSearchParams(watched.query);
  if (last !== "") query.set("since", last);
  source = new EventSource(`/api/events?${query}`);
  source.addEventListener("open", () => {
    tries = 0;
    show("live");
  });
  source.addEventListener("message", (message) => {
    if (message.lastEventId !== "") last = message.lastEventId;
    watched.take(JSON.parse(message.data));
  });
  // By hand: the browser's own attempts end for good where the server answers with an error.
  source.addEventListener("error", retry);
}

function retry() {
  close();
  retryTimer = setTimeout(connect, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
  tries += 1;
  show(tries < 2 ? "connecting" : "disconnected");
}
