// Sorts and filters the table; without it the table stands as it is, those to look at first on top.
(function () {
  "use strict";
  var table = document.getElementById("pairs");
  var body = table.tBodies[0];
  var rows = Array.prototype.slice.call(body.rows);
  var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
  function value(row, column, kind) {
    var cell = row.cells[column];
    if (kind === "text") { return cell.textContent.trim().toLowerCase(); }
    var text = cell.getAttribute("data-value");
    return text === "" ? null : Number(text);
  }
  function sort(column, descending) {
    var kind = heads[column].getAttribute("data-sort");
    rows.sort(function (one, other) {
      var a = value(one, column, kind), b = value(other, column, kind);
      if (a === b) { return one.getAttribute("data-rank") - other.getAttribute("data-rank"); }
      if (a === null) { return 1; } // what is unknown stays at the end
      if (b === null) { return -1; }
      return (a < b ? -1 : 1) * (descending ? -1 : 1);
    });
    rows.forEach(function (row) { body.appendChild(row); });
    heads.forEach(function (head, number) {
      if (number === column) { head.setAttribute("aria-sort", descending ? "descending" : "ascending"); }
      else { head.removeAttribute("aria-sort"); }
    });
  }
  heads.forEach(function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () { sort(column, head.getAttribute("aria-sort") === "ascending"); });
  });
  var words = document.getElementById("filter"), level = document.getElementById("level"), count = document.getElementById("count");
  function filter() {
    var wanted = words.value.trim().toLowerCase(), shown = 0;
    rows.forEach(function (row) {
      var fits = row.cells[0].textContent.toLowerCase().indexOf(wanted) >= 0 && (!level.value || row.getAttribute("data-level") === level.value);
      row.hidden = !fits;
      if (fits) { shown += 1; }
    });
    count.textContent = shown === rows.length ? "" : shown + " of " + rows.length + " pairs";
  }
  words.addEventListener("input", filter);
  level.addEventListener("change", filter);
})();
