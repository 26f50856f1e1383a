
// --- putting it together ----------------------------------------------------------------------------------------------

const PANELS = [['scatter', 'Scatter', scatterPanel], ['lines', 'Lines', linesPanel], ['bars', 'Bars', barsPanel], ['heat', 'Heat map', heatPanel], ['startup', 'Startup', startupPanel]];
let drawPanel = () => {};
let drawAgain = 0;

function showPanel(name) {
  const [id, title, make] = PANELS.find(([known_]) => known_ === name) ?? PANELS[0];
  const panel = el('div', { class: 'card', role: 'tabpanel', id: 'panel', 'aria-label': title });
  const tabs = PANELS.map(([other, label]) => el('button', {
    type: 'button', role: 'tab', 'aria-selected': String(other === id), 'aria-controls': 'panel', tabindex: other === id ? 0 : -1, 'data-tab': other,
    onclick: () => choosePanel(other),
  }, label));
  const list = el('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Kinds of plots' }, tabs);
  list.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = PANELS.findIndex(([other]) => other === id);
    choosePanel(PANELS[(at + step + PANELS.length) % PANELS.length][0]);
    document.querySelector('[role=tab][aria-selected=true]').focus();
  });
  $('plot-panels').replaceChildren(list, panel);
  if (!known.length) {
    panel.append(el('p', { class: 'faint' }, 'There is no valid result to draw.'));
    drawPanel = () => {};
    return;
  }
  drawPanel = make(panel);
  drawPanel();
}
function choosePanel(name) {
  state.plots.tab = name === PANELS[0][0] ? '' : name;
  writeAddress();
  showPanel(name);
}
const redrawSoon = () => {
  cancelAnimationFrame(drawAgain);
  drawAgain = requestAnimationFrame(() => drawPanel());
};

onChange((what) => {
  if (what === 'columns') buildTable();
  else if (what === 'order') arrange();
  else if (what === 'rows') filter();
  if (what === 'selected' || what === 'columns') showSelected();
  if (what !== 'order') redrawSoon();
});

function showAll() {
  buildFilters();
  buildTable();
  showSelected();
  showPanel(state.plots.tab || PANELS[0][0]);
}

// Light and dark: as the system says, until somebody chooses.
function themeButton() {
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  const button = el('button', { type: 'button', onclick() {
    document.documentElement.dataset.theme = dark() ? 'light' : 'dark';
    try { localStorage.setItem('vllm-bench-theme', document.documentElement.dataset.theme); } catch { /* a page that may keep nothing */ }
    name();
  } });
  const name = () => { button.textContent = dark() ? 'Light' : 'Dark'; button.setAttribute('aria-label', dark() ? 'Use light colours' : 'Use dark colours'); };
  name();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', name);
  return button;
}
try {
  const kept = localStorage.getItem('vllm-bench-theme');
  if (kept === 'light' || kept === 'dark') document.documentElement.dataset.theme = kept;
} catch { /* as above */ }

document.documentElement.classList.add('scripted');
$('theme').append(themeButton());
document.querySelectorAll('.command').forEach((box) => {
  box.classList.add('has-copy');
  box.append(copyButton(box.querySelector('code')));
});
// The address holds the state of the table, so links within the page only move.
document.addEventListener('click', (event) => {
  const link = event.target.closest('a[href^="#"]');
  const target = link && document.getElementById(link.getAttribute('href').slice(1));
  if (!target) return;
  event.preventDefault();
  target.scrollIntoView();
  const title = target.querySelector('h2') ?? target;
  title.tabIndex = -1;
  title.focus({ preventScroll: true });
});
const anchor = readAddress();
showAll();
if (anchor) document.getElementById(anchor)?.scrollIntoView();
addEventListener('hashchange', () => {
  const place = readAddress();
  if (place) document.getElementById(place)?.scrollIntoView();
  showAll();
});
new ResizeObserver(redrawSoon).observe($('plot-panels'));
// What is folded is printed too.
let folded = [];
addEventListener('beforeprint', () => {
  folded = [...document.querySelectorAll('main details:not([open]):not(.columns)')];
  folded.forEach((details) => { details.open = true; });
});
addEventListener('afterprint', () => folded.forEach((details) => { details.open = false; }));
})();
