// What every page shows beside its own: the sidebar, the counts, the icon.

import { $ } from "./ui.js";

export function takeShared(other) {
  document.title = other.title;
  const side = $("#sidebar"), otherSide = $("#sidebar", other);
  // The line about live updates belongs to this page.
  $("#live", otherSide).replaceWith($("#live", side));
  side.dataset.unread = otherSide.dataset.unread;
  const at = side.scrollTop;
  side.replaceChildren(...[...otherSide.childNodes].map((node) => document.adoptNode(node)));
  side.scrollTop = at;
  const icon = $("#favicon"), otherIcon = $("#favicon", other);
  if (icon.getAttribute("href") !== otherIcon.getAttribute("href")) icon.setAttribute("href", otherIcon.getAttribute("href"));
  const idle = $(".idle"), otherIdle = $(".idle", other);
  if (idle && otherIdle) idle.replaceChildren(...[...otherIdle.childNodes].map((node) => document.adoptNode(node)));
  const known = $("#known-tags", other);
  if (known) $("#known-tags").replaceWith(document.adoptNode(known));
}
