
// --- points and lines over two axes, with zoom ------------------------------------------------------------------------

let clips = 0;

/**
 * Draws points over two axes into `holder` and keeps its zoom in `view` ({x: [low, high], y: [low, high]} or nothing).
 * `spec`: {x, y (axes), points: [{row, x, y, xi, yi, color, shape, title, pairs}], lines: [{color, points}], fronts: [points], label, height}.
 */
function xyChart(holder, spec, view) {
  const wide = Math.max(280, holder.clientWidth || 900);
  const high = spec.height ?? 430;
  const x = view.x ?? [spec.x.low, spec.x.high];
  const y = view.y ?? [spec.y.low, spec.y.high];
  const yTicks = axisTicks(spec.y, y, high / 60);
  const yRoom = Math.min(wide * 0.3, Math.max(30, ...yTicks.map((tick) => width(tick.text))));
  const margin = { left: yRoom + 34, right: 16, top: 14, bottom: 50 };
  // As many ticks as fit beside each other.
  let xTicks = axisTicks(spec.x, x, (wide - margin.left) / 70);
  const widest = Math.max(10, ...xTicks.map((tick) => width(tick.text)));
  const room = wide - margin.left - margin.right;
  const slant = Boolean(spec.x.names) && widest * xTicks.length > room * 0.95;
  if (slant) margin.bottom = 46 + Math.min(110, widest * 0.7);
  else if (!spec.x.names && (widest + 14) * xTicks.length > room) xTicks = axisTicks(spec.x, x, room / (widest + 18));
  const area = { left: margin.left, top: margin.top, width: wide - margin.left - margin.right, height: high - margin.top - margin.bottom };
  const px = (at) => area.left + (at - x[0]) / (x[1] - x[0]) * area.width;
  const py = (at) => area.top + area.height - (at - y[0]) / (y[1] - y[0]) * area.height;
  const clip = `clip-${clips += 1}`;
  const root = svg('svg', { viewBox: `0 0 ${wide} ${high}`, role: 'group', 'aria-label': spec.label });
  root.append(svg('defs', {}, svg('clipPath', { id: clip }, svg('rect', { x: area.left - 8, y: area.top - 8, width: area.width + 16, height: area.height + 16 }))));
  for (const tick of yTicks) {
    root.append(svg('line', { class: 'grid', x1: area.left, x2: area.left + area.width, y1: py(tick.at), y2: py(tick.at) }),
      svg('text', { class: 'tick', x: area.left - 8, y: py(tick.at) + 4, 'text-anchor': 'end' }, fit(tick.text, yRoom + 4)));
  }
  for (const tick of xTicks) {
    root.append(svg('line', { class: 'grid', y1: area.top, y2: area.top + area.height, x1: px(tick.at), x2: px(tick.at) }));
    const below = area.top + area.height + 18;
    root.append(slant
      ? svg('text', { class: 'tick', transform: `translate(${px(tick.at) + 4},${below - 4}) rotate(-40)`, 'text-anchor': 'end' }, fit(tick.text, 150))
      : svg('text', { class: 'tick', x: px(tick.at), y: below, 'text-anchor': 'middle' }, tick.text));
  }
  root.append(svg('path', { class: 'axis', fill: 'none', d: `M${area.left},${area.top}V${area.top + area.height}H${area.left + area.width}` }));
  root.append(svg('text', { class: 'axis-label', x: area.left + area.width / 2, y: high - 6, 'text-anchor': 'middle' }, fit(heading(spec.x.column) + (spec.x.log ? ', logarithmic' : '') + arrow(spec.x.column, '→', '←'), area.width, 12.5)));
  root.append(svg('text', { class: 'axis-label', transform: `translate(12,${area.top + area.height / 2}) rotate(-90)`, 'text-anchor': 'middle' }, fit(heading(spec.y.column) + (spec.y.log ? ', logarithmic' : '') + arrow(spec.y.column, '→', '←'), area.height, 12.5)));
  const hot = svg('rect', { class: 'hot', x: area.left, y: area.top, width: area.width, height: area.height });
  root.append(hot);
  const inside = svg('g', { 'clip-path': `url(#${clip})` });
  root.append(inside);
  for (const front of spec.fronts ?? []) inside.append(svg('path', { class: 'front', d: path(front.map((point) => [px(point.x), py(point.y)])) }));
  for (const line of spec.lines ?? []) inside.append(svg('path', { class: 'series', stroke: line.color, d: path(line.points.map((point) => [px(point.x), py(point.y)])) }));
  const size = spec.points.length > 400 ? 3.2 : spec.points.length > 80 ? 4.2 : 5.5;
  const within = (point) => point.x >= x[0] && point.x <= x[1] && point.y >= y[0] && point.y <= y[1];
  const marks = [];
  // The recommended ones last: on top.
  for (const point of spec.points.slice().sort((a, b) => Number(a.row?.best ?? 0) - Number(b.row?.best ?? 0))) {
    if (!within(point)) continue;
    const [cx, cy] = [px(point.x), py(point.y)];
    if (point.yi) inside.append(svg('line', { class: 'ci', stroke: point.color, x1: cx, x2: cx, y1: py(point.yi[0]), y2: py(point.yi[1]) }));
    if (point.xi) inside.append(svg('line', { class: 'ci', stroke: point.color, y1: cy, y2: cy, x1: px(point.xi[0]), x2: px(point.xi[1]) }));
    const node = svg('path', { class: 'dot', d: SHAPES[point.shape ?? 0](cx, cy, point.row?.best ? size + 2 : size), fill: point.color });
    if (point.row?.best) node.classList.add('best');
    if (point.row?.barred) { node.classList.add('barred'); node.style.stroke = point.color; }
    if (point.row && isSelected(point.row)) node.classList.add('selected');
    inside.append(node);
    marks.push({ node, row: point.row, title: point.title, pairs: point.pairs, cx });
  }
  marks.sort((a, b) => a.cx - b.cx);
  if (data.simulated) root.append(svg('text', { class: 'water', x: area.left + area.width, y: area.top + 2, 'text-anchor': 'end' }, 'SIMULATED'));
  const redraw = () => { hideTip(); xyChart(holder, spec, view); };
  const zoom = zooming(root, hot, area, { x, y, wide, view, redraw });
  interactive(root, marks, zoom);
  holder.replaceChildren(root);
  return zoom;
}
const path = (points) => points.map(([x, y], at) => `${at ? 'L' : 'M'}${x.toFixed(1)},${y.toFixed(1)}`).join('');
const arrow = (column, up, down) => (column.better > 0 ? ` ${up} better` : column.better < 0 ? ` ${down} better` : '');

/** Drag a box, turn the wheel (with Ctrl, or after a click into the plot), double-click to see all again. */
function zooming(root, hot, area, { x, y, wide, view, redraw }) {
  const place = (event) => {
    const box = root.getBoundingClientRect();
    const scale = wide / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  const toX = (at) => x[0] + (at - area.left) / area.width * (x[1] - x[0]);
  const toY = (at) => y[0] + (area.top + area.height - at) / area.height * (y[1] - y[0]);
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const about = (factor, [cx, cy]) => {
    const [ax, ay] = [toX(cx), toY(cy)];
    view.x = [ax + (x[0] - ax) * factor, ax + (x[1] - ax) * factor];
    view.y = [ay + (y[0] - ay) * factor, ay + (y[1] - ay) * factor];
    redraw();
  };
  const reset = () => { delete view.x; delete view.y; redraw(); };
  let band = null;
  hot.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    view.awake = true;
    const from = place(event);
    band = { from, node: svg('rect', { class: 'band', x: from[0], y: from[1], width: 0, height: 0 }) };
    root.append(band.node);
    hot.setPointerCapture(event.pointerId);
  });
  hot.addEventListener('pointermove', (event) => {
    if (!band) return;
    const to = place(event).map((value, at) => (at ? clamp(value, area.top, area.top + area.height) : clamp(value, area.left, area.left + area.width)));
    band.to = to;
    fill(band.node, { x: Math.min(band.from[0], to[0]), y: Math.min(band.from[1], to[1]), width: Math.abs(to[0] - band.from[0]), height: Math.abs(to[1] - band.from[1]) }, []);
  });
  hot.addEventListener('pointerup', () => {
    if (!band) return;
    const { from, to, node } = band;
    band = null;
    node.remove();
    if (!to || Math.abs(to[0] - from[0]) < 8 || Math.abs(to[1] - from[1]) < 8) return;
    view.x = [toX(Math.min(from[0], to[0])), toX(Math.max(from[0], to[0]))];
    view.y = [toY(Math.max(from[1], to[1])), toY(Math.min(from[1], to[1]))];
    redraw();
  });
  hot.addEventListener('pointercancel', () => { band?.node.remove(); band = null; });
  root.addEventListener('dblclick', (event) => { event.preventDefault(); reset(); });
  root.addEventListener('wheel', (event) => {
    if (!event.ctrlKey && !view.awake) return;
    event.preventDefault();
    about(event.deltaY < 0 ? 0.8 : 1.25, place(event));
  }, { passive: false });
  root.addEventListener('pointerleave', () => { if (!band) view.awake = false; });
  return { reset, zoom: (factor) => about(factor, [area.left + area.width / 2, area.top + area.height / 2]) };
}

/** Colours by a column: few values get a colour and a shape each, many numbers a ramp. */
function coloring(column, rows) {
  if (!column) return { of: () => ({ color: 'var(--s0)', shape: 0, key: '' }), names: [] };
  const values = rows.map((row) => column.value(row)).filter((value) => value !== null);
  const names = [...new Set(values)].sort(order);
  if (column.numeric && (column.kind === 'metric' || names.length > 8)) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return { ramp: [low, high], names: [], of: (row) => {
      const value = column.value(row);
      return { color: value === null ? 'var(--s7)' : ramp(0.2 + 0.8 * (high > low ? (value - low) / (high - low) : 1)), shape: 0, key: '' };
    } };
  }
  const at = new Map(names.map((name, index) => [name, index]));
  return { names, of: (row) => {
    const value = column.value(row);
    const index = at.get(value);
    return index === undefined ? { color: 'var(--s7)', shape: 0, key: '' } : { color: seriesColor(index), shape: seriesShape(index), key: String(value) };
  } };
}

/** Buttons that hide and show what has one colour. */
function legend(holder, title, names, hidden, redraw) {
  const swatch = (index) => svg('svg', { width: 14, height: 14, viewBox: '0 0 14 14', 'aria-hidden': 'true' }, svg('path', { d: SHAPES[seriesShape(index)](7, 7, 4.5), fill: seriesColor(index) }));
  holder.replaceChildren(el('span', { class: 'scale' }, title), ...names.map((name, index) => {
    const button = el('button', { type: 'button', 'aria-pressed': String(!hidden.has(String(name))), onclick() {
      if (hidden.has(String(name))) hidden.delete(String(name)); else hidden.add(String(name));
      button.setAttribute('aria-pressed', String(!hidden.has(String(name))));
      redraw();
    } }, swatch(index), String(name));
    return button;
  }));
}
function rampLegend(holder, column, [low, high]) {
  holder.replaceChildren(el('span', { class: 'scale' }, el('span', {}, heading(column)), el('span', {}, number(low)), el('span', { class: 'ramp' }), el('span', {}, number(high))));
}
