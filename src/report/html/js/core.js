// The page's script. It shows what the data block holds and decides nothing. Text from the data reaches the page by
// textContent and attributes alone. The files of this folder are joined into one closure, in the order of `SCRIPTS`.
(() => {
'use strict';

const data = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

/** An HTML element; attributes beginning with `on` are listeners, other children are nodes or text. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}
/** An SVG element. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'fill' || name === 'stroke') node.style[name] = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const say = (text) => { $('live').textContent = text; };

// Made once: each costs as much as a thousand uses of it.
const formats = [0, 1, 2, 3].map((digits) => new Intl.NumberFormat('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits }));
const collator = new Intl.Collator('en', { numeric: true });
/** A number as text: four digits, thousands apart, an exponent for the very large and small. */
function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-3)) return value.toExponential(2);
  if (Number.isInteger(value)) return formats[0].format(value);
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
  return formats[digits].format(value);
}
const isNumber = (text) => text !== '' && Number.isFinite(Number(text));

// --- rows ------------------------------------------------------------------------------------------------------------

const best = new Set(data.choices.best);
const equal = new Set(data.choices.equal);
const metrics = data.metrics.map((metric, at) => ({
  id: 'f:' + metric.key, at, kind: 'metric', numeric: true, label: metric.label, unit: metric.unit, better: metric.better,
  value: (row) => (row.metrics ? row.metrics[at] ?? null : null),
  interval: (row) => (row.intervals ? row.intervals[at] : null),
}));
const times = ['Server start', 'Benchmark', 'Whole experiment'].map((label, at) => ({
  id: 't:' + at, kind: 'metric', numeric: true, label, unit: 's', better: 0,
  value: (row) => (row.seconds ? row.seconds[at] : null), interval: () => null,
})).filter((time) => data.rows.some((row) => row.q && row.q[time.id.slice(2)] !== null));
const settings = data.settings.map((setting, at) => ({
  id: 's:' + setting.key, at, kind: 'setting', label: setting.key, short: setting.short, unit: '', better: 0, varies: setting.varies, load: setting.load,
  numeric: setting.values.length > 0 && setting.values.every(isNumber), values: setting.values,
  text: (row) => (row.settings[at] === null ? '' : setting.values[row.settings[at]]),
  value(row) {
    const text = this.text(row);
    return text === '' ? null : this.numeric ? Number(text) : text;
  },
  interval: () => null,
}));
const single = data.rows.map((row, index) => ({
  index, members: [index], name: row.n, status: row.s, statusText: row.t, settings: row.v, metrics: row.f ?? null, intervals: null,
  repeat: row.r ? row.r.join('.') : '', warnings: row.d ?? [], barred: Boolean(row.b), baseline: Boolean(row.base), seconds: row.q ?? null,
  phases: row.p ?? [], why: row.why ?? '', serve: row.c ?? null, bench: row.k ?? null, best: best.has(index), equal: equal.has(index),
}));
/** Repeats of the same settings as one row with means and intervals. */
const averaged = (() => {
  const first = new Map();
  const rest = new Set();
  for (const group of data.groups) {
    group.rows.slice(1).forEach((index) => rest.add(index));
    const members = group.rows.map((index) => single[index]);
    first.set(group.rows[0], {
      ...members[0], members: group.rows, repeat: 'mean of ' + members.length,
      metrics: group.f.map((metric) => (metric ? metric[0] : null)),
      intervals: group.f.map((metric) => (metric && metric[1] !== null ? [metric[1], metric[2], metric[3]] : null)),
      warnings: [...new Set(members.flatMap((row) => row.warnings))], barred: members.every((row) => row.barred),
      baseline: members.some((row) => row.baseline),
      best: members.some((row) => row.best), equal: members.some((row) => row.equal),
    });
  }
  return single.filter((row) => !rest.has(row.index)).map((row) => first.get(row.index) ?? row);
})();
const repeated = data.groups.length > 0;
const meta = {
  repeat: { id: 'repeat', kind: 'meta', label: repeated ? 'repeat' : 'start.run', unit: '', better: 0, numeric: false, value: (row) => row.repeat || null, interval: () => null },
  warnings: { id: 'warnings', kind: 'meta', label: 'warnings', unit: '', better: 0, numeric: false, value: (row) => row.warnings.join('; ') || null, interval: () => null },
  name: { id: 'name', kind: 'meta', label: 'experiment', unit: '', better: 0, numeric: false, value: (row) => row.name, interval: () => null },
  status: { id: 'status', kind: 'meta', label: 'status', unit: '', better: 0, numeric: false, value: (row) => row.statusText, interval: () => null },
};
const columns = [meta.name, ...settings, ...(data.rows.some((row) => row.r) ? [meta.repeat] : []), ...metrics, ...times, meta.warnings, meta.status];
const byId = new Map(columns.map((column) => [column.id, column]));
const varying = settings.filter((setting) => setting.varies);
const defaultColumns = [
  ...varying.map((setting) => setting.id), ...(byId.has('repeat') ? ['repeat'] : []), ...data.shown.map((at) => metrics[at].id),
  ...(single.some((row) => row.warnings.length) ? ['warnings'] : []), 'status',
];
const heading = (column) => (column.unit ? `${column.label} (${column.unit})` : column.label);
/** The settings that vary, in one line. */
const configuration = (row, without = []) => {
  const parts = varying.filter((setting) => !without.includes(setting.id)).map((setting) => {
    const text = setting.text(row);
    return text === '' ? '' : setting.label === 'model' ? text : `${setting.short} ${text}`;
  });
  return parts.filter((part) => part !== '').join(', ') || row.name;
};
const order = (a, b) => {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return collator.compare(String(a), String(b));
};

// --- state, kept in the address ---------------------------------------------------------------------------------------

const plain = () => ({ q: '', status: '', mean: repeated, sort: '', columns: defaultColumns.slice(), filters: {}, selected: null, plots: {} });
const state = plain();
const listeners = [];
const onChange = (listener) => listeners.push(listener);

function readAddress() {
  const text = location.hash.slice(1);
  Object.assign(state, plain());
  if (!text.includes('=')) return text;
  for (const [key, value] of new URLSearchParams(text)) {
    if (key === 'q') state.q = value;
    else if (key === 'status') state.status = value;
    else if (key === 'mean') state.mean = repeated && value === '1';
    else if (key === 'sort') state.sort = value;
    else if (key === 'cols') state.columns = value.split('|').filter((id) => byId.has(id));
    else if (key === 'row' && single[Number(value)]) state.selected = Number(value);
    else if (key.startsWith('is.')) state.filters[key.slice(3)] = value;
    else if (key.startsWith('plot.')) state.plots[key.slice(5)] = value;
  }
  if (state.columns.length === 0) state.columns = defaultColumns.slice();
  return '';
}
function writeAddress() {
  const words = new URLSearchParams();
  if (state.q) words.set('q', state.q);
  if (state.status) words.set('status', state.status);
  if (state.mean !== repeated) words.set('mean', state.mean ? '1' : '0');
  if (state.sort) words.set('sort', state.sort);
  if (state.columns.join('|') !== defaultColumns.join('|')) words.set('cols', state.columns.join('|'));
  if (state.selected !== null) words.set('row', state.selected);
  for (const [key, value] of Object.entries(state.filters)) if (value !== '') words.set('is.' + key, value);
  for (const [key, value] of Object.entries(state.plots)) if (value !== '') words.set('plot.' + key, value);
  const text = words.toString();
  try {
    history.replaceState(null, '', text ? '#' + text : location.pathname + location.search);
  } catch {
    location.replace('#' + text);
  }
}
/** Something changed: `what` is `rows` (which rows there are), `order`, `columns`, `selected`, `plots`. */
function changed(what) {
  writeAddress();
  for (const listener of listeners) listener(what);
}

const allRows = () => (state.mean ? averaged : single);
function passes(row) {
  if (state.status && row.status !== state.status) return false;
  for (const [key, value] of Object.entries(state.filters)) {
    const column = byId.get('s:' + key);
    if (value !== '' && column && column.text(row) !== value) return false;
  }
  if (!state.q) return true;
  const text = `${row.name} ${row.statusText} ${row.warnings.join(' ')} ${row.why} ${settings.map((setting) => setting.text(row)).join(' ')}`.toLowerCase();
  return state.q.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
const shownRows = () => allRows().filter(passes);
const isSelected = (row) => state.selected !== null && row.members.includes(state.selected);

/** Words of a command as a shell takes them; they were quoted when the page was made. */
const command = (numbers) => numbers.map((at) => data.words[at]).join(' ');

// --- copying ----------------------------------------------------------------------------------------------------------

function copyButton(source) {
  const button = el('button', { type: 'button' }, 'Copy');
  button.addEventListener('click', async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      done = document.execCommand('copy');
    }
    button.textContent = done ? 'Copied' : 'Press Ctrl+C';
    say(button.textContent);
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
  return button;
}
function commandBox(text, label) {
  const code = el('code', {}, text);
  return el('div', { class: 'command has-copy' }, el('pre', { tabindex: 0, 'aria-label': label }, code), copyButton(code));
}
