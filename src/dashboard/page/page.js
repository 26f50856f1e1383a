// The dashboard. It shows what the server says, and computes nothing but texts.
// --- texts ------------------------------------------------------------------------------------------------------------

function duration(seconds) {
  if (seconds === null || seconds === undefined) return '';
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}
const WORDS = { 'to-do': 'to do', 'not-started': 'not begun', live: 'running' };
const word = (text) => WORDS[text] ?? text;
const say = (text) => { $('live').textContent = text; };

// --- what is known of the run that is shown ----------------------------------------------------------------------------

const rows = new Map();
let readings = {};
let chosen = new Set();
let status = null;
let run = new URLSearchParams(location.search).get('run');
let source = null;
let lastId = null;
let over = false;
let plotVersion = 0;

const get = async (path) => {
  const response = await fetch(path, { credentials: 'same-origin' });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error ?? response.statusText);
  return body;
};
const of = (path, more = {}) => `${path}?${new URLSearchParams(run ? { run, ...more } : more)}`;

// --- head --------------------------------------------------------------------------------------------------------------

function showStatus() {
  const of_run = status.run;
  put($('title'), of_run.given_name ?? of_run.name);
  document.title = `${of_run.counts.passed + of_run.counts.failed} of ${of_run.counts.planned} · ${of_run.given_name ?? of_run.name}`;
  show($('simulated'), of_run.simulated);
  const standing = $('standing');
  if (standing.textContent !== word(of_run.standing)) {
    put(standing, word(of_run.standing));
    standing.className = { live: 'tag live', submitted: 'tag live', died: 'tag bad', interrupted: 'tag warn' }[of_run.standing] ?? 'tag';
    show(standing, true);
    say(`The run is ${word(of_run.standing)}`);
  }
  put($('where'), of_run.path);
  const counts = of_run.counts;
  const share = (count) => `${counts.planned ? (100 * count) / counts.planned : 0}%`;
  for (const key of ['passed', 'failed', 'running']) $('bar').querySelector(`.${key}`).style.width = share(counts[key]);
  const done = counts.planned ? Math.round((100 * (counts.passed + counts.failed)) / counts.planned) : 0;
  $('bar').setAttribute('aria-valuenow', done);
  pairs($('counts'), [
    ['passed', counts.passed, 'good'], ['failed', counts.failed, counts.failed ? 'bad' : ''], ['running', counts.running, ''],
    ['to do', counts.to_do, ''], ['skipped', counts.skipped, ''],
  ]);
  facts($('facts'), [
    ['Done', `${done} % of ${counts.planned}`],
    ['Remaining', of_run.remaining_seconds === null ? '' : `about ${duration(of_run.remaining_seconds)}`],
    ['Elapsed', duration(of_run.elapsed_seconds)],
    ['Began', (of_run.began ?? '').slice(0, 19).replace('T', ' ')],
    ['Session', of_run.session > 1 ? String(of_run.session) : ''],
    ['Stop asked for by', of_run.stop_requested ?? ''],
    ['Jobs', of_run.jobs ? `${of_run.jobs.over} of ${of_run.jobs.tasks} tasks over` : ''],
    ['Neighbours', of_run.neighbours ?? ''],
  ]);
  showLanes(of_run.under_way);
  // They are sent again only where they are others.
  if (of_run.skips) showSkips(of_run.skips);
  showCauses(of_run.failures_by_cause);
  control(of_run.standing === 'live');
}

// --- lanes and logs -----------------------------------------------------------------------------------------------------

const lanes = new Map();
function lane(name) {
  const card = el('div', { class: 'card' }, el('h3'), el('p', { class: 'phase' }), el('p', { class: 'faint devices' }), el('div', { class: 'seen' }), el('p', { class: 'line' }));
  const tail = logBox(name);
  card.append(tail.node);
  const made = { card, tail };
  lanes.set(name, made);
  $('lanes').append(card);
  return made;
}
function showLanes(all) {
  const names = new Set(all.map((one) => one.name));
  for (const [name, known] of lanes) if (!names.has(name)) { known.card.remove(); lanes.delete(name); }
  for (const one of all) {
    const { card } = lanes.get(one.name) ?? lane(one.name);
    put(card.querySelector('h3'), `${one.lane ? `Lane ${one.lane}: ` : ''}${rows.get(one.name)?.row.configuration ?? one.name}`);
    const start = one.start_phase ? ` (${one.start_phase})` : '';
    const attempt = one.attempt > 1 ? `, attempt ${one.attempt}` : '';
    put(card.querySelector('.phase'), `${one.phase}${start} for ${duration(one.phase_seconds) || '0 s'} · experiment ${one.index}${attempt}`);
    put(card.querySelector('.devices'), one.devices.join(', '));
    show(card.querySelector('.devices'), one.devices.length > 0);
    put(card.querySelector('.line'), one.log_line ?? '');
    showSeen(card, one.name);
  }
  show($('lanes-section'), all.length > 0);
}

/** What its client and its devices say while it is measured. */
let seen = new Map();
function showSeen(card, name) {
  const one = seen.get(name);
  const with_unit = (value, unit) => (value === null || value === undefined ? '' : `${number(value)} ${unit}`);
  const joined = (parts) => parts.filter(Boolean).join(' · ');
  const lines = !one ? [] : [
    joined([
      one.requests === null ? '' : `${number(one.requests_done)} of ${number(one.requests)} requests`,
      one.running === null ? '' : `${number(one.running)} running`, one.waiting ? `${number(one.waiting)} waiting` : '',
      one.kv_cache_pct === null ? '' : `KV cache ${number(one.kv_cache_pct)} %`,
    ]),
    ...one.devices.map((device) => joined([
      device.device, with_unit(device.power_w, 'W'), with_unit(device.temperature_c, '°C'), device.utilization_pct === null ? '' : `${number(device.utilization_pct)} % busy`,
      with_unit(device.memory_gib, 'GiB'), with_unit(device.clock_mhz, 'MHz'), device.throttled && `throttled: ${device.throttled}`,
    ])),
  ].filter(Boolean);
  const place = card.querySelector('.seen');
  lines.forEach((text, at) => put(place.children[at] ?? place.appendChild(el('div')), text));
  while (place.children.length > lines.length) place.lastChild.remove();
}

/** The end of a log, read again while it is open. */
function logBox(name) {
  const text = el('pre', { class: 'tail', tabindex: 0, 'aria-label': 'End of the log' });
  const file = el('p', { class: 'faint' });
  const role = el('select', { 'aria-label': 'Whose log' }, el('option', { value: 'server' }, 'server'), el('option', { value: 'benchmark' }, 'client'));
  const node = el('details', {}, el('summary', {}, 'Log'), role, file, text);
  const read = async () => {
    if (!node.open || !node.isConnected) return;
    try {
      const log = await get(of('/api/log', { name, role: role.value }));
      const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
      put(file, log.file);
      put(text, log.lines.join('\n'));
      if (atEnd) text.scrollTop = text.scrollHeight;
    } catch (error) {
      put(file, error.message);
      put(text, '');
    }
  };
  node.addEventListener('toggle', read);
  role.addEventListener('change', read);
  return { node, read };
}
setInterval(() => {
  if (document.hidden || over) return;
  for (const { tail } of lanes.values()) tail.read();
}, 2000);

// --- answer -------------------------------------------------------------------------------------------------------------

function showAnswer(told) {
  readings = told.readings;
  const recommend = told.recommend;
  const place = $('answer');
  chosen = new Set();
  if (!recommend || recommend.error || !recommend.answers?.length) {
    place.replaceChildren(el('p', { class: 'faint' }, recommend?.error ?? 'There is no valid result yet.'));
    return;
  }
  // Of many answers the options are folded.
  const open = new Set([...place.querySelectorAll('details[open]')].map((details) => details.dataset.of));
  const few = recommend.answers.length < 3;
  place.replaceChildren(...recommend.answers.map((answer, at) => card(answer, recommend, String(at), few || open.has(String(at)))));
  for (const row of rows.values()) draw(row);
  show($('plot-section'), true);
  plotVersion += 1;
  drawPlot();
}
const interval = (option) => {
  const of = option.interval;
  return of ? `${number(of.low)} to ${number(of.high)}` : '';
};
function card(answer, recommend, at, open) {
  const workload = Object.entries(answer.workload ?? {}).map(([key, value]) => `${key} ${value}`).join(', ');
  const heading = [answer.model, typeof answer.workload === 'string' ? answer.workload : workload].filter(Boolean).join(' · ');
  const box = el('div', { class: 'card answer' }, el('h3', {}, heading));
  const best = answer.choice;
  if (!best) {
    box.append(el('p', {}, 'No configuration keeps the limits.'), list((answer.left_out ?? []).slice(0, 5).map(([name, why]) => `${name}: ${why}`)));
    return box;
  }
  chosen.add(best.name);
  const per = answer.per_device ? ' per device' : '';
  box.append(el('p', { class: 'use' }, 'Use ', el('strong', {}, rows.get(best.name)?.row.configuration ?? best.name)));
  const values = [[`${recommend.objective}${per}`, number(best.value)], ['95 % interval', interval(best)], ['latency (ms)', number(best.latency_ms)], ['starts', String(best.n)]];
  box.append(el('dl', { class: 'metrics' }, values.filter(([, text]) => text).map(([label, text]) => el('div', {}, el('dt', {}, label), el('dd', {}, text)))));
  box.append(list(answer.sentences ?? []));
  const options = (answer.options ?? []).slice(0, 8);
  if (options.length > 1) {
    const cells = (option) => [
      el('td', { class: option.name === best.name ? 'name use' : 'name' }, rows.get(option.name)?.row.configuration ?? option.name),
      el('td', { class: 'num' }, number(option.value)), el('td', { class: 'num wide' }, interval(option)),
      el('td', { class: 'num' }, number(option.latency_ms)), el('td', { class: 'num wide' }, String(option.n)),
      el('td', { class: 'wide' }, word(String(option.standing ?? '').replaceAll('-', ' '))),
    ];
    const heads = [['configuration', ''], [recommend.objective + per, 'num'], ['interval', 'num wide'], ['latency (ms)', 'num'], ['starts', 'num wide'], ['', 'wide']];
    const table = el('div', { class: 'scroll' }, el('table', { class: 'options' }, el('thead', {}, el('tr', {}, heads.map(([text, kind]) => el('th', { class: kind, scope: 'col' }, text)))),
      el('tbody', {}, options.map((option) => el('tr', {}, cells(option))))));
    box.append(el('details', { open, 'data-of': at }, el('summary', {}, `The best ${options.length}${answer.options.length > options.length ? ` of ${answer.options.length}` : ''}`), table));
  }
  return box;
}
const list = (texts) => (texts.length ? el('ul', { class: 'said' }, texts.map((text) => el('li', {}, text))) : null) ?? '';

// --- plot ---------------------------------------------------------------------------------------------------------------

function drawPlot() {
  if ($('plot-section').hidden) return;
  const kind = $('plot-kind');
  $('report').href = of('/report');
  $('plot').alt = kind.selectedOptions[0].textContent;
  $('plot').src = of('/plot.svg', { kind: kind.value, v: plotVersion });
}
$('plot').addEventListener('load', () => { show($('plot'), true); show($('no-plot'), false); });
$('plot').addEventListener('error', () => {
  show($('plot'), false);
  put($('no-plot'), 'The results so far do not hold what this plot needs.');
  show($('no-plot'), true);
});
$('plot-kind').addEventListener('change', drawPlot);

// --- table --------------------------------------------------------------------------------------------------------------

const metric = (key) => (row) => row.metrics?.[key] ?? null;
const COLUMNS = [
  { key: 'index', label: '#', numeric: true, value: (row) => row.index, kind: 'num' },
  { key: 'name', label: 'configuration', value: (row) => row.configuration, kind: 'name' },
  { key: 'state', label: 'state', value: (row) => row.state, text: (row) => word(row.state) + (row.attempts > 1 ? ` (attempt ${row.attempts})` : ''), kind: 'state' },
  { key: 'output_throughput', label: 'output tok/s', numeric: true, value: metric('output_throughput'), kind: 'num' },
  { key: 'mean_ttft_ms', label: 'TTFT (ms)', numeric: true, value: metric('mean_ttft_ms'), kind: 'num' },
  { key: 'mean_tpot_ms', label: 'TPOT (ms)', numeric: true, value: metric('mean_tpot_ms'), kind: 'num wide' },
  { key: 'request_throughput', label: 'req/s', numeric: true, value: metric('request_throughput'), kind: 'num wide' },
  { key: 'power', label: 'power (W)', numeric: true, value: (row) => readings[row.name]?.find((reading) => reading.key === 'mean_power_w')?.value ?? null, kind: 'num wide' },
  { key: 'seconds', label: 'took (s)', numeric: true, value: (row) => row.seconds, kind: 'num wide' },
];
const filter = { search: '', state: '', sort: 'index', down: false };
let selected = null;
const body = $('rows').tBodies[0];

// Laid out as a grid, it says itself that it is a table.
$('rows').setAttribute('role', 'table');
for (const part of [$('rows').tHead, body]) part.setAttribute('role', 'rowgroup');
$('rows').tHead.append(el('tr', { role: 'row' }, COLUMNS.map((column) => el('th', { class: column.kind, scope: 'col', role: 'columnheader', 'data-column': column.key },
  el('button', { type: 'button', onclick: () => sortBy(column.key) }, column.label)))));

/** Takes a row in: only cells that changed are drawn. */
function take(row) {
  const known = rows.get(row.name);
  if (known) {
    known.row = row;
    draw(known);
    return;
  }
  const node = el('tr', { tabindex: -1, role: 'row' }, COLUMNS.map((column) => el('td', { class: column.kind, role: 'cell' })));
  const made = { row, node };
  node.addEventListener('click', () => select(row.name));
  rows.set(row.name, made);
  body.append(node);
  draw(made);
}
function draw({ row, node }) {
  const classes = `${row.state}${chosen.has(row.name) ? ' choice' : ''}${selected === row.name ? ' selected' : ''}`;
  if (node.className !== classes) node.className = classes;
  COLUMNS.forEach((column, at) => {
    const value = column.text ? column.text(row) : column.value(row);
    const text = column.numeric ? number(value) : value ?? '';
    const cell = node.cells[at];
    if (column.key === 'state' && row.failure) {
      if (cell.dataset.why !== row.failure.cause || cell.firstChild?.textContent !== text) {
        cell.replaceChildren(text, el('span', { class: 'why' }, row.failure.cause));
        cell.dataset.why = row.failure.cause;
      }
    } else {
      delete cell.dataset.why;
      put(cell, text);
    }
  });
  const hidden = !passes(row);
  if (node.hidden !== hidden) node.hidden = hidden;
}
function passes(row) {
  if (filter.state && row.state !== filter.state) return false;
  if (!filter.search) return true;
  const text = `${row.name} ${row.configuration} ${row.state} ${row.failure?.cause ?? ''}`.toLowerCase();
  return filter.search.toLowerCase().split(/\s+/).every((part) => text.includes(part));
}
const collator = new Intl.Collator('en', { numeric: true });
function compare(a, b) {
  const column = COLUMNS.find((known) => known.key === filter.sort);
  const [x, y] = [column.value(a.row), column.value(b.row)];
  // What is not known stands last, whichever way it is sorted.
  if (x === y) return a.row.index - b.row.index;
  if (x === null) return 1;
  if (y === null) return -1;
  const order = column.numeric ? x - y : collator.compare(x, y);
  return filter.down ? -order : order;
}
/** Puts rows in order; those that stand right already are not touched. */
function arrange() {
  const ordered = [...rows.values()].sort(compare);
  let at = body.firstElementChild;
  for (const { node } of ordered) {
    if (at === node) at = at.nextElementSibling;
    else body.insertBefore(node, at);
  }
}
let arranging = 0;
function arrangeSoon() {
  arranging ||= setTimeout(() => { arranging = 0; arrange(); }, 1000);
}
function sortBy(key) {
  const numeric = COLUMNS.find((column) => column.key === key).numeric && key !== 'index';
  if (filter.sort === key) filter.down = !filter.down;
  else { filter.sort = key; filter.down = numeric && !/ttft|tpot/.test(key); }
  for (const head of $('rows').tHead.rows[0].cells) {
    if (head.dataset.column === key) head.setAttribute('aria-sort', filter.down ? 'descending' : 'ascending');
    else head.removeAttribute('aria-sort');
  }
  arrange();
}
function counted() {
  let shown = 0;
  for (const { node } of rows.values()) if (!node.hidden) shown += 1;
  put($('count'), shown === rows.size ? `${rows.size}` : `${shown} of ${rows.size}`);
  const first = [...body.rows].find((node) => !node.hidden);
  if (first && !body.querySelector('tr[tabindex="0"]:not([hidden])')) first.tabIndex = 0;
}
function refilter() {
  for (const row of rows.values()) row.node.hidden = !passes(row.row);
  counted();
}
$('search').addEventListener('input', () => { filter.search = $('search').value.trim(); refilter(); });
$('state').addEventListener('change', () => { filter.state = $('state').value; refilter(); });
body.addEventListener('keydown', (event) => {
  const node = event.target.closest('tr');
  const step = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
  if (event.key === 'Enter' || event.key === ' ') {
    node.click();
    event.preventDefault();
  } else if (step) {
    let next = node[step];
    while (next && next.hidden) next = next[step];
    if (next) {
      node.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
    event.preventDefault();
  }
});
document.addEventListener('keydown', (event) => {
  if (event.key === '/' && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    event.preventDefault();
    $('search').focus();
  } else if (event.key === 'Escape' && selected) select(null);
});

/** What is known of one experiment, below the table. */
function select(name) {
  const before = rows.get(selected);
  selected = selected === name ? null : name;
  if (before) draw(before);
  const known = rows.get(selected);
  if (!known) {
    $('detail').replaceChildren();
    return;
  }
  draw(known);
  const { row } = known;
  const box = el('div', { class: 'card' }, el('h3', {}, row.configuration), el('p', { class: 'faint' }, `${row.name}`));
  const measured = readings[row.name] ?? [];
  if (measured.length) box.append(el('dl', { class: 'metrics' }, measured.map((of) => el('div', {}, el('dt', {}, of.label), el('dd', {}, `${number(of.value)} ${of.unit}`)))));
  if (row.failure) box.append(failure(row));
  const tail = logBox(row.name);
  box.append(tail.node);
  $('detail').replaceChildren(box);
  box.scrollIntoView({ block: 'nearest' });
}

// --- failures -----------------------------------------------------------------------------------------------------------

const FAILURES = 50;
function failure(row) {
  const { cause, summary, phase, evidence, advice, kept } = row.failure;
  return el('div', {}, el('p', {}, el('span', { class: 'tag bad' }, cause), ` while ${phase}: ${summary}`),
    evidence.length ? el('pre', { class: 'log' }, evidence.map(([line, text]) => `${line}: ${text}`).join('\n')) : null,
    advice.map((text) => el('p', { class: 'advice' }, text)),
    kept ? el('p', { class: 'faint' }, `evidence: ${kept}`) : null);
}
let failuresShown = '';
function showFailures() {
  const failed = [...rows.values()].map(({ row }) => row).filter((row) => row.failure && row.state === 'failed');
  const key = failed.map((row) => `${row.name} ${row.attempts}`).join('\n');
  if (key === failuresShown) return;
  failuresShown = key;
  show($('failures-section'), failed.length > 0);
  const newest = failed.slice(-FAILURES).reverse();
  $('failures').replaceChildren(...newest.map((row) => el('li', {}, el('strong', {}, row.configuration), failure(row))));
  if (failed.length > FAILURES) $('failures').append(el('li', { class: 'faint' }, `and ${failed.length - FAILURES} more: choose “failed” above the table`));
}
function showCauses(causes) {
  pairs($('causes'), causes.map(({ cause, count }) => [cause, count, 'bad']));
}
let skipsShown = '';
function showSkips(skips) {
  const key = skips.join('\n');
  if (key === skipsShown) return;
  skipsShown = key;
  show($('skips-section'), skips.length > 0);
  put($('skips-count'), `${skips.length} combinations that a rule leaves out`);
  $('skips').replaceChildren(...skips.slice(0, 200).map((text) => el('li', {}, text)));
}

// --- stopping -----------------------------------------------------------------------------------------------------------

let mayControl = false;
function control(live) {
  show($('control'), mayControl && live);
}
$('control').addEventListener('click', async (event) => {
  const mode = event.target.dataset.mode;
  if (!mode || !confirm(`${event.target.textContent}?`)) return;
  try {
    const response = await fetch(of('/stop', { mode }), { method: 'POST', credentials: 'same-origin' });
    const said = await response.json();
    tell(said.said ?? said.error);
  } catch (error) {
    tell(error.message);
  }
});

// --- connection ---------------------------------------------------------------------------------------------------------

function tell(text) {
  put($('connection'), text);
  show($('connection'), text !== '');
}
function connect() {
  source?.close();
  const mine = new EventSource(of('/api/events', lastId === null ? {} : { after: lastId }));
  source = mine;
  mine.addEventListener('open', () => { over = false; tell(''); });
  mine.addEventListener('rows', (event) => {
    lastId = event.lastEventId;
    for (const row of JSON.parse(event.data)) take(row);
    if (filter.sort !== 'index') arrangeSoon();
    counted();
    showFailures();
  });
  mine.addEventListener('status', (event) => {
    const told = JSON.parse(event.data);
    if (told.error) return tell(told.error);
    status = told.status;
    showStatus();
  });
  mine.addEventListener('seen', (event) => {
    seen = new Map(JSON.parse(event.data).map((one) => [one.name, one]));
    for (const [name, { card }] of lanes) showSeen(card, name);
  });
  mine.addEventListener('answer', (event) => showAnswer(JSON.parse(event.data)));
  mine.addEventListener('bye', () => {
    over = true;
    mine.close();
    tell('The run is over, and so is its dashboard. `vllm-bench dashboard` shows it from now on; then load this page again.');
  });
  mine.addEventListener('error', () => {
    if (source !== mine) return;
    if (!over) tell('The connection is lost: it is tried again.');
    // What the server refuses is not tried again by the browser.
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => { if (source === mine) connect(); }, 3000);
  });
}

let runsShown = '';
async function showRuns() {
  try {
    const listed = await get('/api/runs');
    mayControl = listed.control;
    if (status) control(status.run.standing === 'live');
    const key = JSON.stringify(listed.runs.map((one) => [one.path, one.state, one.passed]));
    if (run === null && listed.current) {
      run = listed.current;
      connect();
    }
    if (key === runsShown) return;
    runsShown = key;
    $('runs').replaceChildren(...listed.runs.map((one) => {
      const text = `${one.name ?? one.run} · ${one.state}${one.simulated ? ' (sim)' : ''} · ${one.passed} of ${one.planned}`;
      return el('option', { value: one.path, selected: one.path === run }, text);
    }));
    if (!listed.runs.length) tell('There is no run yet: it appears here when it begins.');
    else if (source === null) connect();
  } catch (error) {
    if (source === null) tell(error.message);
  }
}
$('runs').addEventListener('change', () => {
  run = $('runs').value;
  history.replaceState(null, '', of('/'));
  rows.clear();
  body.replaceChildren();
  lanes.clear();
  $('lanes').replaceChildren();
  $('answer').replaceChildren(el('p', { class: 'faint' }, 'There is no valid result yet.'));
  $('detail').replaceChildren();
  show($('plot-section'), false);
  show($('failures-section'), false);
  [readings, chosen, status, lastId, selected, failuresShown] = [{}, new Set(), null, null, null, ''];
  connect();
});

if (run !== null) connect();
showRuns();
setInterval(() => { if (!document.hidden && !over) showRuns(); }, 5000);
})();
