// The list: selecting, paging, and what comes in while it is looked at.

import { change, page } from "./server.js";
import { $, $$, complain, tellTimes, toast } from "./ui.js";
import * as acts from "./acts.js";
import { takeShared } from "./shared.js";

const rows = $("#rows"), main = $("#main");
let current = null, anchor = null;

const all = () => $$(".row", rows);
const box = (row) => $("input", row);
const chosen = () => all().filter((row) => box(row).checked);
const ids = (list) => list.map((row) => row.dataset.id);
// What an action is for: the selected messages, else the one with the focus.
const targets = () => { const picked = chosen(); return picked.length ? picked : current && current.isConnected ? [current] : []; };

function drawSelection() {
  const number = chosen().length;
  for (const row of all()) row.classList.toggle("chosen", box(row).checked);
  $(".actions").hidden = !number;
  $(".idle").hidden = !!number;
  $("#selected").textContent = number ? `${number} selected` : "";
  const every = $("#select-all");
  every.checked = number > 0 && number === all().length;
  every.indeterminate = number > 0 && !every.checked;
}

function pick(row, on, range) {
  const list = all();
  const from = range && anchor && anchor.isConnected ? list.indexOf(anchor) : list.indexOf(row);
  const to = list.indexOf(row);
  for (let place = Math.min(from, to); place <= Math.max(from, to); place++) box(list[place]).checked = on;
  anchor = row;
  drawSelection();
}

export function selectAll() {
  const on = chosen().length < all().length;
  for (const row of all()) box(row).checked = on;
  drawSelection();
}

export function toggle(range) {
  const row = current || all()[0];
  if (!row) return;
  focus(row);
  pick(row, range || !box(row).checked, range);
}

function focus(row) {
  if (!row) return;
  current = row;
  $(".open", row).focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

export function move(step) {
  const row = current && current.isConnected
    ? step > 0 ? current.nextElementSibling : current.previousElementSibling
    : step > 0 ? rows.firstElementChild : rows.lastElementChild;
  if (row) focus(row);
  else if (step > 0) loadMore();
}

export function open() { if (current && current.isConnected) $(".open", current).click(); }

// Older messages, as the person scrolls.
let loading = null;
export function loadMore() {
  const link = $("#more");
  if (!link || loading) return loading;
  loading = page(link.href).then((other) => {
    const known = new Set(ids(all()));
    for (const row of $$(".row", other)) if (!known.has(row.dataset.id)) rows.append(document.adoptNode(row));
    const next = $("#more", other);
    if (next) link.href = next.href; else link.remove();
    tellTimes(rows);
    drawSelection();
  }).catch(complain).finally(() => { loading = null; watchEnd(); });
  return loading;
}

let watcher = null;
function watchEnd() {
  const link = $("#more");
  if (watcher) watcher.disconnect();
  if (!link) return;
  watcher = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) loadMore(); }, { root: main, rootMargin: "1200px" });
  watcher.observe(link);
}

// The sidebar, the counts and the first messages anew; rows that are there stay as they are, with focus and selection.
let running = false, again = false;
export async function refresh() {
  if (running) { again = true; return; }
  running = true;
  try {
    const before = changes, other = await page(location.href);
    if (before !== changes) { again = true; return; }
    takeShared(other);
    const list = all();
    const fresh = $$(".row", other), byId = new Map(list.map((row) => [row.dataset.id, row]));
    const freshIds = new Set(ids(fresh));
    const newest = list.length ? Number(list[0].dataset.id) : 0, top = main.scrollTop;
    const height = rows.scrollHeight;
    // What is gone from the part of the list that was asked for is deleted, or matches no more.
    const last = fresh.length ? Number(fresh[fresh.length - 1].dataset.id) : 0;
    const isAll = !$("#more", other);
    for (const row of list) if (!freshIds.has(row.dataset.id) && (isAll || Number(row.dataset.id) > last)) row.remove();
    // Many at once leave a gap to what is there: then only the first page is kept.
    const isGap = !isAll && !fresh.some((row) => byId.has(row.dataset.id));
    if (isGap) for (const row of list) row.remove();
    let place = null;
    for (const row of fresh) {
      const own = byId.get(row.dataset.id);
      if (own && own.isConnected) {
        own.className = row.className + (box(own).checked ? " chosen" : "");
        if (own.dataset.tags !== row.dataset.tags) { own.dataset.tags = row.dataset.tags; $(".what", own).replaceWith(document.adoptNode($(".what", row))); }
        place = own;
      } else {
        const adopted = document.adoptNode(row);
        if (Number(adopted.dataset.id) > newest && list.length) adopted.classList.add("fresh");
        if (place) place.after(adopted); else rows.prepend(adopted);
        place = adopted;
      }
    }
    // What was loaded as the person scrolled stays, with the place from which it goes on.
    const more = $("#more");
    if (more && (isAll || isGap)) more.remove();
    if (isGap) rows.after(document.adoptNode($("#more", other)));
    const empty = $("#empty"), otherEmpty = $("#empty", other);
    if (empty) empty.remove();
    if (otherEmpty) main.append(document.adoptNode(otherEmpty));
    // A person who reads further down stays there.
    if (top > 0) main.scrollTop = top + rows.scrollHeight - height;
    tellTimes(main);
    drawSelection();
    watchEnd();
  } catch (error) {
    complain(error);
  } finally {
    running = false;
    if (again) { again = false; refresh(); }
  }
}

// What a person does shows at once; an answer that the server gave before does not undo it.
let changes = 0;

async function mark(list, read) {
  if (!list.length) return;
  changes++;
  for (const row of list) {
    row.classList.toggle("unread", !read);
    box(row).checked = false;
  }
  drawSelection();
  try { await acts.mark(ids(list), read); } finally { await refresh(); }
}

export const doings = {
  read: () => mark(targets(), true),
  unread: () => mark(targets(), false),
  "toggle-read"() {
    const list = targets();
    return mark(list, list.some((row) => row.classList.contains("unread")));
  },
  async delete() {
    const list = targets();
    if (!list.length) return;
    const every = all(), gone = new Set(list), place = every.indexOf(list[list.length - 1]);
    const next = every.slice(place + 1).find((row) => !gone.has(row)) || every.slice(0, place).reverse().find((row) => !gone.has(row));
    changes++;
    for (const row of list) row.remove();
    if (next && list.includes(current)) focus(next);
    drawSelection();
    try { await acts.remove(ids(list), refresh); } finally { await refresh(); }
  },
  tag() {
    const list = targets();
    if (list.length) acts.editTags(list.map((row) => ({ id: row.dataset.id, tags: JSON.parse(row.dataset.tags) })), () => refresh());
  },
  async "all-read"() {
    const query = queryOfPlace();
    await change("PUT", "/api/v1/messages" + query.mailbox, query.search ? { Read: true, Search: query.search } : { Read: true });
    await refresh();
  },
  async "delete-all"() {
    const query = queryOfPlace();
    const total = $("#total").textContent;
    if (!confirm(`Delete ${total} ${total === "1" ? "message" : "messages"}? There is no undo.`)) return;
    if (query.search) await change("DELETE", `/api/v1/search?query=${encodeURIComponent(query.search)}${query.mailbox.replace("?", "&")}`);
    else await change("DELETE", "/api/v1/messages" + query.mailbox, {});
    toast(`${total} deleted`);
    await refresh();
  },
  async "send-test"() { await acts.sendTest(); await refresh(); },
  async undo() { await acts.undo(refresh); },
};

function queryOfPlace() {
  const parameters = new URLSearchParams(location.search);
  const mailbox = parameters.get("mailbox");
  return { search: parameters.get("q") || "", mailbox: mailbox === null ? "" : `?mailbox=${encodeURIComponent(mailbox)}` };
}

export function start() {
  rows.addEventListener("click", (event) => {
    const label = event.target.closest(".pick");
    if (!label || event.target.tagName !== "INPUT") return;
    const row = label.closest(".row");
    current = row;
    pick(row, event.target.checked, event.shiftKey);
  });
  // Shift with a click on the label would select text.
  rows.addEventListener("mousedown", (event) => { if (event.shiftKey && event.target.closest(".pick")) event.preventDefault(); });
  rows.addEventListener("focusin", (event) => { current = event.target.closest(".row") || current; });
  $("#select-all").addEventListener("change", (event) => { for (const row of all()) box(row).checked = event.target.checked; drawSelection(); });
  const from = location.hash.match(/^#m(\d+)$/);
  if (from) focus(document.getElementById(`m${from[1]}`));
  watchEnd();
  drawSelection();
  acts.recall(refresh);
  addEventListener("pageshow", (event) => { if (event.persisted) refresh(); });
}
