// Where the page starts: clicks and keys lead to what is done.

import { base } from "./server.js";
import { $, complain, copy, show, switchTheme, tellTimes } from "./ui.js";
import * as live from "./live.js";

const isList = document.body.classList.contains("list-page");
const isMessage = document.body.classList.contains("message-page");
const view = isList ? await import("./list.js") : isMessage ? await import("./message.js") : null;

const doings = {
  keys: () => show("keys"),
  "search-help": () => show("search-help"),
  theme: switchTheme,
  notify: live.switchNotifications,
  ...(view ? view.doings : {}),
};

function perform(name) {
  const doing = doings[name];
  if (doing) Promise.resolve().then(doing).catch(complain);
  return !!doing;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do], [data-copy]");
  if (!button) return;
  if (button.dataset.copy !== undefined) copy(button.dataset.copy);
  else perform(button.dataset.do);
});

const PLACES = { i: "/", u: "/?q=is%3Aunread", a: "/?q=has%3Aattachment", r: "/?q=is%3Arefused" };
let prefix = null;

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const field = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (prefix) {
    prefix = null;
    if (PLACES[event.key]) { event.preventDefault(); location.assign(base + PLACES[event.key]); }
    return;
  }
  const done = anywhere(event) || (isList && inList(event)) || (isMessage && inMessage(event));
  if (done) event.preventDefault();
}

function anywhere(event) {
  switch (event.key) {
    case "/": $("#search").focus(); $("#search").select(); return true;
    case "?": show("keys"); return true;
    case "g": prefix = "g"; setTimeout(() => { prefix = null; }, 1500); return true;
    case "z": return perform("undo");
    case "d": switchTheme(); return true;
    case "t": return perform("tag");
    case "r": return perform("toggle-read");
    case "#": case "Delete": return perform("delete");
    default: return false;
  }
}

function inList(event) {
  switch (event.key) {
    case "j": view.move(1); return true;
    case "k": view.move(-1); return true;
    case "ArrowDown": view.move(1); return true;
    case "ArrowUp": view.move(-1); return true;
    case "o": view.open(); return true;
    case "x": view.toggle(false); return true;
    case "X": view.toggle(true); return true;
    case "*": view.selectAll(); return true;
    default: return false;
  }
}

function inMessage(event) {
  if (/^[1-9]$/.test(event.key)) { view.tab(event.key); return true; }
  switch (event.key) {
    case "j": case "k": case "u": view.go(event.key); return true;
    case "Escape": view.go("u"); return true;
    case "w": view.nextWidth(); return true;
    default: return false;
  }
}

document.addEventListener("keydown", key);
tellTimes();
setInterval(tellTimes, 30000);
if (view) view.start();
live.start(isList ? view.refresh : null);
document.documentElement.dataset.ready = "1";
