// Lets relative times tick, and says in the reader's own time when it was. `ago` is that of view.py.

const STEPS = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [30 * 86400, 86400, "d"]];

export function ago(iso, now) {
  const seconds = Math.trunc((now - Date.parse(iso)) / 1000);
  if (seconds < 5) return "now";
  for (const [end, size, unit] of STEPS) {
    if (seconds < end) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return iso.slice(0, 10);
}

export function tick(root = document) {
  const now = Date.now();
  for (const time of root.querySelectorAll("time[data-ago]")) {
    const text = ago(time.dateTime, now);
    if (time.textContent !== text) time.textContent = text;
    if (!time.dataset.local) {
      time.dataset.local = "1";
      time.title = `${new Date(time.dateTime).toLocaleString()}\n${time.title}`;
    }
  }
}

tick();
setInterval(tick, 1000);
