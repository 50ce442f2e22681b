// Completion in the search bar: keys of the language, then values that were seen. A combobox with a
// listbox (ARIA practices): arrows choose, Tab or Enter accepts, Escape closes. Where the server
// cannot complete, the bar is a plain field.

import { ask } from "./ask.js";

const WAIT_MS = 80;
let input = null;
let list = null;
let options = [];
let chosen = -1;
let span = [0, 0];
let timer = 0;
let asked = 0;
let able = true;

// The server counts characters; a string of this language counts halves of some.
const characters = (text) => [...text].length;
const place = (text, count) => [...text].slice(0, count).join("").length;

function close() {
  list.hidden = true;
  chosen = -1;
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
}

function choose(n) {
  chosen = n;
  [...list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === n)));
  if (n < 0) return input.removeAttribute("aria-activedescendant");
  input.setAttribute("aria-activedescendant", list.children[n].id);
  list.children[n].scrollIntoView({ block: "nearest" });
}

function accept(n) {
  const text = options[n];
  // A key goes on with its value, a value is followed by the next part.
  const isKey = text.endsWith(":");
  const rest = input.value.slice(span[1]);
  const end = isKey || rest.startsWith(" ") ? "" : " ";
  input.value = input.value.slice(0, span[0]) + text + end + rest;
  const at = span[0] + text.length + (isKey ? 0 : 1);
  input.setSelectionRange(at, at);
  close();
  complete();
}

async function complete() {
  if (!able) return;
  const mine = ++asked;
  const text = input.value;
  const query = new URLSearchParams({
    q: text,
    at: characters(text.slice(0, input.selectionStart)),
    rows: input.dataset.rows,
  });
  const answer = await ask(`/api/search/suggest?${query}`).catch(() => null);
  if (!answer?.ok) {
    able = answer?.status !== 404;
    return close();
  }
  const found = await answer.json();
  if (mine !== asked || document.activeElement !== input) return;
  options = found.suggestions.map((each) => each.text).slice(0, 12);
  span = [place(text, found.start), place(text, found.end)];
  list.replaceChildren(
    ...found.suggestions.slice(0, 12).map((each, n) => {
      const option = document.createElement("li");
      option.id = `q-option-${n}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      const name = document.createElement("bdi");
      name.textContent = each.text;
      option.append(name);
      if (each.meaning) {
        const meaning = document.createElement("span");
        meaning.textContent = each.meaning;
        option.append(meaning);
      }
      return option;
    }),
  );
  chosen = -1;
  list.hidden = options.length === 0;
  input.setAttribute("aria-expanded", String(!list.hidden));
}

function onKey(event) {
  const open = !list.hidden;
  if (event.key === "Escape") {
    if (open) close();
    else input.blur();
  } else if (event.key === "ArrowDown" && open) choose((chosen + 1) % options.length);
  else if (event.key === "ArrowUp" && open) choose((chosen <= 0 ? options.length : chosen) - 1);
  else if (event.key === "Tab" && open && !event.shiftKey) accept(Math.max(chosen, 0));
  else if (event.key === "Enter" && open && chosen >= 0) accept(chosen);
  else return;
  event.preventDefault();
}

export function attach() {
  input = document.getElementById("q");
  if (!input) return;
  list = document.createElement("ul");
  list.id = "q-options";
  list.className = "options";
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Completions");
  input.after(list);
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-expanded", "false");
  input.setAttribute("aria-controls", list.id);
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(complete, WAIT_MS);
  };
  input.addEventListener("input", soon);
  input.addEventListener("focus", soon);
  input.addEventListener("blur", () => {
    clearTimeout(timer);
    close();
  });
  input.addEventListener("keydown", onKey);
  // Before the field loses the focus.
  list.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    const option = event.target.closest("[role=option]");
    if (option) accept([...list.children].indexOf(option));
  });
}
