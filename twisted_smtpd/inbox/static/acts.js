// What can be done to messages, from the list and from a message.

import { change } from "./server.js";
import { $, complain, element, show, toast } from "./ui.js";

const messages = (number) => (number === 1 ? "1 message" : `${number.toLocaleString()} messages`);
let deleted = [], deleting = null;

export async function mark(ids, read) { await change("PUT", "/api/v1/messages", { IDs: ids, Read: read }); }

export async function remove(ids, after) {
  // Who undoes at once waits for the deletion.
  deleted = ids;
  deleting = change("DELETE", "/api/v1/messages", { IDs: ids });
  await deleting;
  try { sessionStorage.setItem("deleted", JSON.stringify(ids)); } catch (_) { /* for this page only */ }
  offerUndo(after);
}

export function offerUndo(after) {
  toast(`${messages(deleted.length)} deleted`, "Undo", () => undo(after).catch(complain), 10);
}

// On the page that comes after a deletion it can still be undone.
export function recall(after) {
  try { deleted = JSON.parse(sessionStorage.getItem("deleted") || "[]"); } catch (_) { deleted = []; }
  let fresh = null;
  try { fresh = sessionStorage.getItem("tell"); sessionStorage.removeItem("tell"); } catch (_) { /* nothing to tell */ }
  if (fresh && deleted.length) offerUndo(after);
}

export async function undo(after) {
  if (!deleted.length) { toast("There is nothing to undo"); return; }
  await deleting;
  await change("POST", "/api/v1/messages/restore", { IDs: deleted });
  toast(`${messages(deleted.length)} restored`);
  deleted = [];
  try { sessionStorage.removeItem("deleted"); } catch (_) { /* as above */ }
  if (after) after();
}

// The dialog for tags: `chosen` is a list of {id, tags}.
export function editTags(chosen, after) {
  const dialog = $("#tag-dialog"), form = $("form.fields", dialog), input = $("#tag-input"), chips = $("#tag-chips");
  const all = () => [...new Set(chosen.flatMap((one) => one.tags))].sort();
  const put = async (tagsOf) => {
    const groups = new Map();
    for (const one of chosen) {
      one.tags = tagsOf(one.tags);
      const key = JSON.stringify(one.tags);
      groups.set(key, [...(groups.get(key) || []), one.id]);
    }
    for (const [key, ids] of groups) await change("PUT", "/api/v1/tags", { IDs: ids, Tags: JSON.parse(key) });
    draw();
    after(chosen);
  };
  const draw = () => chips.replaceChildren(...all().map((tag) => element(
    "button", { type: "button", class: "badge", "aria-label": `Remove the tag ${tag}`, onclick: () => put((tags) => tags.filter((other) => other !== tag)).catch(complain) }, tag, " ×")));
  form.onsubmit = (event) => {
    event.preventDefault();
    const tag = input.value.trim();
    input.value = "";
    if (tag) put((tags) => [...new Set([...tags, tag])]).catch(complain);
    else dialog.close();
  };
  draw();
  show("tag-dialog");
  input.focus();
}

export async function sendTest() {
  await change("POST", "/api/v1/send", {
    From: { Email: "hello@example.org", Name: "Your inbox" },
    To: [{ Email: "you@example.org", Name: "You" }],
    Subject: "It works: this is your first message",
    Text: "Hello,\n\nall mail that your program sends to this server shows up here, and goes nowhere else.\n\nPress ? to see the keys.\n",
    HTML: "<!doctype html><body style=\"margin:0;background:#f4f6fb\"><table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\"><tr><td align=\"center\" style=\"padding:32px 16px\"><table role=\"presentation\" width=\"520\" style=\"max-width:520px;background:#ffffff;border-radius:12px\"><tr><td style=\"padding:32px;font:16px/1.6 system-ui,sans-serif;color:#16191f\"><h1 style=\"margin:0 0 12px;font-size:22px\">It works</h1><p>All mail that your program sends to this server shows up here, and goes nowhere else.</p><p style=\"margin:0\">Press <b>?</b> to see the keys.</p></td></tr></table></td></tr></table></body>",
  });
}
