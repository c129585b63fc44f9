// The viewer: three grey stacks and a few maps, decoded once into arrays (z, y, x); every picture is made from them.
// Axes are 0, 1, 2 for z, y, x of the view grid, whose axes are nearest to superior, posterior, left.
(function () {
  "use strict";
  var viewer = document.getElementById("viewer");
  var data = JSON.parse(document.getElementById("data").textContent);
  var shape = data.shape, spacing = data.spacing, colours = data.colours;
  var volumes = {}, maps = {}, labels = {}, vectors = null;
  var state = { mode: "swipe", when: "after", held: false, cursor: shape.map(function (n) { return n >> 1; }), swipe: 0.5, active: 0, strength: 1 };
  var panes = [];
  var EXPLAIN = {
    swipe: "Left of the line: the fixed image. Right of it: the moving image. Drag the line; where they agree, edges run on.",
    blend: "Orange: only the fixed image is bright. Blue: only the moving image. Grey: both agree. Of two kinds of images look at the borders alone.",
    checker: "Squares of the fixed and the moving image in turn: edges should run on from square to square.",
    edges: "Orange: edges of the fixed image, on the moving image in grey.",
    fixed: "The fixed image alone.",
    moving: "The moving image alone. Hold Space to see the other state.",
    arrows: "From each point of the fixed image to where it lies in the moving image, to scale; colour: length in 3-D.",
    grid: "A regular grid on the fixed image, drawn where its points lie in the moving image.",
    jacobian: "Blue: smaller in the moving image than in the fixed one, Jacobian below 1. Orange: larger. Magenta: folded.",
    labels: "Outlines of the labels: orange of the fixed image, blue of the moving image; the grey image is the moving one.",
    uncertainty: "How far the true place may lie from the one found, in mm; without colour: not known."
  };
  if (data.dimension === 2) { EXPLAIN.arrows = EXPLAIN.arrows.replace(" in 3-D", ""); }

  // ---- decoding -------------------------------------------------------------------------------------------------
  function picture(uri) {
    return new Promise(function (done, failed) {
      var image = new Image();
      image.onload = function () { done(image); };
      image.onerror = failed;
      image.src = uri;
    });
  }
  async function decode(sheets, size) {
    var depth = size[0], rows = size[1], columns = size[2], tile = sheets.tile;
    var values = new Uint8Array(depth * rows * columns), number = 0;
    for (var s = 0; s < sheets.uris.length; s++) {
      var image = await picture(sheets.uris[s]);
      var canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
      var context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      for (var t = 0; t < sheets.perSheet && number < depth; t++, number++) {
        var left = (t % sheets.columns) * tile[1], top = Math.floor(t / sheets.columns) * tile[0];
        var pixels = context.getImageData(left, top, columns, rows).data;
        var start = number * rows * columns;
        for (var i = 0; i < rows * columns; i++) { values[start + i] = pixels[4 * i]; }
      }
      canvas.width = canvas.height = 0;
    }
    return { shape: size, values: values };
  }
  async function load() {
    for (var name in data.stacks) { volumes[name] = await decode(data.stacks[name], shape); delete data.stacks[name]; }
    for (var key in data.maps) { maps[key] = await decode(data.maps[key], data.maps[key].shape); data.maps[key].uris = null; }
    for (var role in data.labels) { labels[role] = await decode(data.labels[role], data.labels[role].shape); data.labels[role].uris = null; }
    var v = data.vectors, size = v.shape, count = size[0] * size[1] * size[2];
    var bytes = (await decode(v, [6 * size[0], size[1], size[2]])).values;
    vectors = { shape: size, values: [0, 1, 2].map(function (c) {
      var part = new Float32Array(count);
      for (var i = 0; i < count; i++) { part[i] = (bytes[c * count + i] * 256 + bytes[(c + 3) * count + i] - 32768) / 32767 * v.reach; }
      return part;
    }) };
    v.uris = null;
  }

  // ---- slices ---------------------------------------------------------------------------------------------------
  function cut(volume, plane, number) {
    // The slice as it is drawn, first row on top: {width, height, values}.
    var size = volume.shape, strides = [size[1] * size[2], size[2], 1];
    var height = size[plane.rows], width = size[plane.columns], values = new Uint8Array(width * height);
    var down = strides[plane.rows], right = strides[plane.columns], base = number * strides[plane.across];
    for (var r = 0; r < height; r++) {
      var from = base + (plane.upwards ? height - 1 - r : r) * down, to = r * width;
      for (var c = 0; c < width; c++) { values[to + c] = volume.values[from + c * right]; }
    }
    return { width: width, height: height, values: values };
  }
  function mapNumber(map, plane) {
    var m = map.shape[plane.across], n = shape[plane.across];
    return Math.min(m - 1, Math.floor((state.cursor[plane.across] + 0.5) * m / n));
  }
  function painted(slice, colour) {
    // A canvas of the slice: colour(i, pixels, 4 i) writes red, green, blue and opacity of pixel i.
    var canvas = document.createElement("canvas");
    canvas.width = slice.width; canvas.height = slice.height;
    var context = canvas.getContext("2d"), image = context.createImageData(slice.width, slice.height);
    for (var i = 0; i < slice.values.length; i++) { colour(i, image.data, 4 * i); }
    context.putImageData(image, 0, 0);
    return canvas;
  }
  function grey(slice) {
    var values = slice.values;
    return painted(slice, function (i, p, k) { p[k] = p[k + 1] = p[k + 2] = values[i]; p[k + 3] = 255; });
  }
  function blend(a, b) {
    var o = colours.orange, u = colours.blue, f = a.values, m = b.values;
    return painted(a, function (i, p, k) {
      for (var c = 0; c < 3; c++) { p[k + c] = (f[i] * o[c] + m[i] * u[c]) / 255; }
      p[k + 3] = 255;
    });
  }
  function edges(slice, plane) {
    var w = slice.width, h = slice.height, v = slice.values, strength = new Float32Array(w * h), histogram = new Uint32Array(512), some = 0;
    var sx = 0.5 / spacing[plane.columns], sy = 0.5 / spacing[plane.rows], unit = Math.max(sx, sy);
    sx /= unit; sy /= unit;
    for (var y = 0; y < h; y++) {
      for (var x = 0; x < w; x++) {
        var i = y * w + x;
        var dx = (v[i + (x < w - 1 ? 1 : 0)] - v[i - (x > 0 ? 1 : 0)]) * sx, dy = (v[i + (y < h - 1 ? w : 0)] - v[i - (y > 0 ? w : 0)]) * sy;
        strength[i] = Math.sqrt(dx * dx + dy * dy);
        if (strength[i] > 4) { histogram[Math.min(511, strength[i] | 0)]++; some++; }
      }
    }
    var level = 511, above = 0;
    while (level > 4 && above < some * 0.22) { above += histogram[level]; level--; }
    var o = colours.orange;
    return painted(slice, function (i, p, k) {
      p[k] = o[0]; p[k + 1] = o[1] + 22; p[k + 2] = o[2];
      p[k + 3] = 255 * Math.max(0, Math.min(1, (strength[i] - 0.75 * level) / (0.5 * level + 1)));
    });
  }
  function jacobian(slice) {
    var v = slice.values;
    return painted(slice, function (i, p, k) {
      var octaves = (v[i] - 128) / 63.5, folded = v[i] === 0;
      var colour = folded ? colours.folded : octaves < 0 ? colours.smaller : colours.larger;
      p[k] = colour[0]; p[k + 1] = colour[1]; p[k + 2] = colour[2];
      p[k + 3] = 255 * (folded ? 1 : Math.min(0.85, Math.abs(octaves) * 0.85));
    });
  }
  function scaled(slice) {
    var v = slice.values, table = colours.viridis;
    return painted(slice, function (i, p, k) {
      for (var c = 0; c < 3; c++) { p[k + c] = table[3 * v[i] + c]; }
      p[k + 3] = v[i] === 0 ? 0 : 158;
    });
  }

  // ---- displacement ---------------------------------------------------------------------------------------------
  function displacement(index) {
    // Millimetres along z, y, x at an index of the view grid, linear between the nodes.
    var low = [], part = [], size = vectors.shape;
    for (var a = 0; a < 3; a++) {
      var at = Math.max(0, Math.min(size[a] - 1, (index[a] + 0.5) * size[a] / shape[a] - 0.5));
      low[a] = Math.min(Math.floor(at), Math.max(0, size[a] - 2)); part[a] = at - low[a];
    }
    var result = [0, 0, 0];
    for (var corner = 0; corner < 8; corner++) {
      var weight = 1, place = 0;
      for (a = 0; a < 3; a++) {
        var up = corner >> a & 1;
        weight *= up ? part[a] : 1 - part[a];
        place = place * size[a] + Math.min(low[a] + up, size[a] - 1);
      }
      if (weight > 0) { for (var c = 0; c < 3; c++) { result[c] += weight * vectors.values[c][place]; } }
    }
    return result;
  }
  function viridis(share) {
    var k = 3 * Math.max(0, Math.min(255, Math.round(share * 255))), t = colours.viridis;
    return "rgb(" + t[k] + "," + t[k + 1] + "," + t[k + 2] + ")";
  }
  function toIndex(pane, x, y) {
    // A place on the canvas → an index (z, y, x), fractional.
    var plane = pane.plane, index = [0, 0, 0];
    var row = y / pane.canvas.height * shape[plane.rows] - 0.5;
    index[plane.across] = state.cursor[plane.across];
    index[plane.rows] = plane.upwards ? shape[plane.rows] - 1 - row : row;
    index[plane.columns] = x / pane.canvas.width * shape[plane.columns] - 0.5;
    return index;
  }
  function shifted(pane, x, y) {
    var d = displacement(toIndex(pane, x, y)), plane = pane.plane;
    return { x: x + d[plane.columns] * pane.scale, y: y + d[plane.rows] * pane.scale * (plane.upwards ? -1 : 1), length: Math.hypot(d[0], d[1], d[2]) };
  }
  function arrows(pane, context) {
    var step = 17 * pane.ratio, w = pane.canvas.width, h = pane.canvas.height;
    context.lineWidth = 1.6 * pane.ratio; context.lineCap = "round";
    for (var y = step / 2; y < h; y += step) {
      for (var x = step / 2; x < w; x += step) {
        var to = shifted(pane, x, y), dx = to.x - x, dy = to.y - y, long = Math.hypot(dx, dy), head = Math.min(5 * pane.ratio, 0.45 * long);
        context.strokeStyle = context.fillStyle = viridis(0.12 + 0.88 * to.length / data.vectors.high);
        if (long < 1.5 * pane.ratio) { context.fillRect(x - pane.ratio, y - pane.ratio, 2 * pane.ratio, 2 * pane.ratio); continue; }
        var ux = dx / long, uy = dy / long;
        context.beginPath(); context.moveTo(x, y); context.lineTo(to.x, to.y);
        context.moveTo(to.x - head * (ux + 0.6 * uy), to.y - head * (uy - 0.6 * ux)); context.lineTo(to.x, to.y);
        context.lineTo(to.x - head * (ux - 0.6 * uy), to.y - head * (uy + 0.6 * ux)); context.stroke();
      }
    }
  }
  function lines(pane, context) {
    var step = 16 * pane.ratio, fine = 4 * pane.ratio, w = pane.canvas.width, h = pane.canvas.height, at, along, to;
    context.lineWidth = 1.1 * pane.ratio; context.strokeStyle = "rgba(255,205,130,.9)";
    for (at = step / 2; at < w; at += step) {
      context.beginPath();
      for (along = 0; along <= h; along += fine) { to = shifted(pane, at, along); context.lineTo(to.x, to.y); }
      context.stroke();
    }
    for (at = step / 2; at < h; at += step) {
      context.beginPath();
      for (along = 0; along <= w; along += fine) { to = shifted(pane, along, at); context.lineTo(to.x, to.y); }
      context.stroke();
    }
  }

  function outlines(map, pane, context, colour) {
    // Lines between pixels of different labels.
    if (!map) { return; }
    var slice = cut(map, pane.plane, mapNumber(map, pane.plane)), w = slice.width, h = slice.height, v = slice.values;
    var sx = pane.canvas.width / w, sy = pane.canvas.height / h;
    context.beginPath();
    for (var y = 0; y < h; y++) {
      for (var x = 0; x < w; x++) {
        var i = y * w + x;
        if (x + 1 < w && v[i] !== v[i + 1]) { context.moveTo((x + 1) * sx, y * sy); context.lineTo((x + 1) * sx, (y + 1) * sy); }
        if (y + 1 < h && v[i] !== v[i + w]) { context.moveTo(x * sx, (y + 1) * sy); context.lineTo((x + 1) * sx, (y + 1) * sy); }
      }
    }
    context.lineCap = "square"; context.lineWidth = 1.6 * pane.ratio; context.strokeStyle = colour; context.stroke();
  }

  // ---- drawing --------------------------------------------------------------------------------------------------
  function fit(pane) {
    var plane = pane.plane, box = pane.stage.getBoundingClientRect();
    var width = shape[plane.columns] * spacing[plane.columns], height = shape[plane.rows] * spacing[plane.rows];
    var scale = Math.min(box.width / width, box.height / height);
    pane.ratio = Math.min(2, window.devicePixelRatio || 1);
    var w = Math.max(1, Math.round(width * scale)), h = Math.max(1, Math.round(height * scale));
    pane.canvas.style.width = w + "px"; pane.canvas.style.height = h + "px";
    pane.canvas.width = Math.round(w * pane.ratio); pane.canvas.height = Math.round(h * pane.ratio);
    pane.scale = pane.canvas.width / width;
    pane.stage.style.setProperty("--beside", letterPlace((box.width - w) / 2) + "px");
    pane.stage.style.setProperty("--above", letterPlace((box.height - h) / 2) + "px");
  }
  function letterPlace(free) {
    // Beside the picture where there is room, else on it behind the ticks.
    return free >= 34 ? free - 30 : free + 10;
  }
  function paired() { return ["swipe", "blend", "checker", "edges", "moving", "labels"].indexOf(state.mode) >= 0; }
  function when() { return state.held ? (state.when === "after" ? "before" : "after") : state.when; }
  function draw(pane) {
    var plane = pane.plane, number = state.cursor[plane.across], canvas = pane.canvas, w = canvas.width, h = canvas.height;
    var context = canvas.getContext("2d"), mode = state.mode;
    var fixed = cut(volumes.fixed, plane, number), moving = cut(volumes[when()], plane, number);
    context.globalAlpha = 1; context.imageSmoothingEnabled = true; context.imageSmoothingQuality = "high";
    function put(source) { context.drawImage(source, 0, 0, w, h); }
    if (mode === "moving" || mode === "labels") { put(grey(moving)); }
    else if (mode === "blend") { put(blend(fixed, moving)); }
    else if (mode === "edges") { put(grey(moving)); context.globalAlpha = state.strength; put(edges(fixed, plane)); }
    else if (mode === "swipe") { put(grey(fixed)); part(context, grey(moving), w, h, Math.round(state.swipe * w)); }
    else if (mode === "checker") { put(grey(fixed)); squares(context, grey(moving), w, h); }
    else { put(grey(fixed)); }
    context.globalAlpha = state.strength;
    if (mode === "jacobian") { put(jacobian(cut(maps.jacobian, plane, mapNumber(maps.jacobian, plane)))); }
    if (mode === "uncertainty") { put(scaled(cut(maps.uncertainty, plane, mapNumber(maps.uncertainty, plane)))); }
    if (mode === "arrows") { shade(context, w, h); arrows(pane, context); }
    if (mode === "grid") { shade(context, w, h); lines(pane, context); }
    if (mode === "labels") { outlines(labels.fixed, pane, context, "rgb(255,150,40)"); outlines(labels[when()], pane, context, "rgb(70,160,255)"); }
    context.globalAlpha = 1;
    if (mode === "swipe") { bar(pane, context, Math.round(state.swipe * w), h); }
    ticks(pane, context, w, h);
  }
  function shade(context, w, h) { context.fillStyle = "rgba(0,0,0,.35)"; context.fillRect(0, 0, w, h); }
  function part(context, source, w, h, from) {
    context.save(); context.beginPath(); context.rect(from, 0, w - from, h); context.clip();
    context.drawImage(source, 0, 0, w, h); context.restore();
  }
  function squares(context, source, w, h) {
    var edge = Math.max(w, h) / 8;
    context.save(); context.beginPath();
    for (var r = 0; r * edge < h; r++) {
      for (var c = (r + 1) % 2; c * edge < w; c += 2) { context.rect(Math.round(c * edge), Math.round(r * edge), Math.round((c + 1) * edge) - Math.round(c * edge), Math.round((r + 1) * edge) - Math.round(r * edge)); }
    }
    context.clip(); context.drawImage(source, 0, 0, w, h); context.restore();
  }
  function bar(pane, context, at, h) {
    var r = pane.ratio;
    context.fillStyle = "rgba(0,0,0,.55)"; context.fillRect(at - 1.5 * r, 0, 3 * r, h);
    context.fillStyle = "#fff"; context.fillRect(at - 0.75 * r, 0, 1.5 * r, h);
    context.beginPath(); context.arc(at, h / 2, 9 * r, 0, 2 * Math.PI); context.fill();
    context.strokeStyle = "#0d1014"; context.lineWidth = 1.8 * r; context.beginPath();
    context.moveTo(at - 2.2 * r, h / 2 - 3.5 * r); context.lineTo(at - 5.5 * r, h / 2); context.lineTo(at - 2.2 * r, h / 2 + 3.5 * r);
    context.moveTo(at + 2.2 * r, h / 2 - 3.5 * r); context.lineTo(at + 5.5 * r, h / 2); context.lineTo(at + 2.2 * r, h / 2 + 3.5 * r);
    context.stroke();
  }
  function ticks(pane, context, w, h) {
    // Where the two other planes cut this one; the letters begin behind them.
    if (panes.length < 2) { return; }
    var plane = pane.plane, r = pane.ratio, long = 7 * r;
    var row = state.cursor[plane.rows], x = (state.cursor[plane.columns] + 0.5) / shape[plane.columns] * w;
    var y = ((plane.upwards ? shape[plane.rows] - 1 - row : row) + 0.5) / shape[plane.rows] * h;
    context.fillStyle = "rgba(255,255,255,.75)";
    [[x - r / 2, 0, r, long], [x - r / 2, h - long, r, long], [0, y - r / 2, long, r], [w - long, y - r / 2, long, r]].forEach(function (t) { context.fillRect(t[0], t[1], t[2], t[3]); });
  }
  function point(index) {
    // Millimetres, LPS, of an index (z, y, x) of the view grid.
    return data.toPoint.slice(0, data.dimension).map(function (row) {
      return index.slice(3 - data.dimension).reduce(function (sum, v, k) { return sum + v * row[k]; }, row[data.dimension]);
    });
  }
  function position(axis) {
    // Where the slice lies, as the coordinate that grows fastest along its axis, at the place where the planes meet.
    if (data.dimension === 2) { return ""; }
    var steps = data.toPoint.slice(0, 3).map(function (row) { return Math.abs(row[axis]); });
    var main = steps.indexOf(Math.max.apply(null, steps)), at = point(state.cursor)[main];
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
    viewer.dataset.drawn = [state.mode, when()].concat(state.cursor).join(" ");
  }
  function scale() {
    var box = document.getElementById("scale"), mode = state.mode, map = data.maps[mode];
    box.hidden = !(map || mode === "arrows");
    document.getElementById("opacity-box").hidden = ["edges", "labels", "jacobian", "uncertainty", "arrows", "grid"].indexOf(mode) < 0;
    if (box.hidden) { return; }
    var context = document.getElementById("scale-bar").getContext("2d");
    for (var i = 0; i < 256; i++) {
      if (mode === "jacobian") {
        var octaves = (i - 128) / 63.5, c = octaves < 0 ? colours.smaller : colours.larger, a = Math.min(0.85, Math.abs(octaves) * 0.85);
        context.fillStyle = "rgb(" + c.map(function (v) { return Math.round(128 * (1 - a) + v * a); }).join() + ")";
      } else { context.fillStyle = viridis(mode === "arrows" ? 0.12 + 0.88 * i / 255 : i / 255); }
      context.fillRect(i, 0, 1, 12);
    }
    var high = mode === "arrows" ? data.vectors.high : map.high;
    document.getElementById("scale-low").textContent = mode === "jacobian" ? "¼" : "0 mm";
    document.getElementById("scale-high").textContent = mode === "jacobian" ? "4 times the volume" : high.toPrecision(3) + " mm";
    document.getElementById("scale-note").textContent = mode === "arrows" ? "longest " + data.vectors.largest.toPrecision(3) + " mm" : "";
  }

  // ---- what the reader does ---------------------------------------------------------------------------------------
  function choose(group, name, value) {
    group.querySelectorAll("button").forEach(function (button) {
      var chosen = button.dataset[name] === value;
      button.setAttribute("aria-checked", chosen); button.tabIndex = chosen ? 0 : -1;
    });
  }
  var modes = document.getElementById("modes"), states = document.getElementById("states");
  function setMode(mode) {
    if (!modes.querySelector('[data-mode="' + mode + '"]')) { return; }
    state.mode = mode; choose(modes, "mode", mode);
    document.getElementById("explain").textContent = EXPLAIN[mode];
    states.querySelectorAll("button").forEach(function (b) { b.disabled = !paired(); });
    scale(); refresh();
  }
  function setWhen(chosen) { state.when = chosen; choose(states, "state", when()); refresh(); }
  function hold(down) { state.held = down; setWhen(state.when); }
  function turn(pane, steps) {
    var axis = pane.plane.across, at = state.cursor[axis] + steps;
    state.cursor[axis] = Math.max(0, Math.min(shape[axis] - 1, at)); refresh();
  }
  function activate(number) { state.active = number; refresh(); }
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
  document.getElementById("opacity").addEventListener("input", function (event) { state.strength = event.target.value / 100; refresh(); });
  document.getElementById("print").addEventListener("click", function () { window.print(); });
  var help = document.getElementById("help");
  document.getElementById("help-open").addEventListener("click", function () { help.showModal(); });

  function place(pane, event) {
    var box = pane.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width * pane.canvas.width, y: (event.clientY - box.top) / box.height * pane.canvas.height };
  }
  function link(pane, event) {
    var p = place(pane, event), index = toIndex(pane, p.x, p.y);
    [pane.plane.rows, pane.plane.columns].forEach(function (a) { state.cursor[a] = Math.max(0, Math.min(shape[a] - 1, Math.round(index[a]))); });
    refresh();
  }
  function readout(pane, event) {
    var p = place(pane, event), index = toIndex(pane, p.x, p.y), words = [], text = "";
    if (p.x >= 0 && p.y >= 0 && p.x <= pane.canvas.width && p.y <= pane.canvas.height) {
      words.push("x, y" + (data.dimension === 3 ? ", z " : " ") + point(index).map(function (v) { return v.toFixed(1); }).join(", ") + " mm");
      words.push("displaced by " + Math.hypot.apply(null, displacement(index)).toFixed(1) + " mm");
      Object.keys(maps).forEach(function (name) {
        var map = maps[name], at = index.map(function (v, a) { return Math.max(0, Math.min(map.shape[a] - 1, Math.floor((v + 0.5) * map.shape[a] / shape[a]))); });
        var level = map.values[(at[0] * map.shape[1] + at[1]) * map.shape[2] + at[2]], info = data.maps[name];
        var value = info.low + (level - 1) / 254 * (info.high - info.low);
        if (name === "jacobian") { words.push(level === 0 ? "folded" : "Jacobian " + Math.pow(2, value).toFixed(2)); }
        else if (level > 0) { words.push("uncertain by " + value.toFixed(1) + " mm"); }
      });
      text = words.join(" · ");
    }
    document.getElementById("readout").textContent = text;
  }
  function handle(pane, number) {
    var stage = pane.stage, start = null, moved = false, rest = 0;
    stage.addEventListener("focus", function () { activate(number); });
    stage.addEventListener("wheel", function (event) {
      if (event.ctrlKey || shape[pane.plane.across] < 2) { return; }
      event.preventDefault();
      rest += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY;
      var steps = Math.trunc(rest);
      if (steps) { rest -= steps; turn(pane, Math.max(-5, Math.min(5, steps))); }
    }, { passive: false });
    stage.addEventListener("pointerdown", function (event) {
      if (event.button) { return; }
      start = { x: event.clientX, y: event.clientY, slice: state.cursor[pane.plane.across] }; moved = false;
      stage.setPointerCapture(event.pointerId); activate(number);
    });
    stage.addEventListener("pointermove", function (event) {
      readout(pane, event);
      if (!start) { return; }
      var dx = event.clientX - start.x;
      if (!moved && Math.hypot(dx, event.clientY - start.y) < 4) { return; }
      moved = true;
      if (state.mode === "swipe") { state.swipe = Math.max(0, Math.min(1, place(pane, event).x / pane.canvas.width)); refresh(); }
      else if (event.pointerType === "touch") { state.cursor[pane.plane.across] = start.slice; turn(pane, Math.round(dx / 6)); }
      else { link(pane, event); }
    });
    stage.addEventListener("pointerup", function (event) { if (start && !moved) { link(pane, event); } start = null; });
    stage.addEventListener("pointercancel", function () { start = null; });
    stage.addEventListener("pointerleave", function () { document.getElementById("readout").textContent = ""; });
    stage.addEventListener("keydown", function (event) {
      var last = shape[pane.plane.across];
      var steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -last, End: last }[event.key];
      if (!steps || event.ctrlKey || event.metaKey || event.altKey) { return; }
      event.preventDefault(); turn(pane, steps);
    });
    pane.range.addEventListener("input", function () { state.cursor[pane.plane.across] = pane.range.value - 1; activate(number); });
  }
  var LETTERS = { s: "swipe", o: "blend", c: "checker", e: "edges", f: "fixed", m: "moving", a: "arrows", g: "grid", j: "jacobian", u: "uncertainty", l: "labels" };
  function other() { return state.when === "after" ? "before" : "after"; }
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) { return; }
    var key = event.key.length === 1 ? event.key.toLowerCase() : event.key, tag = event.target.tagName;
    if (key === "?") { help.showModal(); event.preventDefault(); }
    else if (LETTERS[key]) { setMode(LETTERS[key]); }
    else if (key === "b") { if (paired()) { setWhen(other()); } }
    else if (key === "[" || key === "]") { state.swipe = Math.max(0, Math.min(1, state.swipe + (key === "[" ? -0.05 : 0.05))); refresh(); }
    else if (/^[123]$/.test(key) && panes[key - 1]) { panes[key - 1].stage.focus(); }
    else if (key === " " && tag !== "BUTTON" && tag !== "SUMMARY" && event.target.closest && event.target.closest(".stage")) {
      event.preventDefault();
      if (paired() && !state.held) { hold(true); }
    }
  });
  document.addEventListener("keyup", function (event) { if (event.key === " " && state.held) { hold(false); } });
  window.addEventListener("blur", function () { if (state.held) { hold(false); } });
  window.addEventListener("resize", function () { panes.forEach(fit); refresh(); });

  document.querySelectorAll(".pane").forEach(function (element, number) {
    var pane = {
      element: element, plane: data.planes[number], stage: element.querySelector(".stage"), canvas: element.querySelector("canvas"),
      range: element.querySelector("input"), output: element.querySelector("output")
    };
    panes.push(pane); handle(pane, number);
  });
  load().then(function () {
    panes.forEach(fit); setMode("swipe"); setWhen("after"); show();
    viewer.dataset.ready = "true";
  }, function () {
    document.documentElement.classList.add("no-viewer"); // the still pictures take its place
  });
})();
