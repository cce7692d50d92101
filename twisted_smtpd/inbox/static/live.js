// Live updates, and notifications for those who want them.
//
// A browser keeps six connections to a host. So of all tabs one listens to the server, and tells the others; where that
// is not possible, the tabs that can be seen listen.

import { base, page } from "./server.js";
import { $ } from "./ui.js";
import { takeShared } from "./shared.js";

const KINDS = ["new", "seen", "unseen", "tags", "deleted", "restored", "reset"];
const channel = "BroadcastChannel" in window ? new BroadcastChannel(`smtpd-inbox${base}`) : null;
let refresh = async () => takeShared(await page(location.href));
let timer = null, source = null, state = "off";

function say(now) {
  state = now;
  const live = $("#live");
  live.dataset.state = now === "on" ? "on" : "off";
  $(".word", live).textContent = { on: "live", off: "not live", waiting: "connecting …" }[now];
}

// Many changes at once are one look at the server.
function soon() {
  if (timer) return;
  timer = setTimeout(() => { timer = null; Promise.resolve(refresh()).catch(() => {}); }, 250);
}

const wants = () => { try { return localStorage.getItem("notify") === "1"; } catch (_) { return false; } };

function notify(data) {
  if (!wants() || !document.hidden || Notification.permission !== "granted") return;
  let message = null;
  try { message = JSON.parse(data).Message; } catch (_) { /* an event without its message */ }
  if (!message) return;
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

function tell(what) { if (channel) channel.postMessage(what); }

function listen() {
  source = new EventSource(`${base}/api/v1/events`);
  // What has changed since this page was made, and before the server knew that it listens.
  source.onopen = () => { say("on"); tell({ state: "on" }); soon(); tell({ change: true }); };
  source.onerror = () => { const now = source.readyState === EventSource.CLOSED ? "off" : "waiting"; say(now); tell({ state: now }); };
  for (const kind of KINDS) {
    source.addEventListener(kind, (event) => {
      soon();
      tell({ change: true });
      if (kind === "new") notify(event.data);
    });
  }
}

function close() { if (source) source.close(); source = null; }

function follow() {
  channel.addEventListener("message", ({ data }) => {
    if (data.ask && source) tell({ state });
    if (data.state && !source) say(data.state);
    if (data.change) soon();
  });
  tell({ ask: true });
  navigator.locks.request(`smtpd-inbox${base}`, () => new Promise((resolve) => {
    listen();
    addEventListener("pagehide", () => { close(); resolve(); });
  }));
}

function listenWhileSeen() {
  const look = () => {
    if (document.hidden) close();
    else if (!source) listen();
  };
  document.addEventListener("visibilitychange", look);
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) look(); });
  look();
}

export function start(how) {
  if (how) refresh = how;
  drawBell();
  if (channel && navigator.locks) follow();
  else listenWhileSeen();
}
