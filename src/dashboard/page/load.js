// The page of a load. It shows what the server says once a second.

const amount = (value, unit) => { const text = number(value); return text && text + unit; };

// Seconds with the requests that were over by then, of the workload that is shown.
let course = [];
let workload = null;
const SHOWN = 300;
function draw(load) {
  if (workload !== load.workload) { course = []; workload = load.workload; }
  if (load.seconds === null) return;
  course.push([load.seconds, load.counted.done]);
  course = course.slice(-SHOWN);
  const rates = course.slice(1).map(([at, done], before) => [at, Math.max(0, done - course[before][1]) / Math.max(at - course[before][0], 1e-3)]);
  if (rates.length < 2) return;
  const top = Math.max(...rates.map(([, rate]) => rate), 1e-9);
  const [begin, end] = [rates[0][0], rates.at(-1)[0]];
  const points = rates.map(([at, rate]) => `${(600 * (at - begin)) / Math.max(end - begin, 1e-9)},${116 - (112 * rate) / top}`);
  $('course').firstElementChild.setAttribute('points', points.join(' '));
  put($('course-said'), `now ${number(rates.at(-1)[1])}, at most ${number(top)}, over the last ${number(Math.round(end - begin))} s`);
}

function devices(seen) {
  const all = seen?.devices ?? [];
  show($('devices-section'), all.length > 0);
  $('devices').replaceChildren(...all.map((one) => {
    const said = [amount(one.power_w, ' W'), amount(one.temperature_c, ' °C'), amount(one.utilization_pct, ' % busy'), amount(one.memory_gib, ' GiB'), one.throttled && `throttled: ${one.throttled}`];
    return el('div', { class: 'card' }, el('h3', {}, one.device), el('p', {}, said.filter(Boolean).join(' · ')));
  }));
}

function take({ load, rates, over }) {
  put($('title'), load.name);
  show($('simulated'), load.simulated);
  put($('where'), load.server);
  const standing = over || !load.live ? 'over' : load.workload ? 'running' : 'getting ready';
  put($('standing'), standing);
  $('standing').className = standing === 'running' ? 'tag live' : 'tag';
  show($('standing'), true);
  const { sent, done, failed, tokens } = load.counted;
  const share = (count) => `${load.planned ? Math.min(100, (100 * count) / load.planned) : 0}%`;
  $('bar').querySelector('.passed').style.width = share(done - failed);
  $('bar').querySelector('.failed').style.width = share(failed);
  show($('bar'), load.planned !== null);
  if (load.planned) $('bar').setAttribute('aria-valuenow', Math.round((100 * done) / load.planned));
  document.title = `${number(done)}${load.planned ? ` of ${number(load.planned)}` : ''} · ${load.name}`;
  pairs($('counts'), [['sent', sent, ''], ['under way', load.active, ''], ['over', done, 'good'], ['failed', failed, failed ? 'bad' : '']]);
  facts($('facts'), [
    ['Workload', load.workloads > 1 ? `${load.workload} of ${load.workloads}` : ''],
    ['What', load.description],
    ['Requests', number(load.planned)],
    ['Elapsed', amount(load.seconds === null ? null : Math.round(load.seconds), ' s')],
    ['Output tokens', number(tokens)],
    ['Tokens/s so far', number(rates.tokens_per_second)],
    ['Requests/s so far', number(rates.requests_per_second)],
    ['Mean TTFT so far', amount(rates.mean_ttft === null ? null : rates.mean_ttft * 1000, ' ms')],
    ['Most at once', number(load.peak)],
  ]);
  draw(load);
  devices(load.seen);
  const last = Object.entries(load.last);
  show($('last-section'), last.length > 0);
  facts($('last'), last.map(([key, value]) => [key, number(value)]));
}

let over = false;
async function look() {
  if (over) return;
  try {
    const response = await fetch('/api/load', { credentials: 'same-origin' });
    if (!response.ok) throw new Error(await response.text());
    const told = await response.json();
    take(told);
    over = told.over;
    put($('connection'), over ? 'The load is over, and so is its dashboard.' : '');
  } catch (error) {
    put($('connection'), error instanceof TypeError ? 'The connection is lost: it is tried again.' : error.message);
  }
  show($('connection'), $('connection').textContent !== '');
}
look();
setInterval(look, 1000);
})();
