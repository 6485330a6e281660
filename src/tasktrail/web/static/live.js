// Follows what changes: one stream of events says that something has, and the page fetches what it shows.
const LEAST = 1500; // between two fetches, in milliseconds

export function follow(body, shown) {
  const on = () => body.dataset.liveOn; // an operation that has ended changes no more
  const label = document.getElementById("live");
  if (on() === "none" || !("EventSource" in window)) return;
  const domain = body.dataset.liveDomain;
  let source = null;
  let last = null;
  let fetchedAt = 0;
  let timer = null;

  const say = (words, isOn) => {
    label.hidden = false;
    label.classList.toggle("off", !isOn);
    if (label.textContent !== words) label.textContent = words;
  };
  const mark = (seen) => {
    if (on() === "look") return seen.at;
    if (on() === "operations") return seen.operations;
    if (domain) return seen.domains[domain];
    return Object.values(seen.domains).join() + seen.at.slice(0, 16);
  };
  const refresh = () => {
    if (timer) return;
    timer = setTimeout(async () => {
      timer = null;
      if (document.hidden) return;
      fetchedAt = Date.now();
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html", "X-Live": "1" } });
        if (answer.redirected) return stop("logged out");
        if (!answer.ok) return say("cannot refresh", false);
        replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
        shown();
        if (on() === "none") {
          stop("");
          label.hidden = true;
        }
      } catch {
        say("not connected", false);
      }
    }, Math.max(0, fetchedAt + LEAST - Date.now()));
  };
  const stop = (words) => {
    source?.close();
    source = null;
    say(words, false);
  };
  const start = () => {
    if (source || document.hidden || on() === "none") return;
    source = new EventSource(body.dataset.live);
    source.addEventListener("open", () => say("live", true));
    source.addEventListener("look", (event) => {
      say("live", true);
      const now = mark(JSON.parse(event.data));
      if (last !== null && now !== last) refresh();
      last = now;
    });
    source.addEventListener("trouble", () => say("database not reached", false));
    source.addEventListener("error", () => say("not connected", false));
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) start();
    else if (source) stop("paused");
  });
  start();
}

function replace(fresh) {
  document.title = fresh.title;
  for (const part of document.querySelectorAll("[data-part]")) {
    const other = fresh.getElementById(part.id);
    if (!other || other.innerHTML === part.dataset.was) continue;
    const was = other.innerHTML;
    if (part.innerHTML !== was) keep(part, () => { part.innerHTML = was; });
    part.dataset.was = was;
  }
  document.body.dataset.liveOn = fresh.body.dataset.liveOn;
}

// What somebody has selected, opened or focused stays so.
function keep(part, change) {
  const checked = [...part.querySelectorAll("input:checked")].map((box) => `${box.name}=${box.value}`);
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  const focused = part.contains(document.activeElement) ? path(document.activeElement, part) : null;
  change();
  for (const box of part.querySelectorAll("input[type=checkbox]")) {
    box.checked = checked.includes(`${box.name}=${box.value}`);
  }
  part.querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? one.open; });
  if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
}

function path(element, part) {
  const steps = [];
  for (let at = element; at !== part; at = at.parentElement) {
    steps.unshift(`${at.localName}:nth-child(${[...at.parentElement.children].indexOf(at) + 1})`);
  }
  return steps.join(" > ");
}
