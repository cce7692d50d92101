// Requests to our server.

const root = document.documentElement;
export const base = root.dataset.base;

// Changes something; the token proves that a page of ours asks.
export async function change(method, path, body) {
  const response = await fetch(location.origin + base + path, {
    method,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": root.dataset.csrf },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) {
    const text = await response.text();
    let reason = text;
    try { reason = JSON.parse(text).Error || text; } catch (_) { /* a line of text */ }
    throw new Error(reason.slice(0, 300) || `The server answered ${response.status}`);
  }
  return response;
}

// A page of ours as a document. Scripts in it never run, and no text becomes HTML in this page.
export function page(url) {
  const asked = new URL(url, location.href);
  // A page that is brought up to date has not been read again.
  asked.searchParams.set("peek", "1");
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", asked);
    request.responseType = "document";
    request.timeout = 30000;
    request.onload = () => (request.status === 200 && request.response ? resolve(request.response) : reject(new Error("The server answers no more")));
    request.onerror = request.ontimeout = () => reject(new Error("The server answers no more"));
    request.send();
  });
}
