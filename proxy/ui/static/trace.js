// An open trace: when one of its spans begins or ends, its page is fetched and merged.

import { ask, isOver } from "./ask.js";
import { tick } from "./clock.js";
import "./copy.js";
import { watch } from "./live.js";
import { merge, parse, remember } from "./merge.js";

const FLUSH_MS = 200; // events come in batches; one fetch serves them all
const REST_MS = 400; // between two fetches
const root = document.getElementById("trace");
let timer = 0;
let again = false;

// One at a time, so that no older answer is merged over a newer one.
async function flush() {
  again = false;
  try {
    await refresh();
  } catch {
    again = !isOver(); // the server is gone; live.js says so, and this goes on when it is back
  }
  timer = again ? setTimeout(flush, REST_MS) : 0;
}

async function refresh() {
  const answer = await ask(address());
  if (answer.status === 404) return void root.classList.add("gone");
  if (!answer.ok) throw new Error(String(answer.status));
  const at = tree()?.scrollTop;
  merge(root, parse(await answer.text()).getElementById("trace"));
  if (at) tree().scrollTop = at;
  tick(root);
}

function tree() {
  return root.querySelector(".tree ol");
}

function chosen() {
  return root.querySelector(".tree a[aria-current]");
}

// The span that is shown stays, also where one that began before it comes later.
function address() {
  return chosen()?.href ?? location.href;
}

function take(event) {
  if (event.type !== "resync" && event.trace_id !== root.dataset.trace) return;
  again = true;
  timer ||= setTimeout(flush, FLUSH_MS);
}

// Of a long tree the part that is looked at.
const row = chosen()?.closest("li");
if (row) tree().scrollTop = row.offsetTop - (tree().clientHeight - row.offsetHeight) / 2;
remember(root);
watch(root.dataset.session ? { session: root.dataset.session } : {}, take);
