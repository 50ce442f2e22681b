// The connection to /api/events, and the indicator that says how it is.
//
// Owns one EventSource per page. It begins after the sequence number in <html data-since>, replays
// by Last-Event-ID, and asks for a fresh view when events were lost ("resync"). What events mean
// is the caller's: watch(query, take) calls take(event) for each, and take({type: "resync"}) when
// the page must be read anew.

const button = document.getElementById("live");
const text = document.getElementById("live-text");
const WORDS = { live: "Live", connecting: "Connecting", disconnected: "Disconnected", off: "Paused" };
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

let source = null;
let last = document.documentElement.dataset.since ?? "";
let retries = 0;
let timer = 0;
let watched = null;

function show(state) {
  button.hidden = false;
  button.dataset.state = state;
  button.setAttribute("aria-pressed", String(state !== "off"));
  text.textContent = WORDS[state];
}

export function watch(query, take) {
  watched = { query, take };
  button.addEventListener("click", toggle);
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => event.persisted && watched && !source && connect());
  connect();
}

export function toggle() {
  if (!watched) return;
  if (button.dataset.state === "disconnected" || button.dataset.state === "off") return connect();
  stop();
  show("off");
}

function stop() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function connect() {
  stop();
  show(retries < 2 ? "connecting" : "disconnected");
  const query = new URLSearchParams(watched.query);
  if (last !== "") query.set("since", last);
  source = new EventSource(`/api/events?${query}`);
  source.addEventListener("open", () => {
    retries = 0;
    show("live");
  });
  source.addEventListener("message", (message) => {
    if (message.lastEventId !== "") last = message.lastEventId;
    watched.take(JSON.parse(message.data));
  });
  source.addEventListener("error", () => {
    // The browser's own attempts pause for seconds and end for good on an HTTP error.
    stop();
    const wait = RETRY_MS[Math.min(retries, RETRY_MS.length - 1)];
    retries += 1;
    show(retries < 2 ? "connecting" : "disconnected");
    timer = setTimeout(connect, wait);
  });
}
