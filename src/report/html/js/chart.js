
// --- charts: scales, axes, zoom, tooltips -----------------------------------------------------------------------------

const pen = document.createElement('canvas').getContext('2d');
function width(text, size = 11.5) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}
/** The text, its middle cut so that it fits. */
function fit(text, room, size = 11.5) {
  if (width(text, size) <= room) return text;
  let keep = text.length;
  while (keep > 3) {
    keep -= 1;
    const short = text.slice(0, Math.ceil(keep / 2)) + '…' + text.slice(text.length - Math.floor(keep / 2));
    if (width(short, size) <= room) return short;
  }
  return '…';
}

/** Round values in a range, about `count` of them, with their texts; the steps are those of every plot of the program. */
function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) return [{ value: low, text: tickText(low, 6) }];
  const [step, decimals] = data.round.steps.find(([size]) => span / size <= Math.max(1, count)) ?? data.round.steps.at(-1);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found.map((value) => ({ value, text: tickText(value, decimals, decimals) }));
}
function logTicks(low, high, count) {
  const [, all] = data.round.powers.find(([most]) => most === null || high - low < most);
  const found = all.filter((value) => Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9);
  if (found.length < 2) return ticks(10 ** low, 10 ** high, count);
  const every = Math.ceil(found.length / Math.max(2, count + 2));
  return found.filter((_, at) => at % every === 0).map((value) => ({ value, text: tickText(value, 6) }));
}
function tickText(value, most, least = 0) {
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-4)) return String(Number(value.toPrecision(3)).toExponential()).replace('e+', 'e');
  return value.toLocaleString('en-US', { minimumFractionDigits: value === 0 ? 0 : least, maximumFractionDigits: most });
}

/** An axis of a metric or setting over rows: numbers, logarithms or categories; `low` and `high` are in its own terms. */
function axisOf(column, values, log) {
  const known = values.filter((value) => value !== null);
  if (!column.numeric) {
    const names = [...new Set(known)].sort(order);
    const at = new Map(names.map((name, index) => [name, index]));
    return { column, names, of: (value) => at.get(value) ?? null, low: -0.6, high: names.length - 0.4 };
  }
  const useLog = log && known.every((value) => value > 0);
  const of = useLog ? (value) => (value > 0 ? Math.log10(value) : null) : (value) => value;
  let low = Math.min(...known.map(of));
  let high = Math.max(...known.map(of));
  if (!known.length) [low, high] = [0, 1];
  const pad = high > low ? (high - low) * 0.06 : useLog ? 0.3 : Math.abs(high) * 0.1 || 1;
  // From nought where that wastes little: lengths then mean something.
  const nought = !useLog && low >= 0 && low < (high - low) * 0.6;
  return { column, log: useLog, of, low: nought ? 0 : low - pad, high: high + pad };
}
function axisTicks(axis, [low, high], count) {
  if (axis.names) {
    const every = Math.max(1, Math.ceil((high - low) / Math.max(2, count)));
    return axis.names.map((name, at) => ({ at, text: name })).filter(({ at }) => at >= low && at <= high && at % every === 0);
  }
  const whole = axis.column.kind === 'setting' && axis.column.values.every((value) => Number.isInteger(Number(value)));
  const all = (axis.log ? logTicks(low, high, count) : ticks(low, high, count)).filter(({ value }) => !whole || Number.isInteger(value));
  return all.map(({ value, text }) => ({ at: axis.of(value), text })).filter(({ at }) => at !== null && at >= low - 1e-9 && at <= high + 1e-9);
}

const SHAPES = [
  (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
  (x, y, r) => `M${x - r * 0.9},${y - r * 0.9}h${r * 1.8}v${r * 1.8}h${-r * 1.8}Z`,
  (x, y, r) => `M${x},${y - r * 1.25}L${x + r * 1.25},${y}L${x},${y + r * 1.25}L${x - r * 1.25},${y}Z`,
  (x, y, r) => `M${x},${y - r * 1.2}L${x + r * 1.15},${y + r * 0.85}H${x - r * 1.15}Z`,
];
const seriesColor = (index) => `var(--s${index % 8})`;
const seriesShape = (index) => Math.floor(index / 8) % SHAPES.length;
const ramp = (part) => `color-mix(in srgb, var(--heat-high) ${Math.round(100 * part)}%, var(--heat-low))`;

// --- the tooltip ------------------------------------------------------------------------------------------------------

const tip = $('tip');
function showTip(x, y, title, pairs) {
  tip.replaceChildren(el('b', {}, title), el('dl', {}, pairs.map(([label, value]) => [el('dt', {}, label), el('dd', {}, value)])));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 16 + box.width > innerWidth - 8 ? x - 16 - box.width : x + 16;
  const top = y + 16 + box.height > innerHeight - 8 ? y - 16 - box.height : y + 16;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}
const hideTip = () => { tip.hidden = true; };
// A focus that comes by key may scroll the page itself.
addEventListener('scroll', () => { if (!document.activeElement?.matches('svg [role=button]:focus-visible')) hideTip(); }, { passive: true });

/** What a tooltip says of a row: the metrics of the plot, then the settings. */
function facts(row, shown) {
  const pairs = [];
  const seen = new Set();
  for (const column of shown) {
    if (!column || seen.has(column.id)) continue;
    seen.add(column.id);
    const value = column.value(row);
    if (value === null) continue;
    const interval = column.interval(row);
    const text = typeof value === 'number' ? `${number(value)} ${column.unit}`.trim() : value;
    pairs.push([column.label, interval ? `${text} (${number(interval[0])} – ${number(interval[1])})` : text]);
  }
  for (const setting of varying) if (!seen.has(setting.id) && setting.text(row) !== '') pairs.push([setting.label, setting.text(row)]);
  if (row.repeat) pairs.push(['repeat', row.repeat]);
  if (row.best) pairs.push(['recommendation', 'the choice']);
  else if (row.equal) pairs.push(['recommendation', 'may be the best as well']);
  for (const warning of row.warnings) pairs.push(['warning', warning]);
  return pairs;
}

/** Marks that can be pointed at, walked through with the arrow keys, and selected. `marks`: {node, row, title, shown}. */
function interactive(root, marks, keys = {}) {
  const at = (mark) => { const box = mark.node.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; };
  marks.forEach((mark, index) => {
    const { node, row } = mark;
    node.setAttribute('tabindex', index === 0 ? 0 : -1);
    node.setAttribute('role', 'button');
    node.setAttribute('aria-label', [mark.title, ...mark.pairs().map(([label, value]) => `${label} ${value}`)].join(', '));
    if (row) node.dataset.row = row.index;
    node.addEventListener('pointerenter', (event) => showTip(event.clientX, event.clientY, mark.title, mark.pairs()));
    node.addEventListener('pointermove', (event) => showTip(event.clientX, event.clientY, mark.title, mark.pairs()));
    node.addEventListener('pointerleave', hideTip);
    node.addEventListener('focus', () => { if (node.matches(':focus-visible')) showTip(...at(mark), mark.title, mark.pairs()); });
    node.addEventListener('blur', hideTip);
    node.addEventListener('click', (event) => { event.stopPropagation(); if (row) select(row, true); });
    node.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const to = event.key === 'Home' ? 0 : event.key === 'End' ? marks.length - 1 : step ? index + step : null;
      if (to !== null && marks[to]) {
        event.preventDefault();
        node.setAttribute('tabindex', -1);
        marks[to].node.setAttribute('tabindex', 0);
        marks[to].node.focus();
      } else if ((event.key === 'Enter' || event.key === ' ') && row) {
        event.preventDefault();
        select(row, true);
      } else if (event.key === 'Escape') {
        hideTip();
        keys.reset?.();
      } else if (event.key === '+' || event.key === '=') keys.zoom?.(0.7, node);
      else if (event.key === '-') keys.zoom?.(1 / 0.7, node);
    });
  });
}
