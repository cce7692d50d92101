// Small parts of the page: messages to the person, dialogs, copying, light and dark, ages.

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function toast(text, label, action, seconds = 8) {
  const box = element("div", { class: "toast" }, element("span", {}, text));
  const end = () => box.remove();
  if (label) box.append(element("button", { type: "button", onclick: () => { end(); action(); } }, label));
  $("#toasts").replaceChildren(box);
  setTimeout(end, seconds * 1000);
}

export function complain(error) { toast(error.message || String(error)); }

export function show(id) {
  const dialog = document.getElementById(id);
  if (dialog && !dialog.open) dialog.showModal();
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied", null, null, 2);
  } catch (_) {
    // Without TLS, on another host than localhost, browsers have no clipboard.
    const field = element("textarea", { class: "sr" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    toast(done ? "Copied" : "Your browser does not let pages copy", null, null, 2);
  }
}

export function switchTheme() {
  const root = document.documentElement;
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch (_) { /* for this page only */ }
}

// A click outside of a dialog closes it.
for (const dialog of $$("dialog")) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

function age(moment, now) {
  const seconds = (now - moment) / 1000;
  if (seconds < 60) return "now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  const year = moment.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return moment.toLocaleDateString(undefined, { day: "numeric", month: "short", year });
}

// Ages, and times in the person's own zone.
export function tellTimes(within = document) {
  const now = new Date();
  for (const time of $$("time", within)) {
    const moment = new Date(time.dateTime);
    if (time.classList.contains("age")) {
      const text = age(moment, now);
      if (time.textContent !== text) time.textContent = text;
      time.title = moment.toLocaleString();
    } else {
      time.textContent = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    }
  }
}
