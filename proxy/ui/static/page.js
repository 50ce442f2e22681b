// What every page has: ticking times, copy buttons, the keyboard and its help, the menu.

import "./clock.js";
import "./keys.js";

// What a browser kept to go back to may be of somebody who signed out since.
addEventListener("pageshow", (event) => {
  if (event.persisted && document.querySelector("form[action='/sign-out']")) location.reload();
});

// A menu closes as menus do; without JavaScript, by what opened it.
const menu = document.getElementById("menu");
document.addEventListener("click", (event) => {
  if (menu?.open && !menu.contains(event.target)) menu.open = false;
});
menu?.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
