// The viewer: what is drawn in the panes, and what the reader does. The slices themselves are made in slices.js.
(function () {
  "use strict";
  var viewer = document.getElementById("viewer");
  var data = JSON.parse(document.getElementById("data").textContent);
  var shape = data.shape, spacing = data.spacing, slices = makeSlices(data);
  var keys = data.states.map(function (s) { return s.key; });
  var MOTION = ["displacement", "arrows", "grid", "jacobian"], MOST_ZOOM = 16;
  var middle = shape.map(function (n) { return n >> 1; });
  var state = {
    mode: "swipe", when: keys[keys.length - 1], held: false, cursor: middle.slice(), swipe: 0.5, active: 0, strength: 1, total: false,
    zoom: 1, centre: middle.slice(), shift: 0, stretch: 0, window: { fixed: 0, moving: 0 }, tool: "cross", lines: true, structure: true
  };
  var panes = [];
  var EXPLAIN = {
    swipe: "Left of the line: the fixed image. Right of it: the moving image. Drag the line; where they agree, edges run on.",
    blend: "Orange: only the fixed image is bright. Blue: only the moving image. Grey: both agree. Of two kinds of images look at the borders alone.",
    checker: "Squares of the fixed and the moving image in turn: edges should run on from square to square.",
    edges: "Orange: edges of the fixed image, on the moving image in grey.",
    fixed: "The fixed image alone.",
    moving: "The moving image alone. Hold Space to see where it lay at first.",
    displacement: "How far each point of the fixed image lies from its place in the moving image.",
    arrows: "From each point of the fixed image to where it lies in the moving image, to scale; colour: length" + (data.dimension === 3 ? " in 3-D." : "."),
    grid: "A regular grid on the fixed image, drawn where its points lie in the moving image.",
    jacobian: "Blue: smaller in the moving image than in the fixed one, Jacobian below 1. Orange: larger. Magenta: folded.",
    labels: "Outlines of the labels: orange of the fixed image, blue of the moving image; the grey image is the moving one.",
    uncertainty: "How far the true place may lie from the one found, in mm, as estimated; without colour: not known."
  };
  function byId(name) { return document.getElementById(name); }
  function clamp(value, low, high) { return Math.max(low, Math.min(high, value)); }
  function moves() { return MOTION.indexOf(state.mode) >= 0; }
  function paired() { return ["swipe", "blend", "checker", "edges", "moving", "labels"].indexOf(state.mode) >= 0; }
  function when() { return !state.held ? state.when : state.when === keys[0] ? keys[keys.length - 1] : keys[0]; }
  function windowOf(role) {
    // The chosen window of an image, moved and stretched as the reader has dragged: shares of its own width.
    var chosen = data.greys[role].windows[state.window[role]], width = chosen.high - chosen.low;
    var centre = (chosen.low + chosen.high) / 2 + state.shift * width, half = width * Math.pow(2, state.stretch) / 2;
    return { low: centre - half, high: centre + half };
  }

  // ---- where a picture lies on its canvas ---------------------------------------------------------------------------
  function fit(pane) {
    var box = pane.stage.getBoundingClientRect();
    pane.ratio = Math.min(2, window.devicePixelRatio || 1);
    pane.canvas.width = Math.max(1, Math.round(box.width * pane.ratio)); pane.canvas.height = Math.max(1, Math.round(box.height * pane.ratio));
  }
  function frame(pane) {
    // The picture in pixels of the canvas: at the middle where it fits, else so far moved that the centre is in the middle.
    var plane = pane.plane, w = pane.canvas.width, h = pane.canvas.height;
    var wide = shape[plane.columns] * spacing[plane.columns], tall = shape[plane.rows] * spacing[plane.rows];
    pane.scale = Math.min(w / wide, h / tall) * state.zoom;
    pane.width = wide * pane.scale; pane.height = tall * pane.scale;
    function start(length, room, share) { return length <= room + 1 ? (room - length) / 2 : clamp(room / 2 - share * length, room - length, 0); }
    var row = state.centre[plane.rows], down = plane.upwards ? shape[plane.rows] - 1 - row : row;
    pane.left = Math.round(start(pane.width, w, (state.centre[plane.columns] + 0.5) / shape[plane.columns]));
    pane.top = Math.round(start(pane.height, h, (down + 0.5) / shape[plane.rows]));
    pane.canvas.dataset.picture = [pane.left, pane.top, Math.round(pane.width), Math.round(pane.height)].join(" ");
  }
  function toIndex(pane, x, y) {
    // A place on the canvas → an index (z, y, x), fractional.
    var plane = pane.plane, index = [0, 0, 0], row = (y - pane.top) / pane.height * shape[plane.rows] - 0.5;
    index[plane.across] = state.cursor[plane.across];
    index[plane.rows] = plane.upwards ? shape[plane.rows] - 1 - row : row;
    index[plane.columns] = (x - pane.left) / pane.width * shape[plane.columns] - 0.5;
    return index;
  }
  function onCanvas(pane, index) {
    var plane = pane.plane, row = plane.upwards ? shape[plane.rows] - 1 - index[plane.rows] : index[plane.rows];
    return { x: pane.left + (index[plane.columns] + 0.5) / shape[plane.columns] * pane.width, y: pane.top + (row + 0.5) / shape[plane.rows] * pane.height };
  }
  function visible(pane) {
    // The part of the picture that is on the canvas: left, right, top, bottom.
    return [Math.max(0, pane.left), Math.min(pane.canvas.width, pane.left + pane.width), Math.max(0, pane.top), Math.min(pane.canvas.height, pane.top + pane.height)];
  }

  // ---- drawing --------------------------------------------------------------------------------------------------
  function draw(pane) {
    var plane = pane.plane, number = state.cursor[plane.across], canvas = pane.canvas, mode = state.mode;
    var context = canvas.getContext("2d");
    frame(pane);
    context.setTransform(1, 0, 0, 1, 0, 0); context.globalAlpha = 1; context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true; context.imageSmoothingQuality = "high";
    var f = windowOf("fixed"), m = windowOf("moving");
    var fixed = slices.cut(slices.volumes.fixed, plane, number, slices.greyTable("fixed", f.low, f.high));
    var moving = slices.cut(slices.volumes[when()], plane, number, slices.greyTable("moving", m.low, m.high));
    function put(source) { context.drawImage(source, pane.left, pane.top, pane.width, pane.height); }
    if (mode === "moving" || mode === "labels") { put(slices.grey(moving)); }
    else if (mode === "blend") { put(slices.blend(fixed, moving)); }
    else if (mode === "edges") { put(slices.grey(moving)); context.globalAlpha = state.strength; put(slices.edges(fixed, plane)); }
    else if (mode === "swipe") { put(slices.grey(fixed)); part(pane, context, slices.grey(moving)); }
    else if (mode === "checker") { put(slices.grey(fixed)); squares(pane, context, slices.grey(moving)); }
    else { put(slices.grey(fixed)); }
    context.globalAlpha = state.strength;
    if (mode === "jacobian" || mode === "uncertainty") { put(slices.mapPicture(mode, plane, number, state.total)); }
    if (mode === "displacement") { put(slices.lengthPicture(plane, number, state.total)); }
    if (mode === "arrows" || mode === "grid") {
      context.fillStyle = "rgba(0,0,0,.35)"; context.fillRect(pane.left, pane.top, pane.width, pane.height);
      (mode === "arrows" ? arrows : lines)(pane, context);
    }
    if (mode === "labels") { outlines(slices.labels.fixed, pane, context, "rgb(255,150,40)"); outlines(slices.labels[when()], pane, context, "rgb(70,160,255)"); }
    context.globalAlpha = 1;
    if (state.structure) { outlines(slices.labels.structure, pane, context, "rgb(255,255,255)", "rgba(0,0,0,.6)"); }
    if (mode === "swipe") { bar(pane, context); }
    if (state.lines) { cross(pane, context); }
    ruler(pane, context);
  }
  function swipeAt(pane) { var v = visible(pane); return Math.round(v[0] + state.swipe * (v[1] - v[0])); }
  function part(pane, context, source) {
    var from = swipeAt(pane);
    context.save(); context.beginPath(); context.rect(from, 0, pane.canvas.width - from, pane.canvas.height); context.clip();
    context.drawImage(source, pane.left, pane.top, pane.width, pane.height); context.restore();
  }
  function squares(pane, context, source) {
    var edge = Math.max(pane.width, pane.height) / state.zoom / 8, columns = Math.ceil(pane.width / edge), rows = Math.ceil(pane.height / edge);
    function at(start, n) { return start + Math.round(n * edge); }
    context.save(); context.beginPath();
    for (var r = 0; r < rows; r++) {
      for (var c = (r + 1) % 2; c < columns; c += 2) {
        context.rect(at(pane.left, c), at(pane.top, r), at(0, c + 1) - at(0, c), at(0, r + 1) - at(0, r));
      }
    }
    context.clip(); context.drawImage(source, pane.left, pane.top, pane.width, pane.height); context.restore();
  }
  function shifted(pane, x, y) {
    var d = slices.displacement(toIndex(pane, x, y), state.total), plane = pane.plane;
    return { x: x + d[plane.columns] * pane.scale, y: y + d[plane.rows] * pane.scale * (plane.upwards ? -1 : 1), length: Math.hypot(d[0], d[1], d[2]) };
  }
  function arrowColour(share) { return "rgb(" + slices.viridis(0.12 + 0.88 * share).join() + ")"; }
  function arrows(pane, context) {
    var step = 17 * pane.ratio, v = visible(pane), high = slices.lengthsOf(state.total).high;
    context.lineWidth = 1.6 * pane.ratio; context.lineCap = "round";
    for (var y = v[2] + step / 2; y < v[3]; y += step) {
      for (var x = v[0] + step / 2; x < v[1]; x += step) {
        var to = shifted(pane, x, y), dx = to.x - x, dy = to.y - y, long = Math.hypot(dx, dy), head = Math.min(5 * pane.ratio, 0.45 * long);
        context.strokeStyle = context.fillStyle = arrowColour(to.length / high);
        if (long < 1.5 * pane.ratio) { context.fillRect(x - pane.ratio, y - pane.ratio, 2 * pane.ratio, 2 * pane.ratio); continue; }
        var ux = dx / long, uy = dy / long;
        context.beginPath(); context.moveTo(x, y); context.lineTo(to.x, to.y);
        context.moveTo(to.x - head * (ux + 0.6 * uy), to.y - head * (uy - 0.6 * ux)); context.lineTo(to.x, to.y);
        context.lineTo(to.x - head * (ux - 0.6 * uy), to.y - head * (uy + 0.6 * ux)); context.stroke();
      }
    }
  }
  function lines(pane, context) {
    var step = 16 * pane.ratio, fine = 4 * pane.ratio, v = visible(pane), at, along, to;
    context.lineWidth = 1.1 * pane.ratio; context.strokeStyle = "rgba(255,205,130,.9)";
    for (at = v[0] + step / 2; at < v[1]; at += step) {
      context.beginPath();
      for (along = v[2]; along <= v[3]; along += fine) { to = shifted(pane, at, along); context.lineTo(to.x, to.y); }
      context.stroke();
    }
    for (at = v[2] + step / 2; at < v[3]; at += step) {
      context.beginPath();
      for (along = v[0]; along <= v[1]; along += fine) { to = shifted(pane, along, at); context.lineTo(to.x, to.y); }
      context.stroke();
    }
  }
  function outlines(map, pane, context, colour, around) {
    // Lines between pixels of different labels, where that is given with a margin.
    if (!map) { return; }
    var plane = pane.plane, at = Math.min(map.shape[plane.across] - 1, Math.floor((state.cursor[plane.across] + 0.5) * map.shape[plane.across] / shape[plane.across]));
    var slice = slices.cut(map, plane, at), w = slice.width, h = slice.height, v = slice.values;
    function x(n) { return pane.left + n * pane.width / w; }
    function y(n) { return pane.top + n * pane.height / h; }
    context.beginPath();
    for (var r = 0; r < h; r++) {
      for (var c = 0; c < w; c++) {
        var i = r * w + c;
        if (c + 1 < w && v[i] !== v[i + 1]) { context.moveTo(x(c + 1), y(r)); context.lineTo(x(c + 1), y(r + 1)); }
        if (r + 1 < h && v[i] !== v[i + w]) { context.moveTo(x(c), y(r + 1)); context.lineTo(x(c + 1), y(r + 1)); }
      }
    }
    context.lineCap = "square";
    if (around) { context.lineWidth = 3.6 * pane.ratio; context.strokeStyle = around; context.stroke(); }
    context.lineWidth = 1.6 * pane.ratio; context.strokeStyle = colour; context.stroke();
  }
  function bar(pane, context) {
    var r = pane.ratio, at = swipeAt(pane), v = visible(pane), y = v[2] + 0.7 * (v[3] - v[2]);
    context.fillStyle = "rgba(0,0,0,.55)"; context.fillRect(at - 1.5 * r, v[2], 3 * r, v[3] - v[2]);
    context.fillStyle = "#fff"; context.fillRect(at - 0.75 * r, v[2], 1.5 * r, v[3] - v[2]);
    context.beginPath(); context.arc(at, y, 9 * r, 0, 2 * Math.PI); context.fill();
    context.strokeStyle = "#0d1014"; context.lineWidth = 1.8 * r; context.beginPath();
    context.moveTo(at - 2.2 * r, y - 3.5 * r); context.lineTo(at - 5.5 * r, y); context.lineTo(at - 2.2 * r, y + 3.5 * r);
    context.moveTo(at + 2.2 * r, y - 3.5 * r); context.lineTo(at + 5.5 * r, y); context.lineTo(at + 2.2 * r, y + 3.5 * r);
    context.stroke();
  }
  function cross(pane, context) {
    // Where the planes meet: two lines with a gap around the place itself, which leave room for the letters.
    var r = pane.ratio, at = onCanvas(pane, state.cursor), w = pane.canvas.width, h = pane.canvas.height, gap = 7 * r, edge = 26 * r;
    function line(x, y, width, height) {
      if (width <= 0 || height <= 0) { return; }
      context.fillStyle = "rgba(0,0,0,.45)"; context.fillRect(x - r / 2, y - r / 2, width + r, height + r);
      context.fillStyle = "rgba(120,220,255,.85)"; context.fillRect(x, y, width, height);
    }
    var x = Math.round(at.x - r / 2), y = Math.round(at.y - r / 2);
    if (x >= 0 && x <= w) { line(x, edge, r, y - gap - edge); line(x, y + gap, r, h - edge - y - gap); }
    if (y >= 0 && y <= h) { line(edge, y, x - gap - edge, r); line(x + gap, y, w - edge - x - gap, r); }
  }
  function ruler(pane, context) {
    // A length in mm at the lower left: 1, 2 or 5 times a power of ten, at most a quarter of the pane.
    var r = pane.ratio, most = 0.25 * pane.canvas.width / pane.scale, power = Math.pow(10, Math.floor(Math.log10(most)));
    var long = power * (most >= 5 * power ? 5 : most >= 2 * power ? 2 : 1), width = long * pane.scale, x = 10 * r, y = pane.canvas.height - 12 * r;
    context.lineWidth = 4 * r; context.lineCap = "butt"; context.strokeStyle = "rgba(0,0,0,.7)"; context.strokeRect(x, y, width, 2 * r);
    context.fillStyle = "#fff"; context.fillRect(x, y, width, 2 * r);
    context.font = "600 " + 11 * r + "px system-ui, sans-serif"; context.lineWidth = 3 * r; context.textBaseline = "bottom";
    context.strokeText(long + " mm", x, y - 3 * r); context.fillText(long + " mm", x, y - 3 * r);
    pane.element.dataset.ruler = long + " mm " + (width / pane.ratio).toFixed(1);
  }
  function position(axis) {
    // Where the slice lies, as the coordinate that grows fastest along its axis, at the place where the planes meet.
    if (data.dimension === 2) { return ""; }
    var steps = data.toPoint.slice(0, 3).map(function (row) { return Math.abs(row[axis]); });
    var main = steps.indexOf(Math.max.apply(null, steps)), at = slices.point(state.cursor)[main];
    return "xyz"[main] + " " + at.toFixed(1).replace("-", "\u2212") + " mm";
  }
  var waiting = false;
  function refresh() {
    if (waiting) { return; }
    waiting = true;
    requestAnimationFrame(function () { waiting = false; show(); });
  }
  function show() {
    panes.forEach(function (pane, order) {
      var n = shape[pane.plane.across], at = state.cursor[pane.plane.across];
      pane.range.max = n; pane.range.value = at + 1; pane.range.disabled = n < 2;
      var number = (at + 1) + " of " + n, reduced = data.full[pane.plane.across] !== n, millimetres = position(pane.plane.across);
      pane.range.setAttribute("aria-valuetext", reduced ? millimetres : "slice " + number);
      pane.output.textContent = reduced ? millimetres : number;
      pane.output.title = reduced ? "Slice " + number + " of the page; the image has " + data.full[pane.plane.across] : millimetres;
      pane.element.classList.toggle("active", panes.length > 1 && order === state.active);
      draw(pane);
    });
    byId("readout").textContent = slices.valueAt(state.cursor, when());
    byId("zoom").textContent = Math.round(100 * state.zoom) + " %";
    byId("window").textContent = ["fixed", "moving"].map(function (role) {
      var w = windowOf(role), unit = data.greys[role].unit;
      return role + " " + short(w.low) + " to " + short(w.high) + (unit ? " " + unit : "");
    }).join(", ");
    byId("level").value = Math.round(100 * state.shift); byId("width").value = Math.round(20 * state.stretch);
    viewer.dataset.drawn = [state.mode, when()].concat(state.cursor).join(" ");
  }
  function short(value) { return (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(2)).replace("-", "\u2212"); }
  function scale() {
    // The colours of what is shown, mixed with grey as on the picture, and the values at both ends.
    var box = byId("scale"), mode = state.mode, jacobian = mode === "jacobian";
    box.hidden = ["jacobian", "uncertainty", "arrows", "displacement"].indexOf(mode) < 0;
    byId("opacity-box").hidden = ["edges", "labels", "jacobian", "uncertainty", "arrows", "grid", "displacement"].indexOf(mode) < 0;
    byId("motion").hidden = !data.linear || !moves() || keys[keys.length - 1] !== "deformed";
    if (box.hidden) { return; }
    var context = byId("scale-bar").getContext("2d"), reach = slices.reachOf(state.total), lengths = slices.lengthsOf(state.total);
    for (var i = 0; i < 256; i++) {
      var c = jacobian ? slices.volumeColour((i / 127.5 - 1) * reach, state.total) : slices.viridis(i / 255).concat(0.7);
      var a = c[3] * state.strength;
      context.fillStyle = mode === "arrows" ? arrowColour(i / 255) : "rgb(" + c.slice(0, 3).map(function (v) { return Math.round(128 * (1 - a) + v * a); }).join() + ")";
      context.fillRect(i, 0, 1, 12);
    }
    var high = mode === "uncertainty" ? data.maps.uncertainty.high : lengths.high;
    byId("scale-low").textContent = jacobian ? "\u2264 " + Math.pow(2, -reach).toPrecision(2) : "0 mm";
    byId("scale-high").textContent = jacobian ? "\u2265 " + Math.pow(2, reach).toPrecision(2) + " times the volume" : "\u2265 " + high.toPrecision(3) + " mm";
    byId("scale-note").textContent = mode === "uncertainty" || jacobian ? "" : "longest " + lengths.largest.toPrecision(3) + " mm";
  }

  // ---- what the reader chooses ------------------------------------------------------------------------------------
  function choose(group, name, value) {
    group.querySelectorAll("button").forEach(function (button) {
      var chosen = button.dataset[name] === value;
      button.setAttribute("aria-checked", chosen); button.tabIndex = chosen ? 0 : -1;
    });
  }
  var modes = byId("modes"), states = byId("states"), tools = byId("tools"), motion = byId("motion");
  function explain() {
    var text = EXPLAIN[state.mode], shown = data.states[keys.indexOf(when())];
    if (moves() && data.linear && keys[keys.length - 1] === "deformed") { text += state.total ? " With the alignment." : " The deformation alone, without the alignment."; }
    var apart = paired() && shown.covered < 0.5;
    if (apart) { text += " " + shown.word + ", " + Math.round(100 * shown.covered) + " % of the fixed image lies inside the moving one: there is nothing to compare elsewhere."; }
    if (structure && state.structure) { text += " White outline, in the fixed image: " + structure.textContent.toLowerCase() + "."; }
    byId("explain").textContent = text;
  }
  function setMode(mode) {
    if (!modes.querySelector('[data-mode="' + mode + '"]')) { return; }
    state.mode = mode; choose(modes, "mode", mode);
    states.querySelectorAll("button").forEach(function (b) { b.disabled = !paired(); });
    explain(); scale(); refresh();
  }
  function setWhen(chosen) { state.when = chosen; choose(states, "state", when()); explain(); refresh(); }
  function hold(down) { state.held = down; setWhen(state.when); }
  function setTool(tool) { state.tool = tool; choose(tools, "tool", tool); panes.forEach(function (p) { p.stage.dataset.tool = tool; }); }
  function setTotal(total) { state.total = total; choose(motion, "total", String(total)); explain(); scale(); refresh(); }
  function setZoom(zoom, pane, x, y) {
    // Zoom; what lies at (x, y) of a pane stays there, else what lies at the crosshair comes to the middle.
    var before = pane ? toIndex(pane, x, y) : state.cursor;
    state.zoom = clamp(zoom, 1, MOST_ZOOM);
    if (pane) {
      frame(pane);
      var after = toIndex(pane, x, y);
      [pane.plane.rows, pane.plane.columns].forEach(function (a) { state.centre[a] = clamp(state.centre[a] + before[a] - after[a], 0, shape[a] - 1); });
    } else { state.centre = state.cursor.slice(); }
    refresh();
  }
  function pan(pane, dx, dy) {
    // Move the picture by pixels of the canvas.
    var plane = pane.plane;
    state.centre[plane.columns] = clamp(state.centre[plane.columns] - dx / pane.width * shape[plane.columns], 0, shape[plane.columns] - 1);
    state.centre[plane.rows] = clamp(state.centre[plane.rows] - dy / pane.height * shape[plane.rows] * (plane.upwards ? -1 : 1), 0, shape[plane.rows] - 1);
    refresh();
  }
  function setWindow(shift, stretch) { state.shift = clamp(shift, -2, 2); state.stretch = clamp(stretch, -5, 5); refresh(); }
  function pickWindow(role, number) { state.window[role] = number; byId("window-" + role).value = number; setWindow(0, 0); }
  function reset() {
    state.zoom = 1; state.centre = middle.slice(); state.cursor = middle.slice();
    pickWindow("fixed", 0); pickWindow("moving", 0);
  }
  function turn(pane, steps) {
    var axis = pane.plane.across;
    state.cursor[axis] = clamp(state.cursor[axis] + steps, 0, shape[axis] - 1); refresh();
  }
  var structure = byId("structure");
  function setStructure(on) { if (structure) { state.structure = on; structure.setAttribute("aria-pressed", on); explain(); refresh(); } }
  function goTo(index) {
    state.cursor = index.map(function (v, axis) { return clamp(Math.round(v), 0, shape[axis] - 1); });
    state.centre = state.cursor.slice(); refresh(); viewer.scrollIntoView();
  }
  function activate(number) { state.active = number; refresh(); }
  function resized() { panes.forEach(fit); refresh(); }
  function alone(one) {
    byId("panes").classList.toggle("alone", one); byId("alone").setAttribute("aria-pressed", one);
    panes.forEach(function (pane, n) { pane.element.classList.toggle("active", panes.length > 1 && n === state.active); });
    resized();
  }
  function full(on) {
    viewer.classList.toggle("full", on); byId("full").setAttribute("aria-pressed", on);
    if (on && viewer.requestFullscreen) { viewer.requestFullscreen().catch(function () {}); }
    if (!on && document.fullscreenElement) { document.exitFullscreen(); }
    resized();
  }
  function roving(group, act) {
    group.addEventListener("click", function (event) { var b = event.target.closest("button"); if (b) { act(b); } });
    group.addEventListener("keydown", function (event) {
      var by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!by) { return; }
      var all = Array.from(group.querySelectorAll("button:not(:disabled)"));
      var next = all[(all.indexOf(document.activeElement) + by + all.length) % all.length];
      event.preventDefault(); event.stopPropagation(); next.focus(); act(next);
    });
  }
  roving(modes, function (b) { setMode(b.dataset.mode); });
  roving(states, function (b) { setWhen(b.dataset.state); });
  roving(tools, function (b) { setTool(b.dataset.tool); });
  roving(motion, function (b) { setTotal(b.dataset.total === "true"); });
  ["fixed", "moving"].forEach(function (role) {
    var select = byId("window-" + role);
    data.greys[role].windows.forEach(function (w, n) { select.add(new Option(w.name, n)); });
    select.addEventListener("change", function () { pickWindow(role, Number(select.value)); });
  });
  byId("level").addEventListener("input", function (event) { setWindow(event.target.value / 100, state.stretch); });
  byId("width").addEventListener("input", function (event) { setWindow(state.shift, event.target.value / 20); });
  byId("opacity").addEventListener("input", function (event) { state.strength = event.target.value / 100; scale(); refresh(); });
  byId("zoom-in").addEventListener("click", function () { setZoom(1.5 * state.zoom); });
  byId("zoom-out").addEventListener("click", function () { setZoom(state.zoom / 1.5); });
  byId("reset").addEventListener("click", reset);
  byId("alone").addEventListener("click", function () { alone(!byId("panes").classList.contains("alone")); });
  byId("full").addEventListener("click", function () { full(!viewer.classList.contains("full")); });
  if (structure) { structure.addEventListener("click", function () { setStructure(!state.structure); }); }
  document.querySelectorAll("[data-index]").forEach(function (button) {
    button.addEventListener("click", function () { goTo(button.dataset.index.split(" ").map(Number)); });
  });
  byId("print").addEventListener("click", function () { window.print(); });
  document.addEventListener("fullscreenchange", function () { if (!document.fullscreenElement && viewer.classList.contains("full")) { full(false); } });
  var help = byId("help");
  byId("help-open").addEventListener("click", function () { help.showModal(); });

  // ---- the pointer --------------------------------------------------------------------------------------------------
  function place(pane, event) {
    var box = pane.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width * pane.canvas.width, y: (event.clientY - box.top) / box.height * pane.canvas.height };
  }
  function link(pane, event) {
    var p = place(pane, event), index = toIndex(pane, p.x, p.y);
    [pane.plane.rows, pane.plane.columns].forEach(function (a) { state.cursor[a] = clamp(Math.round(index[a]), 0, shape[a] - 1); });
    refresh();
  }
  function toolOf(event) {
    // Which tool a press means: the middle button and Shift move, the right button windows, whatever is chosen.
    if (event.button === 1 || event.shiftKey) { return "pan"; }
    return event.button === 2 ? "window" : state.tool;
  }
  function handle(pane, number) {
    var stage = pane.stage, start = null, rest = 0;
    stage.addEventListener("focus", function () { activate(number); });
    stage.addEventListener("contextmenu", function (event) { event.preventDefault(); });
    stage.addEventListener("dblclick", function () { activate(number); if (panes.length > 1) { alone(!byId("panes").classList.contains("alone")); } });
    stage.addEventListener("wheel", function (event) {
      if (event.ctrlKey) {
        var p = place(pane, event);
        event.preventDefault(); setZoom(state.zoom * Math.pow(1.2, -Math.sign(event.deltaY)), pane, p.x, p.y); return;
      }
      if (shape[pane.plane.across] < 2) { return; }
      event.preventDefault();
      rest += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY;
      var steps = Math.trunc(rest);
      if (steps) { rest -= steps; turn(pane, clamp(steps, -5, 5)); }
    }, { passive: false });
    stage.addEventListener("pointerdown", function (event) {
      var p = place(pane, event);
      start = { x: p.x, y: p.y, tool: toolOf(event), slice: state.cursor[pane.plane.across], shift: state.shift, stretch: state.stretch, last: p, moved: false };
      stage.setPointerCapture(event.pointerId); activate(number);
    });
    stage.addEventListener("pointermove", function (event) {
      var p = place(pane, event);
      if (!start) { byId("readout").textContent = slices.valueAt(toIndex(pane, p.x, p.y), when()); return; }
      var dx = p.x - start.x, dy = p.y - start.y;
      if (!start.moved && Math.hypot(dx, dy) < 4 * pane.ratio) { return; }
      start.moved = true;
      if (start.tool === "window") { setWindow(start.shift + dy / pane.canvas.height, start.stretch + 3 * dx / pane.canvas.width); }
      else if (start.tool === "pan") { pan(pane, p.x - start.last.x, p.y - start.last.y); }
      else if (state.mode === "swipe") { var v = visible(pane); state.swipe = clamp((p.x - v[0]) / (v[1] - v[0]), 0, 1); refresh(); }
      else if (event.pointerType === "touch") { state.cursor[pane.plane.across] = start.slice; turn(pane, Math.round(dx / pane.ratio / 6)); }
      else { link(pane, event); }
      start.last = p;
    });
    stage.addEventListener("pointerup", function (event) { if (start && !start.moved && start.tool === "cross") { link(pane, event); } start = null; });
    stage.addEventListener("pointercancel", function () { start = null; });
    stage.addEventListener("pointerleave", function () { byId("readout").textContent = slices.valueAt(state.cursor, when()); });
    stage.addEventListener("keydown", function (event) {
      var last = shape[pane.plane.across];
      if (event.ctrlKey || event.metaKey || event.altKey) { return; }
      var by = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (event.shiftKey && by) { event.preventDefault(); pan(pane, by[0] * 0.1 * pane.canvas.width, by[1] * 0.1 * pane.canvas.height); return; }
      var steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -last, End: last }[event.key];
      if (steps) { event.preventDefault(); turn(pane, steps); }
    });
    pane.range.addEventListener("input", function () { state.cursor[pane.plane.across] = pane.range.value - 1; activate(number); });
  }

  // ---- the keys -----------------------------------------------------------------------------------------------------
  var LETTERS = { s: "swipe", o: "blend", c: "checker", e: "edges", f: "fixed", m: "moving", d: "displacement", a: "arrows", g: "grid", j: "jacobian", u: "uncertainty", l: "labels" };
  var ACTS = {
    "?": function () { help.showModal(); },
    b: function () { if (paired()) { setWhen(keys[(keys.indexOf(when()) + keys.length - 1) % keys.length]); } },
    "[": function () { state.swipe = clamp(state.swipe - 0.05, 0, 1); refresh(); },
    "]": function () { state.swipe = clamp(state.swipe + 0.05, 0, 1); refresh(); },
    "+": function () { setZoom(1.5 * state.zoom); }, "=": function () { setZoom(1.5 * state.zoom); },
    "-": function () { setZoom(state.zoom / 1.5); }, "0": function () { setZoom(1); },
    ",": function () { setWindow(state.shift - 0.05, state.stretch); }, ".": function () { setWindow(state.shift + 0.05, state.stretch); },
    "<": function () { setWindow(state.shift, state.stretch - 0.2); }, ">": function () { setWindow(state.shift, state.stretch + 0.2); },
    t: function () { if (!motion.hidden) { setTotal(!state.total); } },
    w: function () { setTool({ cross: "window", window: "pan", pan: "cross" }[state.tool]); },
    n: function () { setStructure(!state.structure); },
    x: function () { state.lines = !state.lines; refresh(); },
    p: function () { if (panes.length > 1) { alone(!byId("panes").classList.contains("alone")); } },
    v: function () { full(!viewer.classList.contains("full")); },
    r: reset
  };
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open || event.target.tagName === "SELECT") { return; }
    var key = event.key.length === 1 ? event.key.toLowerCase() : event.key, tag = event.target.tagName;
    if (LETTERS[key]) { setMode(LETTERS[key]); }
    else if (ACTS[key]) { ACTS[key](); if (key === "?") { event.preventDefault(); } }
    else if (key === "Escape" && viewer.classList.contains("full")) { full(false); }
    else if (/^[123]$/.test(key) && panes[key - 1]) { activate(Number(key) - 1); alone(byId("panes").classList.contains("alone")); panes[key - 1].stage.focus(); }
    else if (key === " " && tag !== "BUTTON" && tag !== "SUMMARY" && event.target.closest && event.target.closest(".stage")) {
      event.preventDefault();
      if (paired() && !state.held) { hold(true); }
    }
  });
  document.addEventListener("keyup", function (event) { if (event.key === " " && state.held) { hold(false); } });
  window.addEventListener("blur", function () { if (state.held) { hold(false); } });
  window.addEventListener("resize", resized);

  document.querySelectorAll(".pane").forEach(function (element, number) {
    var pane = {
      element: element, plane: data.planes[number], stage: element.querySelector(".stage"), canvas: element.querySelector("canvas"),
      range: element.querySelector("input"), output: element.querySelector("output")
    };
    panes.push(pane); handle(pane, number);
  });
  slices.load().then(function () {
    setTool("cross"); setMode("swipe"); setWhen(state.when); resized(); show();
    viewer.dataset.ready = "true";
  }, function () {
    document.documentElement.classList.add("no-viewer"); // the still pictures take its place
  });
})();
