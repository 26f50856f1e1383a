
// --- the plots --------------------------------------------------------------------------------------------------------

const known = [...metrics, ...times].filter((metric) => single.some((row) => metric.value(row) !== null));
const ranked = byId.get('f:' + data.rank_by) ?? known[0];
const latency = byId.get('f:' + data.latency) ?? known[1] ?? known[0];
const manyValues = (setting) => setting.values.length > 1;
const steps = varying.filter((setting) => manyValues(setting) && setting.numeric);
const loadStep = steps.find((setting) => ['max-concurrency', 'request-rate'].includes(setting.label)) ?? steps.find((setting) => setting.load) ?? steps[0];

/** A choice that is kept in the address. */
function choice(name, label, all, fallback, redraw) {
  const id = state.plots[name];
  const current = all.find((column) => (column?.id ?? 'none') === id) ?? fallback;
  const pairs = all.map((column) => [column?.id ?? 'none', column ? heading(column) : 'nothing']);
  const control = el('select', { 'data-plot': name, onchange() { state.plots[name] = this.value; writeAddress(); redraw(); } }, options(pairs, current?.id ?? 'none'));
  return { control: labelled(label, control), get column() { return byId.get(control.value) ?? null; }, control_: control };
}
function tickBox(name, label, redraw) {
  const input = el('input', { type: 'checkbox', 'data-plot': name, checked: state.plots[name] === '1', onchange() { state.plots[name] = this.checked ? '1' : ''; writeAddress(); redraw(); } });
  return { control: el('label', { class: 'check' }, input, label), get on() { return input.checked; } };
}
const empty = (holder, text) => holder.replaceChildren(el('p', { class: 'faint' }, text));
const NOTHING = 'No row of the table has both metrics: change the filters or the axes.';

/** Any metric or setting against any other; the front where both have a better end. */
function scatterPanel(panel) {
  const redraw = () => draw();
  const axes = [...known, ...varying];
  const x = choice('x', 'Across', axes, latency, () => { view = {}; draw(); });
  const y = choice('y', 'Up', axes, ranked, () => { view = {}; draw(); });
  const color = choice('color', 'Colour', [null, ...varying, ...known], varying.find((setting) => setting.values.length <= 8) ?? null, () => { hidden.clear(); draw(); });
  const logX = tickBox('logx', 'log across', () => { view = {}; draw(); });
  const logY = tickBox('logy', 'log up', () => { view = {}; draw(); });
  const plot = el('div', { class: 'plot', id: 'scatter' });
  const keys = el('div', { class: 'legend' });
  const hidden = new Set();
  let view = {};
  let zoom = null;
  const reset = el('button', { type: 'button', 'data-reset': '', onclick: () => zoom?.reset() }, 'Reset zoom');
  panel.append(el('div', { class: 'controls' }, x.control, y.control, color.control, logX.control, logY.control, el('span', { class: 'push' }, reset)), plot, keys,
    el('p', { class: 'help' }, 'Drag a box to zoom; wheel with Ctrl, or after a click into the plot; double-click for all. Tab into the plot, then arrow keys, + and −, Enter selects the row. A dashed line joins what nothing of the same model and load beats in both; hollow points have a warning and are excluded from the ranking.'));
  function draw() {
    const rows = shownRows().filter((row) => x.column.value(row) !== null && y.column.value(row) !== null);
    if (!rows.length) { keys.replaceChildren(); return empty(plot, NOTHING); }
    const paint = coloring(color.column, rows);
    if (paint.ramp) rampLegend(keys, color.column, paint.ramp);
    else if (paint.names.length) legend(keys, color.column.label, paint.names, hidden, redraw);
    else keys.replaceChildren();
    const ax = axisOf(x.column, rows.map((row) => x.column.value(row)), logX.on);
    const ay = axisOf(y.column, rows.map((row) => y.column.value(row)), logY.on);
    const ends = (axis, interval) => { const both = interval?.slice(0, 2).map(axis.of); return both && both.every((end) => end !== null) ? both : null; };
    const points = rows.map((row) => ({
      row, x: ax.of(x.column.value(row)), y: ay.of(y.column.value(row)), xi: ends(ax, x.column.interval(row)), yi: ends(ay, y.column.interval(row)),
      ...paint.of(row), title: configuration(row), pairs: () => facts(row, [x.column, y.column, color.column]),
    })).filter((point) => point.x !== null && point.y !== null && !hidden.has(point.key));
    zoom = xyChart(plot, { x: ax, y: ay, points, fronts: frontsOf(points, x.column, y.column, ax, ay), label: `${y.column.label} against ${x.column.label}` }, view);
  }
  return draw;
}
/** The fronts of these axes, as the page's maker found them for each model and load, as far as their configurations are shown. */
function frontsOf(points, x, y, ax, ay) {
  const [first, second] = [Math.min(x.at, y.at), Math.max(x.at, y.at)];
  const [, , all] = (x.kind === 'metric' && y.kind === 'metric' && data.fronts.find(([a, b]) => a === first && b === second)) || [0, 0, []];
  const there = new Set(points.flatMap((point) => point.row.members));
  const of = new Map(averaged.map((row) => [row.index, row]));
  const place = (row) => ({ x: ax.of(x.value(row)), y: ay.of(y.value(row)) });
  return all.map((rows) => rows.map((index) => of.get(index)).filter((row) => row.members.some((member) => there.has(member)))
    .map(place).filter((point) => point.x !== null && point.y !== null).sort((a, b) => a.x - b.x)).filter((front) => front.length > 1);
}

/** Two metrics against a number that varies: a line for each configuration. */
function linesPanel(panel) {
  if (!steps.length) {
    panel.append(el('p', { class: 'faint' }, 'No setting with numbers varies in this run, so that there is nothing to draw lines over.'));
    return () => {};
  }
  const x = choice('over', 'Over', steps, loadStep, () => draw());
  const upper = choice('line1', 'First', known, byId.get('f:output_throughput') ?? ranked, () => draw());
  const lower = choice('line2', 'Second', known, byId.get('f:mean_ttft_ms') ?? latency, () => draw());
  // Where there are too many configurations for a line each: one for each value of a setting.
  const configurations = new Set(single.map((row) => configuration(row, [x.column.id]))).size;
  const coarse = varying.find((setting) => setting !== x.column && setting.values.length > 1 && setting.values.length <= 12) ?? null;
  const by = choice('by', 'A line for each', [null, ...varying], configurations > 24 ? coarse : null, () => { hidden.clear(); draw(); });
  by.control_.options[0].textContent = 'configuration';
  const log = tickBox('linelog', 'log across', () => draw());
  const holders = [el('div', { class: 'plot' }), el('div', { class: 'plot' })];
  const keys = el('div', { class: 'legend' });
  const hidden = new Set();
  const views = [{}, {}];
  panel.append(el('div', { class: 'controls' }, x.control, upper.control, lower.control, by.control, log.control), el('div', { class: 'pair' }, holders), keys,
    el('p', { class: 'help' }, 'A line goes through the means where several rows share a place. Legend entries switch lines off and on.'));
  function draw() {
    const over = x.column;
    const rows = shownRows().filter((row) => over.value(row) !== null && row.metrics);
    const nameOf = (row) => (by.column ? by.column.text(row) : configuration(row, [over.id]));
    const names = [...new Set(rows.map(nameOf))].sort(order);
    legend(keys, '', names, hidden, draw);
    [upper.column, lower.column].forEach((metric, side) => {
      const usable = rows.filter((row) => metric.value(row) !== null);
      if (!usable.length) return empty(holders[side], NOTHING);
      const ax = axisOf(over, usable.map((row) => over.value(row)), log.on);
      const ay = axisOf(metric, usable.map((row) => metric.value(row)), false);
      const points = [];
      const drawn = [];
      names.forEach((name, index) => {
        if (hidden.has(String(name))) return;
        const mine = usable.filter((row) => nameOf(row) === name);
        const at = new Map();
        for (const row of mine) {
          const place = ax.of(over.value(row));
          at.set(place, [...(at.get(place) ?? []), ay.of(metric.value(row))]);
          points.push({ row, x: place, y: ay.of(metric.value(row)), yi: metric.interval(row)?.slice(0, 2) ?? null, color: seriesColor(index), shape: seriesShape(index), title: name || configuration(row), pairs: () => facts(row, [over, metric]) });
        }
        const line = [...at].map(([place, values]) => ({ x: place, y: values.reduce((a, b) => a + b, 0) / values.length })).sort((a, b) => a.x - b.x);
        if (line.length > 1) drawn.push({ color: seriesColor(index), points: line });
      });
      xyChart(holders[side], { x: ax, y: ay, points, lines: drawn, label: `${metric.label} over ${over.label}`, height: 380 }, views[side]);
    });
  }
  return draw;
}

/** Horizontal bars: names on the left, the best on top. `parts(row)`: [{size, color, text}]. */
function bars(holder, rows, { parts, name, ends, title, pairs, unit, label }) {
  const wide = Math.max(280, holder.clientWidth || 900);
  const line = rows.length > 60 ? 17 : 24;
  const names = rows.map(name);
  const left = Math.min(wide * 0.42, 12 + Math.max(40, ...names.map((text) => width(text))));
  const sizes = rows.map((row) => parts(row).reduce((sum, part) => sum + part.size, 0));
  const most = Math.max(...sizes, ...rows.map((row) => ends?.(row)?.[1] ?? 0)) || 1;
  const valueRoom = Math.max(...sizes.map((size) => width(number(size)))) + 14;
  const room = Math.max(60, wide - left - valueRoom - 8);
  const px = (size) => left + Math.max(0, size) / most * room;
  const high = rows.length * line + 44;
  const root = svg('svg', { viewBox: `0 0 ${wide} ${high}`, role: 'group', 'aria-label': label });
  const all = ticks(0, most, Math.max(2, room / 90));
  for (const tick of all) {
    root.append(svg('line', { class: 'grid', x1: px(tick.value), x2: px(tick.value), y1: 6, y2: high - 36 }), svg('text', { class: 'tick', x: px(tick.value), y: high - 22, 'text-anchor': 'middle' }, tick.text));
  }
  const marks = [];
  rows.forEach((row, at) => {
    const top = 6 + at * line;
    root.append(svg('text', { class: 'tick', x: left - 8, y: top + line / 2 + 4, 'text-anchor': 'end' }, fit(names[at], left - 12)));
    const group = svg('g', { class: 'bar' });
    let from = 0;
    for (const part of parts(row)) {
      group.append(svg('rect', { x: px(from), y: top + 2, width: Math.max(0.5, px(from + part.size) - px(from)), height: line - 5, fill: part.color, rx: 1.5 }));
      from += part.size;
    }
    if (row.barred) group.setAttribute('opacity', 0.4);
    if (isSelected(row)) group.classList.add('selected');
    const interval = ends?.(row);
    if (interval) group.append(svg('path', { class: 'whisker', fill: 'none', d: `M${px(interval[0])},${top + line / 2 - 0.5}H${px(interval[1])}` }));
    root.append(group, svg('text', { class: 'tick', x: px(Math.max(from, interval?.[1] ?? 0)) + 6, y: top + line / 2 + 4 }, number(from)));
    marks.push({ node: group, row, title: title(row), pairs: () => pairs(row) });
  });
  root.append(svg('text', { class: 'axis-label', x: left + room / 2, y: high - 5, 'text-anchor': 'middle' }, unit));
  if (data.simulated) root.append(svg('text', { class: 'water', x: wide - 2, y: high - 5, 'text-anchor': 'end' }, 'SIMULATED'));
  interactive(root, marks);
  holder.replaceChildren(root);
}
function howMany(name, redraw) {
  const control = el('select', { 'data-plot': name, onchange() { state.plots[name] = this.value; writeAddress(); redraw(); } }, options([['', '30'], ['100', '100'], ['all', 'all']], state.plots[name] ?? ''));
  return { control: labelled('Rows', control), get most() { return control.value === 'all' ? Infinity : Number(control.value || 30); } };
}
const heldBack = (note, shown, all) => { note.textContent = all > shown ? `The first ${shown} of ${all}.` : ''; };

function barsPanel(panel) {
  const metric = choice('bar', 'Metric', known, ranked, () => draw());
  const color = choice('barcolor', 'Colour', [null, ...varying], varying.find((setting) => setting.values.length <= 8) ?? null, () => { hidden.clear(); draw(); });
  const count = howMany('bars', () => draw());
  const plot = el('div', { class: 'plot' });
  const keys = el('div', { class: 'legend' });
  const note = el('p', { class: 'help' });
  const hidden = new Set();
  panel.append(el('div', { class: 'controls' }, metric.control, color.control, count.control), plot, keys, note);
  function draw() {
    const column = metric.column;
    const rows = shownRows().filter((row) => column.value(row) !== null);
    if (!rows.length) { keys.replaceChildren(); return empty(plot, NOTHING); }
    const paint = coloring(color.column, rows);
    if (paint.ramp) rampLegend(keys, color.column, paint.ramp);
    else if (paint.names.length) legend(keys, color.column.label, paint.names, hidden, draw); else keys.replaceChildren();
    const sign = column.better > 0 ? -1 : 1;
    const sorted = rows.filter((row) => !hidden.has(paint.of(row).key)).sort((a, b) => sign * (column.value(a) - column.value(b)));
    const shown = sorted.slice(0, count.most);
    heldBack(note, shown.length, sorted.length);
    if (!shown.length) return empty(plot, NOTHING);
    bars(plot, shown, {
      parts: (row) => [{ size: column.value(row), color: paint.of(row).color }], name: (row) => configuration(row), ends: (row) => column.interval(row),
      title: (row) => configuration(row), pairs: (row) => facts(row, [column]), unit: heading(column), label: `${column.label} by configuration`,
    });
  }
  return draw;
}

function startupPanel(panel) {
  const count = howMany('starts', () => draw());
  const plot = el('div', { class: 'plot' });
  const keys = el('div', { class: 'legend' });
  const note = el('p', { class: 'help' });
  const hidden = new Set();
  panel.append(el('div', { class: 'controls' }, count.control), plot, keys, note);
  const seconds = (row) => row.phases.filter(([phase]) => !hidden.has(phase)).reduce((sum, [, size]) => sum + size, 0);
  function draw() {
    // One start can serve several measurements: it is shown once for each row that has it.
    const rows = shownRows().filter((row) => row.phases.length);
    if (!rows.length) { keys.replaceChildren(); return empty(plot, 'No row of the table knows the phases of its start.'); }
    legend(keys, '', data.phases, hidden, draw);
    const sorted = rows.slice().sort((a, b) => seconds(b) - seconds(a));
    const shown = sorted.slice(0, count.most);
    heldBack(note, shown.length, sorted.length);
    bars(plot, shown, {
      parts: (row) => row.phases.filter(([phase]) => !hidden.has(phase)).map(([phase, size]) => ({ size, color: seriesColor(data.phases.indexOf(phase)) })),
      name: (row) => configuration(row), title: (row) => configuration(row), pairs: (row) => [...row.phases.map(([phase, size]) => [phase, `${number(size)} s`]), ['together', `${number(seconds(row))} s`]],
      unit: 'seconds from launch to ready, the slowest first', label: 'Startup by phase',
    });
  }
  return draw;
}

/** The mean of a metric for each pair of two settings. */
function heatPanel(panel) {
  const able = varying.filter(manyValues);
  if (able.length < 2) {
    panel.append(el('p', { class: 'faint' }, 'A heat map needs two settings that vary.'));
    return () => {};
  }
  const first = loadStep && able.includes(loadStep) ? loadStep : able[0];
  const x = choice('heatx', 'Across', able, first, () => draw());
  const y = choice('heaty', 'Down', able, able.find((setting) => setting !== first), () => draw());
  const metric = choice('heat', 'Metric', known, ranked, () => draw());
  const plot = el('div', { class: 'plot' });
  const keys = el('div', { class: 'legend' });
  panel.append(el('div', { class: 'controls' }, x.control, y.control, metric.control), plot, keys, el('p', { class: 'help' }, 'Each cell is the mean of the rows that share both settings; a filter on the others narrows it down.'));
  function draw() {
    const column = metric.column;
    const rows = shownRows().filter((row) => [x.column, y.column, column].every((one) => one.value(row) !== null));
    if (!rows.length) { keys.replaceChildren(); return empty(plot, NOTHING); }
    const across = [...new Set(rows.map((row) => x.column.text(row)))].sort(order);
    const down = [...new Set(rows.map((row) => y.column.text(row)))].sort(order);
    const cells = new Map();
    for (const row of rows) {
      const key = JSON.stringify([x.column.text(row), y.column.text(row)]);
      cells.set(key, [...(cells.get(key) ?? []), row]);
    }
    const mean = (all) => all.reduce((sum, row) => sum + column.value(row), 0) / all.length;
    const means = [...cells.values()].map(mean);
    const [low, high] = [Math.min(...means), Math.max(...means)];
    rampLegend(keys, column, [low, high]);
    const wide = Math.max(280, plot.clientWidth || 900);
    const left = Math.min(wide * 0.3, 30 + Math.max(20, ...down.map((text) => width(text))));
    const w = Math.min(150, (wide - left - 8) / across.length);
    const h = Math.max(16, Math.min(46, 520 / down.length));
    const slant = Math.max(...across.map((text) => width(text))) > w - 6;
    const foot = slant ? 40 + Math.min(120, 0.7 * Math.max(...across.map((text) => width(text)))) : 44;
    const tall = down.length * h + foot + 8;
    const root = svg('svg', { viewBox: `0 0 ${wide} ${tall}`, role: 'group', 'aria-label': `${column.label} by ${x.column.label} and ${y.column.label}` });
    const marks = [];
    const every = Math.max(1, Math.ceil(16 / w));
    down.forEach((name, at) => root.append(svg('text', { class: 'tick', x: left - 8, y: 8 + at * h + h / 2 + 4, 'text-anchor': 'end' }, fit(name, left - 30))));
    across.forEach((name, at) => {
      if (at % every) return;
      const [cx, cy] = [left + at * w + w / 2, 8 + down.length * h + 17];
      root.append(slant ? svg('text', { class: 'tick', transform: `translate(${cx + 4},${cy - 4}) rotate(-40)`, 'text-anchor': 'end' }, fit(name, 160)) : svg('text', { class: 'tick', x: cx, y: cy, 'text-anchor': 'middle' }, name));
      return undefined;
    });
    down.forEach((yName, j) => across.forEach((xName, i) => {
      const all = cells.get(JSON.stringify([xName, yName]));
      if (!all) return;
      const value = mean(all);
      const part = high > low ? (value - low) / (high - low) : 1;
      const node = svg('g', { class: 'cell' }, svg('rect', { x: left + i * w + 1, y: 8 + j * h + 1, width: Math.max(1, w - 2), height: h - 2, rx: 2, fill: ramp(part) }));
      const text = number(value);
      if (width(text) < w - 6 && h >= 16) node.append(svg('text', { x: left + i * w + w / 2, y: 8 + j * h + h / 2 + 4, 'text-anchor': 'middle', fill: part > 0.5 ? 'var(--card)' : 'var(--text)' }, text));
      if (all.some(isSelected)) node.classList.add('selected');
      root.append(node);
      const only = all.length === 1 ? all[0] : null;
      marks.push({ node, row: only, title: `${x.column.label} ${xName}, ${y.column.label} ${yName}`, pairs: () => (only ? facts(only, [column]) : [[column.label, `${number(value)} ${column.unit}`], ['rows', String(all.length)]]) });
    }));
    root.append(svg('text', { class: 'axis-label', x: left + across.length * w / 2, y: tall - 6, 'text-anchor': 'middle' }, x.column.label),
      svg('text', { class: 'axis-label', transform: `translate(12,${8 + down.length * h / 2}) rotate(-90)`, 'text-anchor': 'middle' }, fit(y.column.label, Math.max(60, down.length * h), 12.5)));
    if (data.simulated) root.append(svg('text', { class: 'water', x: wide - 2, y: tall - 6, 'text-anchor': 'end' }, 'SIMULATED'));
    interactive(root, marks);
    plot.replaceChildren(root);
  }
  return draw;
}
