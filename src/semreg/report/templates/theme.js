// The colours of the page: as the system by default, light or dark when chosen; remembered where that is allowed.
(function () {
  "use strict";
  var root = document.documentElement;
  var order = ["auto", "light", "dark"];
  var words = { auto: "as the system", light: "light", dark: "dark" };
  function remembered() {
    try { return localStorage.getItem("semreg-theme"); } catch (error) { return null; }
  }
  function apply(theme) {
    root.setAttribute("data-theme", theme);
    var button = document.getElementById("theme");
    if (button) {
      button.setAttribute("aria-label", "Colours: " + words[theme] + "; press to change");
      button.title = "Colours: " + words[theme];
      button.querySelector("span").textContent = theme === "auto" ? "Colours" : theme === "light" ? "Light" : "Dark";
    }
    document.dispatchEvent(new CustomEvent("themechange"));
  }
  root.classList.add("js");
  var theme = order.indexOf(remembered()) > 0 ? remembered() : "auto";
  root.setAttribute("data-theme", theme);
  document.addEventListener("DOMContentLoaded", function () {
    apply(theme);
    document.getElementById("theme").addEventListener("click", function () {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try { localStorage.setItem("semreg-theme", theme); } catch (error) { /* private windows forget */ }
      apply(theme);
    });
  });
})();
