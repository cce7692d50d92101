// One message: its tabs, and what can be done to it.

import { change, page } from "./server.js";
import { $, complain, element, show, tellTimes, toast } from "./ui.js";
import * as acts from "./acts.js";
import { takeShared } from "./shared.js";

const bar = $("#message");
const id = bar && bar.dataset.id;
const WIDTHS = ["phone", "tablet", "full"];

async function openTab(url, push) {
  const other = await page(url);
  $("#panel").replaceWith(document.adoptNode($("#panel", other)));
  $(".tabs").replaceWith(document.adoptNode($(".tabs", other)));
  if (push) history.pushState(null, "", url);
  tellTimes($("#panel"));
  applyWidth();
}

function applyWidth() {
  const frame = $(".frame-box");
  if (!frame) return;
  let width = "full";
  try { width = localStorage.getItem("width") || "full"; } catch (_) { /* full */ }
  frame.dataset.width = width;
  const radio = $(`.widths input[value="${width}"]`);
  if (radio) radio.checked = true;
}

function setWidth(width) {
  try { localStorage.setItem("width", width); } catch (_) { /* for this page only */ }
  const frame = $(".frame-box");
  if (frame) frame.dataset.width = width;
  const radio = $(`.widths input[value="${width}"]`);
  if (radio) radio.checked = true;
}

export function nextWidth() {
  const frame = $(".frame-box");
  if (frame) setWidth(WIDTHS[(WIDTHS.indexOf(frame.dataset.width) + 1) % WIDTHS.length]);
}

export function tab(number) { const link = $(`.tabs a[data-number="${number}"]`); if (link) link.click(); }

function leave(url) {
  try { sessionStorage.setItem("tell", "1"); } catch (_) { /* nothing is told */ }
  location.assign(url);
}

export const doings = {
  async unread() { await acts.mark([id], false); location.assign($('[data-key="u"]', bar).href); },
  async "toggle-read"() { await doings.unread(); },
  async delete() {
    const next = $('[data-key="j"][href]', bar) || $('[data-key="k"][href]', bar) || $('[data-key="u"]', bar);
    await acts.remove([id]);
    leave(next.href);
  },
  tag() {
    acts.editTags([{ id, tags: JSON.parse(bar.dataset.tags) }], async ([one]) => {
      bar.dataset.tags = JSON.stringify(one.tags);
      const other = await page(location.href);
      $("#badges").replaceWith(document.adoptNode($("#badges", other)));
      takeShared(other);
    });
  },
  release() { show("release-dialog"); },
  async "check-links"() {
    const button = $('[data-do="check-links"]'), results = $("#link-results");
    button.disabled = true;
    button.textContent = "Asking …";
    try {
      const found = await (await change("POST", `/view/${id}/links`)).json();
      results.replaceChildren(...found.map((one) => element(
        "li", {}, element("span", { class: `verdict ${one.Good ? "good" : "bad"}` }, one.Good ? "works" : "broken"),
        element("span", {}, one.URL, " ", element("span", { class: "small" }, one.Text)))));
      button.remove();
    } finally {
      button.disabled = false;
      button.textContent = "Ask again";
    }
  },
  async undo() { await acts.undo(() => location.reload()); },
};

export function go(key) {
  const link = $(`[data-key="${key}"][href]`, bar);
  if (link) location.assign(link.href);
}

export function start() {
  document.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = event.target.closest(".tabs a, a[data-remote]");
    if (!link) return;
    event.preventDefault();
    openTab(link.href, true).catch(() => location.assign(link.href));
  });
  document.addEventListener("change", (event) => { if (event.target.name === "width") setWidth(event.target.value); });
  addEventListener("popstate", () => openTab(location.href, false).catch(complain));
  const form = $('[data-form="release"]');
  if (form) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const to = form.elements.to.value.split(",").map((one) => one.trim()).filter(Boolean);
      try {
        await change("POST", `/api/v1/message/${id}/release`, { To: to });
        $("#release-dialog").close();
        toast(`Sent to ${to.join(", ")}`);
      } catch (error) { complain(error); }
    });
  }
  applyWidth();
  acts.recall(() => location.reload());
}
