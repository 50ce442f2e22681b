// Links that lead to a text copy it instead; without JavaScript they show it.

import { ask, isOver } from "./ask.js";
import { say } from "./keys.js";

document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-copy-from]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  try {
    const answer = await ask(link.href);
    if (!answer.ok) throw new Error(String(answer.status));
    await navigator.clipboard.writeText(await answer.text());
  } catch {
    if (!isOver()) location.assign(link.href);
    return;
  }
  link.classList.add("done");
  say("Copied");
  setTimeout(() => link.classList.remove("done"), 1200);
});
