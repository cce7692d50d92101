// Live updates, and notifications for those who want them.

import { base, page } from "./server.js";
import { $ } from "./ui.js";
import { takeShared } from "./shared.js";

const root = document.documentElement;
let refresh = async () => takeShared(await page(location.href));
let timer = null;

function say(state, word) {
  const live = $("#live");
  live.dataset.state = state;
  $(".word", live).textContent = word;
}

// Many changes at once are one look at the server.
function soon() {
  if (timer) return;
  timer = setTimeout(() => { timer = null; Promise.resolve(refresh()).catch(() => {}); }, 250);
}

const wants = () => { try { return localStorage.getItem("notify") === "1"; } catch (_) { return false; } };

function notify(message) {
  if (!message || !wants() || !document.hidden || Notification.permission !== "granted") return;
  const sender = message.From ? message.From.Name || message.From.Address : message.MailFrom;
  const note = new Notification(message.Subject || "(no subject)", { body: `${sender || ""}\n${message.Snippet || ""}`.trim(), tag: "smtpd-inbox", icon: `${base}/static/favicon.svg` });
  note.onclick = () => { window.focus(); location.assign(`${base}/view/${message.ID}`); note.close(); };
}

function drawBell() {
  const bell = $('[data-do="notify"]');
  if (!("Notification" in window) || Notification.permission === "denied") { bell.hidden = true; return; }
  bell.hidden = false;
  bell.setAttribute("aria-pressed", String(wants() && Notification.permission === "granted"));
}

export async function switchNotifications() {
  const on = !(wants() && Notification.permission === "granted");
  if (on && (await Notification.requestPermission()) !== "granted") { drawBell(); return; }
  try { localStorage.setItem("notify", on ? "1" : "0"); } catch (_) { /* for this page only */ }
  drawBell();
}

export function start(how) {
  if (how) refresh = how;
  drawBell();
  const mailbox = root.dataset.scoped ? `?mailbox=${encodeURIComponent(root.dataset.mailbox)}` : "";
  const source = new EventSource(`${base}/api/v1/events${mailbox}`);
  source.onopen = () => say("on", "live");
  source.onerror = () => say("off", source.readyState === EventSource.CLOSED ? "not live" : "connecting …");
  for (const kind of ["seen", "unseen", "tags", "deleted", "restored", "reset"]) source.addEventListener(kind, soon);
  source.addEventListener("new", (event) => {
    soon();
    try { notify(JSON.parse(event.data).Message); } catch (_) { /* an event without its message */ }
  });
  // A browser keeps six connections to a host: a page that is left gives its own back.
  addEventListener("pagehide", () => source.close());
}
