// Requests of an open page. All are about the project that the page was made for, whatever the
// browser looks at by now. Where the server does not let the page in any more, or refuses what it
// asks for, it says so in a line, and asks nothing further; what comes instead of an answer never
// gets into the page.

const HEADER = "X-Traceway-Project";
const ENDS = ["unauthorized", "forbidden", "other_project", "unknown_project"];
const { project } = document.documentElement.dataset;
const MOVED = ["All sessions", "/sessions"];
let over = false;

export class Ended extends Error {}

export const isOver = () => over;

// Fetches an address; throws Ended where the page may not have it any more.
export async function ask(address, how = {}) {
  if (over) throw new Ended();
  const answer = await fetch(address, { ...how, headers: { [HEADER]: project } });
  refuse(answer);
  return answer;
}

// Tells whether the browser is still let in, and still looks at the page's project: an EventSource
// can neither say which it wants nor see why it gets none.
export async function isStillHere() {
  if (over) return false;
  const answer = await fetch("/api/self");
  try {
    refuse(answer);
  } catch {
    return false;
  }
  const now = answer.ok ? (await answer.json()).project : project;
  if (now !== project) {
    end(`This browser looks at project ${now} now; this page is of ${project}.`, MOVED);
  }
  return !over;
}

// Ends a page that would be refused the same each time it asks.
export function refused(status) {
  const here = location.pathname + location.search; // with a #fragment a link would not load it
  end(`The server refuses to give this page anew (${status}).`, ["Reload", here]);
  throw new Ended();
}

function refuse(answer) {
  const why = answer.headers.get("X-Traceway-Error");
  if (answer.status < 400 || !ENDS.includes(why)) return;
  if (why === "unauthorized") end("You are signed out.", ["Sign in", signIn()]);
  else end("You may not see this any more.", MOVED);
  throw new Ended();
}

function signIn() {
  return `/sign-in?${new URLSearchParams({ back: location.pathname + location.search })}`;
}

function end(text, [name, address]) {
  if (over) return;
  over = true;
  const line = document.createElement("p");
  const link = document.createElement("a");
  line.className = "ended";
  line.setAttribute("role", "alert");
  link.textContent = name;
  link.href = address;
  line.append(`${text} This page is not updated any more. `, link);
  document.getElementById("main").before(line);
  dispatchEvent(new Event("ended"));
}
