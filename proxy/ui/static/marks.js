// Stars and names without a new page. A form that marks a session is sent in the background, and
// `done` is told of it, to show what the server renders now. Whatever goes wrong there goes the way
// of a form without a script, whose answer is a page that says what.

import { ask, Ended } from "./ask.js";

export function onMark(done) {
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form.mark")) return;
    event.preventDefault();
    const button = event.submitter;
    const body = new URLSearchParams(new FormData(form, button));
    try {
      // It answers with the way to a page, which nobody needs.
      const answer = await ask(form.action, { method: "POST", body, redirect: "manual" });
      if (answer.type !== "opaqueredirect") throw new Error(String(answer.status));
    } catch (error) {
      if (error instanceof Ended) return; // as ask.js says
      // What the button says is not sent by a script by itself.
      const field = document.createElement("input");
      Object.assign(field, { type: "hidden", name: button?.name ?? "", value: button?.value ?? "" });
      form.append(field);
      return void form.submit();
    }
    const fold = form.closest("details");
    if (fold) {
      fold.open = false;
      fold.querySelector("summary").focus();
    }
    done(form);
  });
}
