// Makes a part of the page equal to what the server renders now, touching only what is different:
// what a reader has opened, marked or focused stays as it is.
//
// Children have a key (id or data-id) and are kept, moved, replaced or removed by it; [data-keyed]
// are merged child by child. Whether one changed is told by the server's own markup, then and now.

const rendered = new WeakMap();

const key = (element) => element.id || element.dataset.id || element.tagName;

export function remember(root) {
  for (const element of [root, ...root.querySelectorAll("*")]) {
    if (element.parentElement?.hasAttribute("data-keyed") || element.parentElement === root) {
      rendered.set(element, element.outerHTML);
    }
  }
}

export function parse(text) {
  return new DOMParser().parseFromString(text, "text/html");
}

export function merge(old, fresh) {
  const there = new Map([...old.children].map((element) => [key(element), element]));
  let next = old.firstElementChild;
  for (const element of [...fresh.children]) {
    const name = key(element);
    const before = there.get(name);
    there.delete(name);
    let now = before;
    if (!before) now = adopt(element);
    else if (element.hasAttribute("data-keyed")) {
      describe(before, element);
      merge(before, element);
    } else if (rendered.get(before) !== element.outerHTML) {
      now = adopt(element);
      keep(before, now);
      if (next === before) next = now;
      before.replaceWith(now);
    }
    if (now === next) next = next.nextElementSibling;
    else old.insertBefore(now, next);
  }
  for (const gone of there.values()) gone.remove();
}

function describe(old, fresh) {
  for (const name of old.getAttributeNames()) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
}

function adopt(element) {
  const now = document.importNode(element, true);
  rendered.set(now, element.outerHTML);
  for (const child of now.querySelectorAll("[data-keyed] > *")) rendered.set(child, child.outerHTML);
  return now;
}

// Takes over what the reader did: opened and closed folds, what is typed in an open one, the current
// row, the focus.
function keep(before, now) {
  for (const fold of before.querySelectorAll("details[id]")) {
    const same = now.querySelector(`#${CSS.escape(fold.id)}`);
    if (same) same.open = fold.open;
  }
  for (const field of before.querySelectorAll("input[id]")) {
    const same = now.querySelector(`#${CSS.escape(field.id)}`);
    if (same && before.querySelector("details[open]")) same.value = field.value;
  }
  if (before.classList.contains("current")) now.classList.add("current");
  if (!before.contains(document.activeElement)) return;
  const all = (root) => [...root.querySelectorAll("a, button, input, summary, [tabindex]")];
  const at = all(before).indexOf(document.activeElement);
  queueMicrotask(() => all(now)[at]?.focus({ preventScroll: true }));
}
