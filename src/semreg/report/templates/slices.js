// What the viewer reads of the page: stacks decoded once into arrays (z, y, x), slices of them, displacements, places.
// Axes are 0, 1, 2 for z, y, x of the view grid, whose axes are nearest to superior, posterior, left. Knows no controls.
function makeSlices(data) {
  "use strict";
  var shape = data.shape, spacing = data.spacing, colours = data.colours;
  var volumes = {}, maps = {}, labels = {}, vectors = null, lengths = {};

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
    sheets.uris = null;
    return { shape: size, values: values };
  }
  async function load() {
    for (var name in data.stacks) { volumes[name] = await decode(data.stacks[name], shape); }
    for (var key in data.maps) { maps[key] = await decode(data.maps[key], data.maps[key].shape); }
    for (var role in data.labels) { labels[role] = await decode(data.labels[role], data.labels[role].shape); }
    var v = data.vectors, size = v.shape, count = size[0] * size[1] * size[2];
    var bytes = (await decode(v, [6 * size[0], size[1], size[2]])).values;
    vectors = { shape: size, values: [0, 1, 2].map(function (c) {
      var part = new Float32Array(count);
      for (var i = 0; i < count; i++) { part[i] = (bytes[c * count + i] * 256 + bytes[(c + 3) * count + i] - 32768) / 32767 * v.reach; }
      return part;
    }) };
  }

  // ---- grey values ------------------------------------------------------------------------------------------------
  function greyTable(role, low, high) {
    // The grey of each byte of an image where ``low`` is black and ``high`` white.
    return Uint8ClampedArray.from(data.greys[role].table, function (value) { return (value - low) / (high - low) * 255; });
  }
  function cut(volume, plane, number, table) {
    // The slice as it is drawn, first row on top: {width, height, values}, through a table of 256 if there is one.
    var size = volume.shape, strides = [size[1] * size[2], size[2], 1];
    var height = size[plane.rows], width = size[plane.columns], values = new Uint8Array(width * height);
    var down = strides[plane.rows], right = strides[plane.columns], base = number * strides[plane.across];
    for (var r = 0; r < height; r++) {
      var from = base + (plane.upwards ? height - 1 - r : r) * down, to = r * width;
      for (var c = 0; c < width; c++) {
        var value = volume.values[from + c * right];
        values[to + c] = table ? table[value] : value;
      }
    }
    return { width: width, height: height, values: values };
  }
  function nearest(volume, index) {
    // The byte at an index of the view grid.
    var at = index.map(function (v, a) { return Math.max(0, Math.min(volume.shape[a] - 1, Math.floor((v + 0.5) * volume.shape[a] / shape[a]))); });
    return volume.values[(at[0] * volume.shape[1] + at[1]) * volume.shape[2] + at[2]];
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

  // ---- maps: one colour a value, the same on the picture and on its scale -----------------------------------------
  function viridis(share) {
    var k = 3 * Math.max(0, Math.min(255, Math.round(share * 255)));
    return colours.viridis.slice(k, k + 3);
  }
  function reachOf(total) {
    // Octaves at the ends of the colours of the Jacobian map.
    var own = data.maps.jacobian.reach;
    return total ? [0.5, 1, 2].find(function (r) { return Math.abs(data.octaves) + own <= r; }) || 2 : own;
  }
  function volumeColour(octaves, total) {
    // Red, green, blue and opacity 0..1 of a Jacobian determinant; null: folded.
    if (octaves === null) { return colours.folded.concat(1); }
    return (octaves < 0 ? colours.smaller : colours.larger).concat(0.85 * Math.min(1, Math.abs(octaves) / reachOf(total)));
  }
  function octavesOf(level, total) { return level === 0 ? null : (level - 128) / 63.5 + (total ? data.octaves : 0); }
  function mapPicture(name, plane, number, total) {
    var map = maps[name], at = Math.min(map.shape[plane.across] - 1, Math.floor((number + 0.5) * map.shape[plane.across] / shape[plane.across]));
    var slice = cut(map, plane, at), table = [];
    for (var level = 0; level < 256; level++) {
      table.push(name === "jacobian" ? volumeColour(octavesOf(level, total), total) : viridis(level / 255).concat(level === 0 ? 0 : 0.7));
    }
    return painted(slice, function (i, p, k) {
      var c = table[slice.values[i]];
      p[k] = c[0]; p[k + 1] = c[1]; p[k + 2] = c[2]; p[k + 3] = 255 * c[3];
    });
  }
  function lengthPicture(plane, number, total) {
    // Lengths of the displacement on its lattice, which the canvas makes smooth.
    var size = vectors.shape, high = lengthsOf(total).high, values = [], index = [];
    index[plane.across] = number;
    for (var r = 0; r < size[plane.rows]; r++) {
      var row = (r + 0.5) * shape[plane.rows] / size[plane.rows] - 0.5;
      index[plane.rows] = plane.upwards ? shape[plane.rows] - 1 - row : row;
      for (var c = 0; c < size[plane.columns]; c++) {
        index[plane.columns] = (c + 0.5) * shape[plane.columns] / size[plane.columns] - 0.5;
        values.push(Math.hypot.apply(null, displacement(index, total)));
      }
    }
    return painted({ width: size[plane.columns], height: size[plane.rows], values: values }, function (i, p, k) {
      var colour = viridis(values[i] / high);
      p[k] = colour[0]; p[k + 1] = colour[1]; p[k + 2] = colour[2]; p[k + 3] = 255 * 0.7;
    });
  }

  // ---- displacement ---------------------------------------------------------------------------------------------
  function displacement(index, total) {
    // Millimetres along z, y, x at an index of the view grid, linear between the nodes; total: with the alignment.
    var low = [], part = [], size = vectors.shape, result = [0, 0, 0];
    for (var a = 0; a < 3; a++) {
      var at = Math.max(0, Math.min(size[a] - 1, (index[a] + 0.5) * size[a] / shape[a] - 0.5));
      low[a] = Math.min(Math.floor(at), Math.max(0, size[a] - 2)); part[a] = at - low[a];
    }
    for (var corner = 0; corner < 8; corner++) {
      var weight = 1, place = 0;
      for (a = 0; a < 3; a++) {
        var up = corner >> a & 1;
        weight *= up ? part[a] : 1 - part[a];
        place = place * size[a] + Math.min(low[a] + up, size[a] - 1);
      }
      if (weight > 0) { for (var c = 0; c < 3; c++) { result[c] += weight * vectors.values[c][place]; } }
    }
    if (!total || !data.linear) { return result; }
    var moved = result.map(function (mm, axis) { return index[axis] + mm / spacing[axis]; });
    return data.linear.slice(0, 3).map(function (row, axis) {
      return (row[0] * moved[0] + row[1] * moved[1] + row[2] * moved[2] + row[3] - index[axis]) * spacing[axis];
    });
  }
  function lengthsOf(total) {
    // The largest length, and the one that 99.5 % are below: where the colours end.
    var key = String(total);
    if (!lengths[key]) {
      var size = vectors.shape, all = [];
      for (var z = 0; z < size[0]; z++) {
        for (var y = 0; y < size[1]; y++) {
          for (var x = 0; x < size[2]; x++) {
            var index = [z, y, x].map(function (n, a) { return (n + 0.5) * shape[a] / size[a] - 0.5; });
            all.push(Math.hypot.apply(null, displacement(index, total)));
          }
        }
      }
      all.sort(function (a, b) { return a - b; });
      lengths[key] = { largest: all[all.length - 1], high: all[Math.floor(0.995 * (all.length - 1))] || 1 };
    }
    return lengths[key];
  }

  // ---- places -----------------------------------------------------------------------------------------------------
  function point(index) {
    // Millimetres, LPS, of an index (z, y, x) of the view grid.
    return data.toPoint.slice(0, data.dimension).map(function (row) {
      return index.slice(3 - data.dimension).reduce(function (sum, v, k) { return sum + v * row[k]; }, row[data.dimension]);
    });
  }
  function valueAt(index, stateKey) {
    // What is there, in words.
    var words = [], inside = index.every(function (v, a) { return v >= -0.5 && v <= shape[a] - 0.5; });
    if (!inside) { return ""; }
    function value(role, key) {
      var greys = data.greys[role], v = greys.table[nearest(volumes[key], index)];
      return (Math.abs(v) >= 100 || v === 0 ? v.toFixed(0) : v.toPrecision(3)).replace("-", "\u2212") + (greys.unit ? " " + greys.unit : "");
    }
    words.push("x, y" + (data.dimension === 3 ? ", z " : " ") + point(index).map(function (v) { return v.toFixed(1).replace("-", "\u2212"); }).join(", ") + (data.dimension === 3 ? " mm (LPS)" : " mm"));
    words.push("fixed " + value("fixed", "fixed"), "moving " + value("moving", stateKey));
    words.push("deformed by " + Math.hypot.apply(null, displacement(index, false)).toFixed(1) + " mm" +
      (data.linear ? ", in all " + Math.hypot.apply(null, displacement(index, true)).toFixed(1) + " mm" : ""));
    var octaves = octavesOf(nearest(maps.jacobian, index), false);
    words.push(octaves === null ? "folded" : "Jacobian " + Math.pow(2, octaves).toFixed(2));
    if (maps.uncertainty) {
      var level = nearest(maps.uncertainty, index), info = data.maps.uncertainty;
      if (level > 0) { words.push("uncertain by " + (info.low + (level - 1) / 254 * (info.high - info.low)).toFixed(1) + " mm"); }
    }
    return words.join(" · ");
  }

  return {
    load: load, volumes: volumes, maps: maps, labels: labels, cut: cut, grey: grey, blend: blend, edges: edges, greyTable: greyTable,
    mapPicture: mapPicture, lengthPicture: lengthPicture, volumeColour: volumeColour, reachOf: reachOf, viridis: viridis,
    displacement: displacement, lengthsOf: lengthsOf, point: point, valueAt: valueAt
  };
}
