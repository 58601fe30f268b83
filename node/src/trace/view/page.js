// What the page says in words, and what it does when it is told to.

/** The shortest time that can be shown, which numbers can still tell apart. */
const LEAST = Math.min(DURATION, Math.max(20, DURATION / 1e9));
const $ = id => document.getElementById(id);
const element = (name, text, more = {}) => Object.assign(document.createElement(name), { textContent: text }, more);
let wanted = 0, pointer = null, brush = null, found = [], at = -1;

/** Draws with the next frame, once whatever was asked for how often. */
function show() {
  if (wanted) return;
  wanted = requestAnimationFrame(() => {
    wanted = 0;
    draw();
    hover();
    publish();
  });
}
/** What is shown, for whoever looks from outside. */
function publish() {
  Object.assign(document.body.dataset, {
    view: `${view.from} ${view.to}`, drawn: view.drawn, found: found.length, paint: view.paint.toFixed(1), ready: 'yes',
  });
}
function say(text) { $('said').textContent = text; }

function look(from, to) {
  const span = Math.min(DURATION, Math.max(LEAST, to - from));
  from = Math.max(0, Math.min(DURATION - span, from + (to - from - span) / 2));
  [view.from, view.to] = [from, from + span];
  show();
}
function zoom(factor, around = (view.from + view.to) / 2) {
  const span = Math.min(DURATION, Math.max(LEAST, (view.to - view.from) * factor));
  const share = (around - view.from) / (view.to - view.from);
  look(around - span * share, around + span * (1 - share));
}
function pan(part) {
  const span = view.to - view.from, from = Math.max(0, Math.min(DURATION - span, view.from + span * part));
  look(from, from + span);
}
/** Shows a span with room about it. */
function centre(from, to) {
  const room = Math.max((to - from) * .75, DURATION / 200, 500);
  look(from - room, to + room);
}

function head() {
  $('file').textContent = data.file;
  document.title = `${data.file} · soma-sync trace`;
  const began = data.started_unix_ms ? new Date(data.started_unix_ms).toISOString().replace('T', ' ').replace(/\.\d+Z/, ' UTC') : '';
  const under = [`chain ${data.chain.slice(0, 16)}…`, data.build, began, `ends: ${data.ending}`];
  $('under').textContent = under.filter(Boolean).join('  ·  ');
  $('under').title = data.chain;
  const { counts } = data, second = peers.reduce((sum, peer) => sum + peer.second, 0);
  const late = peers.reduce((sum, peer) => sum + peer.outcomes[OUTCOMES.findIndex(({ name }) => name === 'timed out')], 0);
  const facts = [
    ['duration', lasting(DURATION)], ['events', number.format(data.events)],
    ['commits stored', data.stored === null ? '—' : number.format(Math.max(0, data.stored - data.start))],
    ['of answers', bytes(data.bytes)], ['peers', number.format(peers.length)], ['requests', number.format(COUNT)],
    ['timed out', number.format(late), late], ['second requests', number.format(second)],
    ['stalls', number.format(stalls.length), stalls.length],
    ['offences', number.format(offences.length), offences.length], ['halts', number.format(counts.halt ?? 0), counts.halt],
  ];
  for (const [name, value, bad] of facts) {
    const pair = element('div', '');
    pair.append(element('dt', name), element('dd', value, { className: bad ? 'bad' : '' }));
    $('facts').append(pair);
  }
  data.notes.forEach(note => $('notes').append(element('li', note)));
}

function legend() {
  const swatch = (draw, name) => {
    const one = element('span', ''), canvas = document.createElement('canvas');
    canvas.width = 44; canvas.height = 26;
    const g = canvas.getContext('2d');
    g.scale(2, 2);
    draw(g);
    one.append(canvas, name);
    return one;
  };
  const line = (title, swatches) => {
    const p = element('p', '');
    p.append(element('b', title), ...swatches);
    return p;
  };
  const kinds = [4, 2, 3, 0].map(kind => swatch(g => box(g, 1, SHADES[kind], 0, 1, 22, 11), kind === 0 ? 'small ones' : KINDS[kind]));
  const outcomes = OUTCOMES.map((outcome, i) => swatch(g => box(g, i, 1, 0, 1, 22, 11), outcome.letter ? `${outcome.letter} ${outcome.name}` : outcome.name));
  const more = [
    swatch(g => { box(g, 1, 1, 0, 3, 22, 9); g.fillStyle = colours.outrun; g.fillRect(0, 0, 22, 2.5); }, 'second request for the same'),
    swatch(g => { g.fillStyle = colours.offence; g.beginPath(); g.moveTo(11, 0); g.lineTo(17, 6.5); g.lineTo(11, 13); g.lineTo(5, 6.5); g.fill(); }, 'offence, and kept out'),
    swatch(g => { g.fillStyle = colours.stall; g.globalAlpha = .15; g.fillRect(0, 0, 22, 13); g.globalAlpha = 1; g.fillRect(0, 0, 22, 3); }, 'stall'),
    swatch(g => { g.fillStyle = colours.connected; g.fillRect(0, 0, 22, 13); g.fillStyle = colours.delivered; g.fillRect(0, 0, 2, 13); }, 'connected'),
    swatch(g => box(g, 1, .8, 0, 5, 22, 4), 'thin: a request of theirs to us'),
  ];
  $('legend').replaceChildren(line('Asked for', kinds), line('What came of it', outcomes), line('Also', more));
}

function table() {
  const names = ['peer', 'claims', 'requests', 'answered', 'refused', 'timed out', 'outrun', 'malformed', 'second', 'received', 'asked us', 'offences', 'last offence'];
  const head = element('tr', '');
  names.forEach((name, i) => head.append(element('th', name, { className: i && i < 12 ? 'n' : '', scope: 'col' })));
  const body = element('tbody', ''), top = element('thead', '');
  top.append(head);
  for (const peer of peers) {
    const line = element('tr', '');
    const claim = peer.claim.highest[peer.claim.highest.length - 1];
    const cells = [
      peer.short, claim === undefined ? '—' : number.format(claim), peer.ours.length, ...[1, 2, 3, 5, 6].map(i => peer.outcomes[i]),
      peer.second, bytes(peer.bytes), peer.asked, peer.offences, peer.bans.length ? peer.bans[peer.bans.length - 1].text : '',
    ];
    cells.forEach((cell, i) => line.append(element('td', typeof cell === 'number' ? number.format(cell) : cell, { className: i && i < 12 ? 'n' : '', title: i ? '' : peer.id })));
    body.append(line);
  }
  $('peers').replaceChildren(top, body);
}

/** What is under the pointer: a title, and lines of a name and a value. */
function under(px, py) {
  const panel = view.panels.find(({ top, height }) => py >= top && py < top + height);
  if (!panel || px < GUTTER || px > view.width - RIGHT) return null;
  const moment = when(px), near = (view.to - view.from) / (view.width - GUTTER - RIGHT) * 4;
  const digits = (view.to - view.from) / 2000;
  const close = list => list.filter(incident => Math.abs(incident.t - moment) <= near * 1.6)
    .sort((a, b) => Math.abs(a.t - moment) - Math.abs(b.t - moment))[0];
  const incident = close(panel.name === 'lane' ? panel.peer.incidents : ours);
  const ofIncident = incident && { title: INCIDENTS[incident.kind] ?? incident.kind, lines: [['at', time(incident.t, digits)], ['', incident.text]] };
  if (panel.name === 'notices') {
    const stall = stalls.find(({ from, to }) => from <= moment && moment <= to);
    return ofIncident ?? (stall ? { title: 'stalled', lines: [['for', lasting(stall.to - stall.from)], ['', stall.text]] } : { title: time(moment, digits), lines: [] });
  }
  if (panel.name === 'lane') {
    const request = requestAt(panel, moment, py, near);
    if (request !== null && !(ofIncident && incident.kind === 'offence' && py > panel.top + panel.height - 16)) return ofRequest(request, digits);
    const ban = panel.peer.bans.find(({ from, to }) => from <= moment && moment <= to);
    return ofIncident ?? (ban ? { title: 'kept out', lines: [['for', lasting(ban.lasts)], ['because', ban.text]] } : { title: `peer ${panel.peer.short}`, lines: [['at', time(moment, digits)], ['claims', String(valueAt(panel.peer.claim.t, panel.peer.claim.highest, moment, '—'))]] });
  }
  return { title: time(moment, digits), lines: figures(panel, moment) };
}
function requestAt(panel, moment, py, near) {
  const { peer, bar } = panel, inTheirs = peer.theirs.length && py >= panel.theirs - 2;
  const place = Math.floor(inTheirs ? (py - panel.theirs) / 5 : (py - panel.ours) / (bar + 1));
  let best = null, distance = Infinity;
  within(inTheirs ? peer.theirs : peer.ours, moment - near, moment + near, request => {
    const far = Math.max(0, requests.from[request] - moment, moment - requests.to[request]) + Math.abs(row[request] - place) * near * .8;
    if (far < distance && Math.abs(row[request] - place) < 1) [best, distance] = [request, far];
  });
  return best;
}
function ofRequest(request, digits) {
  const outcome = OUTCOMES[requests.outcome[request]], theirs = requests.inbound[request];
  return {
    title: `${theirs ? 'They ask for ' : ''}${KINDS[requests.kind[request]]} ${about(request)}`,
    request,
    lines: [
      ['request', `#${requests.id[request]}`], ['peer', peers[requests.peer[request]].short], ['from', time(requests.from[request], digits)],
      ['took', lasting(requests.to[request] - requests.from[request])], ['bytes', requests.bytes[request] ? bytes(requests.bytes[request]) : ''],
      ['outcome', outcome.name], ['', requests.second[request] ? 'a second request: another peer had been asked before' : ''],
    ],
  };
}
function figures(panel, moment) {
  const value = column => number.format(valueAt(series.t, series[column], moment, data.start));
  if (panel.name === 'height') {
    const claims = peers.map(peer => valueAt(peer.claim.t, peer.claim.highest, moment, 0));
    return [['stored', value('stored')], ['certifiable', value('certifiable')], ['delivered', value('delivered')], ['highest claim', claims.some(Boolean) ? number.format(Math.max(...claims)) : '—']];
  }
  if (panel.name === 'rate') {
    const cell = (panel.cells ?? []).find(({ from, to }) => from <= moment && moment < to);
    return cell ? [['commits', `${number.format(cell.commits)} /s`], ['answers', `${bytes(cell.bytes)}/s`], ['over', lasting(Math.round(cell.to - cell.from))]] : [];
  }
  const plain = column => valueAt(series.t, series[column], moment, 0);
  if (panel.name === 'buffer') return [['buffered', bytes(plain('buffered'))], ['budget', bytes(data.budget)], ['requests under way', number.format(plain('requests'))], ['jobs', number.format(plain('jobs'))]];
  const counts = valueAt(stages.t, stages.counts, moment, null);
  return counts ? STAGES.map((name, stage) => [name, number.format(counts[stage])]) : [];
}

function hover() {
  const g = pen(over, view.width, view.height);
  if (brush) {
    const [a, b] = [brush.from, brush.to].sort((p, q) => p - q);
    g.fillStyle = colours.brush; g.fillRect(a, 0, b - a, view.height);
    g.fillStyle = colours.ink; g.fillText(lasting(Math.round(Math.abs(when(b) - when(a)))), b + 6, (pointer?.y ?? 20) - 6);
  }
  const box = $('tip'), what = pointer && !brush && under(pointer.x, pointer.y);
  box.hidden = !what;
  document.body.dataset.hover = what ? what.title : '';
  if (!what) return;
  g.strokeStyle = colours.faint;
  g.beginPath(); g.moveTo(Math.round(pointer.x) + .5, 0); g.lineTo(Math.round(pointer.x) + .5, view.height); g.stroke();
  box.replaceChildren(element('b', what.title));
  for (const [name, value] of what.lines) {
    if (!value) continue;
    const line = element('p', '');
    if (name) line.append(element('span', name));
    line.append(element('span', value));
    box.append(line);
  }
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${pointer.clientX + 18 + width > innerWidth ? pointer.clientX - width - 14 : pointer.clientX + 18}px`;
  box.style.top = `${Math.max(8, Math.min(innerHeight - height - 8, pointer.clientY + 14))}px`;
}

function search(text) {
  const asked = query(text);
  view.search = asked && typeof asked === 'object' ? asked : null;
  found = [];
  at = -1;
  if (view.search) for (let i = 0; i < COUNT; i++) if (view.search.test(i)) found.push(i);
  if (typeof asked === 'string') say(asked);
  else if (!asked) say('');
  else {
    const { index, name } = asked;
    const place = index === undefined ? -1 : series.stored.findIndex(stored => stored >= index);
    const stored = index === undefined ? '' : index <= data.start ? '; stored before the trace begins' : place < 0 ? '; not seen stored' : `; stored at ${time(series.t[place], 1000)}`;
    say(`${name}: ${number.format(found.length)} request${found.length === 1 ? '' : 's'}${stored}`);
  }
  show();
}
function next(by) {
  if (!found.length) { say(view.search ? 'Nothing was found.' : 'Nothing is searched for.'); return; }
  at = (at + by + found.length) % found.length;
  const request = found[at], outcome = OUTCOMES[requests.outcome[request]].name;
  centre(requests.from[request], requests.to[request]);
  say(`${at + 1} of ${number.format(found.length)}: ${KINDS[requests.kind[request]]} ${about(request)} of peer ${peers[requests.peer[request]].short}, ${outcome}`);
}
/** Goes to the next of a kind, around to the first after the last. */
function jump(list, word, from, to, text) {
  if (!list.length) { say(`There is no ${word} in this trace.`); return; }
  jump.places ??= {};
  const place = jump.places[word] = ((jump.places[word] ?? -1) + 1) % list.length, one = list[place];
  document.body.dataset[word] = String(place);
  centre(from(one), to(one));
  say(`${word} ${place + 1} of ${list.length} at ${time(from(one), 1000)}: ${text(one)}`);
}
const nextStall = () => jump(stalls, 'stall', s => s.from, s => s.to, s => s.text);
const nextOffence = () => jump(offences, 'offence', o => o.t, o => o.t, o => `peer ${peers[o.peer]?.short ?? ''}: ${o.text}`);

function theme(name) {
  document.documentElement.dataset.theme = name;
  dress();
  legend();
  show();
}
const dark = matchMedia('(prefers-color-scheme: dark)');
const toggle = () => theme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');

const KEYS = {
  ArrowLeft: event => pan(event.shiftKey ? -1 : -.15), ArrowRight: event => pan(event.shiftKey ? 1 : .15),
  '+': () => zoom(.6), '=': () => zoom(.6), '-': () => zoom(1 / .6), 0: () => look(0, DURATION),
  Home: () => pan(-1e9), End: () => pan(1e9), s: nextStall, o: nextOffence, t: toggle, n: () => next(1), p: () => next(-1),
  '/': () => $('search').focus(), '?': () => $('keys').showModal(),
  Escape: () => { $('search').value = ''; search(''); },
};
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $('keys').open) return;
  if (event.target === $('search')) {
    if (event.key === 'Enter') next(event.shiftKey ? -1 : 1);
    if (event.key === 'Escape') { KEYS.Escape(); chart.focus(); }
    return;
  }
  const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
  if (act) { event.preventDefault(); act(event); }
});
$('search').addEventListener('input', event => search(event.target.value));
const buttons = {
  stall: nextStall, offence: nextOffence, in: KEYS['+'], out: KEYS['-'], reset: KEYS[0], theme: toggle, help: KEYS['?'],
};
for (const [id, act] of Object.entries(buttons)) $(id).addEventListener('click', act);

const place = event => {
  const { left, top } = chart.getBoundingClientRect();
  return { x: event.clientX - left, y: event.clientY - top, clientX: event.clientX, clientY: event.clientY };
};
const inPlot = px => Math.max(GUTTER, Math.min(view.width - RIGHT, px));
chart.addEventListener('pointerdown', event => {
  const { x: px } = place(event);
  if (event.button !== 0 || px < GUTTER) return;
  brush = { from: inPlot(px), to: inPlot(px) };
  chart.setPointerCapture(event.pointerId);
});
chart.addEventListener('pointermove', event => {
  pointer = place(event);
  if (brush) brush.to = inPlot(pointer.x);
  hover();
});
chart.addEventListener('pointerup', () => {
  if (!brush) return;
  const [a, b] = [brush.from, brush.to].sort((p, q) => p - q);
  brush = null;
  if (b - a > 4) look(when(a), when(b)); else hover();
});
chart.addEventListener('pointercancel', () => { brush = null; hover(); });
chart.addEventListener('pointerleave', () => { if (!brush) { pointer = null; hover(); } });
chart.addEventListener('dblclick', () => look(0, DURATION));
chart.addEventListener('wheel', event => {
  const { x: px } = place(event);
  if (px < GUTTER) return;
  event.preventDefault();
  const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
  const turn = Math.max(-400, Math.min(400, (event.deltaMode ? 30 : 1) * (sideways ? event.deltaX || event.deltaY : event.deltaY)));
  if (sideways) pan(turn / 800); else zoom(Math.exp(turn / 350), when(inPlot(px)));
}, { passive: false });

let moved = null;
const wholeAt = event => {
  const { left } = overview.getBoundingClientRect();
  return (event.clientX - left - GUTTER) / (view.width - GUTTER - RIGHT) * DURATION;
};
overview.addEventListener('pointerdown', event => {
  const to = wholeAt(event), span = view.to - view.from;
  if (to < view.from || to > view.to) look(to - span / 2, to + span / 2);
  moved = { to, from: view.from, span };
  overview.setPointerCapture(event.pointerId);
});
overview.addEventListener('pointermove', event => {
  if (!moved) return;
  const from = Math.max(0, Math.min(DURATION - moved.span, moved.from + wholeAt(event) - moved.to));
  look(from, from + moved.span);
});
for (const over of ['pointerup', 'pointercancel']) overview.addEventListener(over, () => { moved = null; });

dark.addEventListener('change', () => theme(dark.matches ? 'dark' : 'light'));
new ResizeObserver(show).observe(chart.parentElement);
head();
table();
theme(dark.matches ? 'dark' : 'light');
