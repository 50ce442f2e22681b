// An open trace: when one of its spans begins or ends, its page is fetched and merged.

import { tick } from "./clock.js";
import "./copy.js";
import { watch } from "./live.js";
import { merge, parse, remember } from "./merge.js";
import { read, refetching } from "./refetch.js";

const FLUSH_MS = 200;
const root = document.getElementById("trace");
const schedule = refetching(refresh, FLUSH_MS);

async function refresh() {
  const text = await read(address(root));
  root.classList.toggle("gone", text === null);
  if (text === null) return;
  const fresh = parse(text).getElementById("trace");
  // Its call moved into a trace of another session, of which this page hears nothing.
  const { session } = root.dataset;
  if (session && session !== fresh.dataset.session) return location.replace(address(fresh));
  const at = tree()?.scrollTop;
  merge(root, fresh);
  root.dataset.trace = fresh.dataset.trace; // another one, where its call moved
  if (at) tree().scrollTop = at;
  tick(root);
}

function tree() {
  return root.querySelector(".tree ol");
}

function chosen(page) {
  return page.querySelector(".tree a[aria-current]");
}

// The span that is shown stays, also where one that began before it comes later.
function address(page) {
  return chosen(page)?.href ?? location.href;
}

function take(event) {
  if (event.type !== "resync" && event.trace_id !== root.dataset.trace) return;
  schedule();
}

// Of a long tree the part that is looked at.
const row = chosen(root)?.closest("li");
if (row) tree().scrollTop = row.offsetTop - (tree().clientHeight - row.offsetHeight) / 2;
remember(root);
watch(root.dataset.session ? { session: root.dataset.session } : {}, take);
