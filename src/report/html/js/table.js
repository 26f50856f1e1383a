
// --- the table of experiments -----------------------------------------------------------------------------------------

const table = $('rows');
let lines = new Map();

const shownColumns = () => state.columns.map((id) => byId.get(id));

function buildTable() {
  const shown = shownColumns();
  const head = el('tr', {}, shown.map((column) => {
    const button = el('button', { type: 'button', title: 'Sort by ' + heading(column), onclick: () => sortBy(column.id) }, heading(column));
    return el('th', { scope: 'col', class: column.kind === 'metric' ? 'num' : null, 'data-column': column.id, 'data-title': heading(column) }, button);
  }));
  table.tHead.replaceChildren(head);
  lines = new Map();
  for (const row of allRows()) {
    const line = el('tr', { class: row.status, 'data-row': row.index, tabindex: -1 });
    if (row.best) line.classList.add('choice');
    for (const column of shown) line.append(cell(row, column));
    lines.set(row, line);
  }
  arrange();
}

function cell(row, column) {
  if (column.kind === 'metric') {
    const value = column.value(row);
    const interval = column.interval(row);
    const node = el('td', { class: 'num' }, value === null ? el('span', { class: 'faint' }, 'n/a') : number(value));
    if (interval) node.append(el('span', { class: 'ci', title: '95 % interval of the mean' }, `${number(interval[0])} – ${number(interval[1])}`));
    return node;
  }
  if (column.id === 'status') {
    const node = el('td', {}, row.statusText);
    if (row.best) node.append(' ', el('span', { class: 'tag good' }, 'choice'));
    else if (row.equal) node.append(' ', el('span', { class: 'tag' }, 'may be the best'));
    if (row.baseline) node.append(' ', el('span', { class: 'tag' }, 'baseline'));
    return node;
  }
  const text = column.kind === 'setting' ? column.text(row) : column.value(row) ?? '';
  return el('td', {}, text);
}

/** Puts the rows in order and hides those that the filters leave out. */
function arrange() {
  const [id, direction] = sorting();
  const column = byId.get(id);
  let rows = allRows();
  if (column) {
    const sign = direction === 'down' ? -1 : 1;
    rows = rows.map((row) => [column.value(row), row]).sort(([a, x], [b, y]) => {
      // What is not known comes last, whichever way.
      if (a === null || b === null) return order(a, b) || x.index - y.index;
      return sign * order(a, b) || x.index - y.index;
    }).map(([, row]) => row);
  }
  for (const node of table.tHead.querySelectorAll('th')) {
    if (node.dataset.column === id) node.setAttribute('aria-sort', direction === 'down' ? 'descending' : 'ascending');
    else node.removeAttribute('aria-sort');
  }
  table.tBodies[0].replaceChildren(...rows.map((row) => lines.get(row)));
  filter();
}

function filter() {
  let shown = 0;
  for (const [row, line] of lines) {
    line.hidden = !passes(row);
    if (!line.hidden) shown += 1;
  }
  const first = [...table.tBodies[0].rows].find((line) => !line.hidden);
  table.querySelector('tbody tr[tabindex="0"]')?.setAttribute('tabindex', -1);
  first?.setAttribute('tabindex', 0);
  const all = lines.size;
  const text = `${shown.toLocaleString('en-US')} of ${all.toLocaleString('en-US')} rows`;
  if ($('count').textContent !== text) $('count').textContent = text;
}

function sorting() {
  const [, id, direction] = /^(.*?)(?:~(down|up))?$/.exec(state.sort);
  return [id, direction ?? 'up'];
}

/** The better end first, then the other one, then the order of the run. */
function sortBy(id) {
  const first = byId.get(id).better > 0 ? 'down' : 'up';
  const [now, direction] = sorting();
  if (now !== id) state.sort = `${id}~${first}`;
  else if (direction === first) state.sort = `${id}~${first === 'up' ? 'down' : 'up'}`;
  else state.sort = '';
  changed('order');
  const [by, way] = sorting();
  say(by ? `sorted by ${heading(byId.get(by))}, ${way === 'down' ? 'descending' : 'ascending'}` : 'in the order of the run');
}

function select(row, scroll) {
  state.selected = row === null || isSelected(row) && !scroll ? null : row.index;
  changed('selected');
  if (state.selected === null) return;
  say('selected ' + row.name);
  if (scroll) {
    const line = [...lines].find(([other]) => isSelected(other));
    if (line) line[1].scrollIntoView({ block: 'center' });
  }
}

function showSelected() {
  for (const [row, line] of lines) {
    line.classList.toggle('selected', isSelected(row));
    line.toggleAttribute('aria-current', isSelected(row));
  }
  const holder = $('detail');
  if (state.selected === null) { holder.replaceChildren(); return; }
  holder.replaceChildren(detail(single[state.selected]));
}

/** Everything about one experiment. */
function detail(row) {
  const pair = (label, value) => el('div', {}, el('dt', {}, label), el('dd', {}, value));
  const card = el('article', { class: 'card', 'aria-label': 'Selected experiment' },
    el('h3', {}, row.name), el('p', {}, el('span', { class: row.status === 'valid' ? 'tag good' : 'tag bad' }, row.statusText),
      row.repeat ? ` start.run ${row.repeat}` : '', row.why ? ' ' + row.why : ''));
  row.warnings.forEach((warning) => card.append(el('p', { class: 'unsure' }, warning)));
  const failure = $('failure-' + row.index);
  if (failure) card.append(el('div', {}, [...failure.childNodes].map((node) => node.cloneNode(true))));
  if (row.serve) card.append(el('h4', {}, 'Serve'), commandBox(command(row.serve), 'Command that serves it'));
  if (row.bench) card.append(el('h4', {}, 'Bench'), commandBox(command(row.bench), 'Command that measures it'));
  const known = [...metrics, ...times].filter((metric) => metric.value(row) !== null);
  if (known.length) {
    card.append(el('details', {}, el('summary', {}, `All metrics (${known.length})`),
      el('dl', { class: 'pairs' }, known.map((metric) => pair(metric.label, `${number(metric.value(row))} ${metric.unit}`)))));
  }
  const set = settings.filter((setting) => setting.text(row) !== '');
  card.append(el('details', {}, el('summary', {}, `All settings (${set.length})`),
    el('dl', { class: 'pairs' }, set.map((setting) => pair(el('code', {}, setting.label), setting.text(row))))));
  card.append(el('button', { type: 'button', onclick: () => { state.selected = null; changed('selected'); } }, 'Close'));
  return card;
}

// --- filters ----------------------------------------------------------------------------------------------------------

function options(pairs, chosen) {
  return pairs.map(([value, label]) => el('option', { value, selected: value === chosen }, label));
}
function labelled(label, control) {
  return el('label', {}, label, control);
}

function buildFilters() {
  const search = el('input', { type: 'search', id: 'search', value: state.q, placeholder: 'words of name, settings, status', oninput() { state.q = this.value; changed('rows'); } });
  const kinds = [...new Set(single.map((row) => row.status))];
  const status = el('select', { id: 'status-filter', onchange() { state.status = this.value; changed('rows'); } },
    options([['', 'all'], ...kinds.map((kind) => [kind, kind])], state.status));
  const selects = varying.filter((setting) => setting.values.length > 1).map((setting) => {
    const values = setting.values.slice().sort(order);
    const choose = el('select', { 'data-filter': setting.label, onchange() { state.filters[setting.label] = this.value; changed('rows'); } },
      options([['', 'all'], ...values.map((value) => [value, value])], state.filters[setting.label] ?? ''));
    return labelled(setting.label, choose);
  });
  const mean = repeated ? el('label', { class: 'check' }, el('input', { type: 'checkbox', id: 'mean', checked: state.mean, onchange() { state.mean = this.checked; changed('columns'); } }), 'repeats as means') : null;
  $('filters').replaceChildren(el('div', { class: 'controls' },
    labelled('Find', search), labelled('Status', status), selects, mean,
    el('span', { id: 'count', role: 'status' }),
    el('span', { class: 'push buttons' }, el('button', { type: 'button', id: 'reset-filters', onclick: resetFilters }, 'Reset'),
      el('button', { type: 'button', id: 'csv', onclick: download }, 'Download CSV'), chooser())));
}

function resetFilters() {
  const { plots, selected } = state;
  Object.assign(state, plain(), { plots, selected });
  buildFilters();
  changed('columns');
}

/** Which columns there are. */
function chooser() {
  const box = (column) => el('label', {}, el('input', {
    type: 'checkbox', 'data-column': column.id, checked: state.columns.includes(column.id),
    onchange() {
      const wanted = new Set(state.columns);
      if (this.checked) wanted.add(column.id); else wanted.delete(column.id);
      state.columns = columns.map((one) => one.id).filter((id) => wanted.has(id));
      if (state.columns.length === 0) { this.checked = true; state.columns = [column.id]; }
      changed('columns');
    },
  }), heading(column));
  const part = (title, all) => (all.length ? el('fieldset', {}, el('legend', {}, title), all.map(box)) : null);
  const details = el('details', { class: 'columns', id: 'columns' }, el('summary', {}, 'Columns'), el('div', {},
    part('Experiment', columns.filter((column) => column.kind === 'meta')), part('Settings that vary', varying),
    part('Metrics', [...metrics, ...times]), part('Settings that are the same', settings.filter((setting) => !setting.varies))));
  details.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') { details.open = false; details.firstChild.focus(); }
  });
  document.addEventListener('pointerdown', (event) => { if (!details.contains(event.target)) details.open = false; });
  return details;
}

/** The shown rows as CSV. A text that a spreadsheet would take for a formula gets an apostrophe before it. */
function csv() {
  const shown = shownColumns();
  const field = (value) => {
    if (typeof value === 'number') return String(value);
    let text = value === null ? '' : String(value);
    if (/^[=+\-@\t\r]/.test(text) && !isNumber(text)) text = "'" + text;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const head = shown.flatMap((column) => [heading(column), ...(state.mean && column.kind === 'metric' ? [column.label + ' low', column.label + ' high'] : [])]);
  if (data.simulated) head.push('simulated');
  const ordered = [...table.tBodies[0].rows].filter((line) => !line.hidden);
  const rowOf = new Map([...lines].map(([row, line]) => [line, row]));
  const body = ordered.map((line) => {
    const row = rowOf.get(line);
    const cells = shown.flatMap((column) => {
      const interval = column.interval(row);
      return [column.value(row), ...(state.mean && column.kind === 'metric' ? [interval ? interval[0] : null, interval ? interval[1] : null] : [])];
    });
    return data.simulated ? [...cells, 'true'] : cells;
  });
  return [head, ...body].map((cells) => cells.map(field).join(',')).join('\r\n') + '\r\n';
}

function download() {
  const address = URL.createObjectURL(new Blob([csv()], { type: 'text/csv;charset=utf-8' }));
  const link = el('a', { href: address, download: `${data.run.replace(/[^\w.-]+/g, '_')}_rows.csv` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  say('downloaded');
}

table.addEventListener('click', (event) => {
  const line = event.target.closest('tbody tr');
  if (!line || String(getSelection())) return;
  select([...lines].find(([, node]) => node === line)[0], false);
});
table.addEventListener('keydown', (event) => {
  const line = event.target.closest('tbody tr');
  if (!line || event.target !== line) return;
  const shown = [...table.tBodies[0].rows].filter((node) => !node.hidden);
  const at = shown.indexOf(line);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 }[event.key];
  if (to !== undefined && shown[to]) {
    event.preventDefault();
    line.tabIndex = -1;
    shown[to].tabIndex = 0;
    shown[to].focus();
  } else if (event.key === 'Enter' || event.key === ' ') {
    event.preventDefault();
    select([...lines].find(([, node]) => node === line)[0], false);
  }
});
