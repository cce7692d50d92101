// Loaded before the page is drawn, so that it does not flash: light or dark, as the person or the system wants.
(function () {
  const system = matchMedia("(prefers-color-scheme: dark)");
  function apply() {
    let chosen = null;
    try { chosen = localStorage.getItem("theme"); } catch (_) { /* storage is switched off */ }
    document.documentElement.dataset.theme = chosen || (system.matches ? "dark" : "light");
  }
  system.addEventListener("change", apply);
  addEventListener("storage", apply);
  apply();
})();
