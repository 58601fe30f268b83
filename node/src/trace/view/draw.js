// Drawing. One canvas holds what is shown, another over it the crosshair and the brush.

const GUTTER = 168, RIGHT = 66, TICKS = 24;
const chart = document.getElementById('chart'), over = document.getElementById('over');
const overview = document.getElementById('overview');
const view = { from: 0, to: DURATION, search: null, width: 0, height: 0, panels: [], drawn: 0 };
const FONT = '12px ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif';
const SMALL = '10.5px ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif';
const MONO = '11.5px ui-monospace, Menlo, Consolas, monospace';
let colours = {}, patterns = {};

const x = at => GUTTER + (at - view.from) / (view.to - view.from) * (view.width - GUTTER - RIGHT);
const when = px => view.from + (px - GUTTER) / (view.width - GUTTER - RIGHT) * (view.to - view.from);

/** Reads the colours of the theme, and makes the patterns in them. */
function dress() {
  const style = getComputedStyle(document.documentElement);
  colours = new Proxy({}, { get: (known, name) => known[name] ??= style.getPropertyValue(`--${name}`).trim() });
  const strokes = {
    rising: [[0, 6, 6, 0], [-1, 1, 1, -1], [5, 7, 7, 5]], falling: [[0, 0, 6, 6], [-1, 5, 1, 7], [5, -1, 7, 1]],
    level: [[0, 3, 6, 3]], upright: [[3, 0, 3, 6]], crossed: [[0, 6, 6, 0], [0, 0, 6, 6]], dots: [[2, 3, 4, 3]],
  };
  patterns = {};
  for (const [name, lines] of Object.entries(strokes)) {
    const tile = document.createElement('canvas');
    tile.width = tile.height = 6;
    const pen = tile.getContext('2d');
    pen.strokeStyle = colours.card;
    pen.lineWidth = name === 'dots' ? 2 : 1.2;
    for (const [x0, y0, x1, y1] of lines) { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); }
    patterns[name] = pen.createPattern(tile, 'repeat');
  }
}

/** Sizes a canvas for the screen's pixels, and gives a pen that counts in CSS pixels. */
function pen(canvas, width, height) {
  const scale = Math.min(2, window.devicePixelRatio || 1);
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
  }
  const g = canvas.getContext('2d');
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = FONT;
  return g;
}

/** Panels from top to bottom, each with its place. */
function arrange() {
  const panels = [];
  let top = 0;
  const add = (name, height, more) => { panels.push({ name, top, height, ...more }); top += height; };
  add('notices', 34, { title: 'Notices' });
  if (series.t.length) {
    add('height', 190, { title: 'Commits', under: 'stored, and claimed' });
    add('rate', 110, { title: 'Throughput', under: 'stored, and answers' });
    add('buffer', 84, { title: 'Buffered', under: 'against the budget' });
    if (stages.t.length) add('stages', 92, { title: 'Window', under: `next ${stages.window} commits` });
  }
  const tight = peers.length > 16;
  for (const peer of peers) {
    const bar = tight ? 6 : peer.rows > 12 ? 7 : 9;
    const lines = tight ? 0 : troubles(peer).length;
    const height = Math.max(tight ? 26 : 40 + lines * 13, 12 + peer.rows * (bar + 1) + (peer.theirs.length ? 10 : 0) + 6);
    add('lane', height, { peer, bar });
  }
  view.panels = panels;
  view.height = top + 6;
}

function ticks(g, top, height, labels) {
  const by = step(view.to - view.from, (view.width - GUTTER - RIGHT) / 110);
  g.font = SMALL;
  g.textAlign = 'center';
  for (let at = Math.ceil(view.from / by) * by; at <= view.to; at += by) {
    const px = Math.round(x(at)) + .5;
    g.strokeStyle = colours.rule;
    g.beginPath(); g.moveTo(px, top); g.lineTo(px, top + height); g.stroke();
    if (labels) { g.fillStyle = colours.soft; g.fillText(time(at, by), px, top + 14); }
  }
  g.textAlign = 'left';
}

/** A scale from values to a panel's height, with its rounded ticks at a side. */
function scale(g, panel, low, high, word, right) {
  if (high <= low) high = low + 1;
  const top = panel.top + 12, bottom = panel.top + panel.height - 8;
  const y = value => bottom - (value - low) / (high - low) * (bottom - top);
  const by = Math.max(1, step(high - low, panel.height / 34));
  g.font = SMALL;
  g.textAlign = right ? 'left' : 'right';
  for (let value = Math.ceil(low / by) * by, n = 0; value <= high && n < 40; value += by, n++) {
    if (!right) {
      g.strokeStyle = colours.rule;
      g.beginPath(); g.moveTo(GUTTER, Math.round(y(value)) + .5); g.lineTo(view.width - RIGHT, Math.round(y(value)) + .5); g.stroke();
    }
    g.fillStyle = colours.faint;
    g.fillText(word(value), right ? view.width - RIGHT + 7 : GUTTER - 8, y(value) + 3.5);
  }
  g.textAlign = 'left';
  return y;
}

/** A line that holds each value until the next, with one step a pixel at most. */
function steps(g, times, values, y, colour, { width = 1.5, dash = [], before = null, until = DURATION } = {}) {
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.setLineDash(dash);
  g.beginPath();
  let place = Math.max(0, lastAtMost(times, view.from)), drawn = false, last = before === null ? null : y(before);
  if (before !== null && times.length && times[0] > view.from) { g.moveTo(x(Math.max(0, view.from)), last); drawn = true; }
  let pixel = -1e9;
  for (; place < times.length && times[place] <= view.to; place++) {
    const px = Math.max(GUTTER, x(times[place])), py = y(values[place]);
    if (px - pixel < .5 && place + 1 < times.length && times[place + 1] <= view.to) continue;
    if (!drawn) g.moveTo(px, py); else { g.lineTo(px, last); g.lineTo(px, py); }
    [drawn, last, pixel] = [true, py, px];
  }
  if (drawn) g.lineTo(Math.min(x(until), view.width - RIGHT), last);
  g.stroke();
  g.setLineDash([]);
  g.lineWidth = 1;
}

const lastSample = () => series.t[series.t.length - 1] ?? 0;

/** Above this a claim is not worth the room: far more than half of the peers claim, and than what was stored. */
const BELIEVED = (() => {
  const claims = peers.map(peer => peer.claim.highest.reduce((a, b) => Math.max(a, b), 0)).sort((a, b) => a - b);
  return 3 * Math.max(data.stored ?? data.start, claims[(claims.length - 1) >> 1] ?? 0) + 100;
})();

/** Spans in which nothing was stored for long, though a peer had claimed more: what all panels are to be looked at for. */
const waits = (() => {
  const long = Math.max(5e5, DURATION / 50), found = [];
  const more = (at, held) => peers.some(({ claim }) => {
    const highest = valueAt(claim.t, claim.highest, at);
    return highest > held && highest <= BELIEVED;
  });
  let from = 0, held = data.start;
  const until = at => { if (at - from >= long && more(at - 1, held)) found.push({ from, to: at }); };
  series.t.forEach((at, place) => {
    if (series.stored[place] <= held) return;
    until(at);
    [from, held] = [at, series.stored[place]];
  });
  until(lastSample());
  return found;
})();

function drawWaits(g, panel) {
  g.font = SMALL;
  g.textAlign = 'center';
  for (const { from, to } of waits) {
    const left = Math.max(GUTTER, x(from)), right = Math.min(view.width - RIGHT, x(to)), py = panel.top + panel.height - 6;
    if (right <= left) continue;
    g.fillStyle = colours.timeout;
    g.fillRect(left + 1, py, Math.max(1, right - left - 2), 3);
    const all = [`nothing for ${lasting(to - from)}`, lasting(to - from)];
    const words = all.find(words => g.measureText(words).width < right - left - 4);
    if (!words) continue;
    const half = g.measureText(words).width / 2 + 2, middle = (left + right) / 2;
    g.fillStyle = colours.card; g.globalAlpha = .8; g.fillRect(middle - half, py - 13, 2 * half, 12); g.globalAlpha = 1;
    g.fillStyle = colours.timeout; g.fillText(words, middle, py - 4);
  }
  g.textAlign = 'left';
}

function drawHeight(g, panel) {
  const values = [];
  const visible = (times, column, before) => {
    const first = lastAtMost(times, view.from), last = lastAtMost(times, view.to);
    if (before !== undefined && first < 0) values.push(before);
    for (let i = Math.max(0, first); i <= last; i++) values.push(column[i]);
  };
  visible(series.t, series.stored, data.start);
  peers.forEach(peer => visible(peer.claim.t, peer.claim.highest));
  visible(series.t, series.delivered, 0);
  let low = Infinity, high = -Infinity;
  const far = values.some(value => value > BELIEVED);
  for (const value of values) if (value <= BELIEVED) { low = Math.min(low, value); high = Math.max(high, value); }
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  const room = (high - low) * .04;
  const y = scale(g, panel, Math.max(0, low - room), high + room + 1, n => number.format(n));
  panel.y = y;
  peers.forEach(peer => {
    const found = view.search && view.search.lanes && view.search.lanes.has(peer.lane);
    steps(g, peer.claim.t, peer.claim.highest, y, found ? colours.found : colours.claim, { dash: [5, 3], width: found ? 2 : 1.2, until: lastSample() });
  });
  if (view.search && view.search.index !== undefined) {
    const py = y(view.search.index);
    if (py > panel.top && py < panel.top + panel.height) {
      g.strokeStyle = colours.found;
      g.beginPath(); g.moveTo(GUTTER, py); g.lineTo(view.width - RIGHT, py); g.stroke();
    }
  }
  const until = lastSample();
  steps(g, series.t, series.delivered, y, colours.delivered, { width: 3.5, before: data.start, until });
  steps(g, series.t, series.certifiable, y, colours.certifiable, { width: 1.6, dash: [2, 2], before: data.start, until });
  steps(g, series.t, series.stored, y, colours.stored, { width: 1.6, before: data.start, until });
  drawWaits(g, panel);
  const named = [['stored', 'stored'], ['certifiable', 'certifiable'], ['delivered', 'delivered'], ['claim', far ? 'peers claim, one far above' : 'peers claim']];
  label(g, panel, waits.length ? [...named, ['timeout', 'nothing stored, though there is more']] : named);
}

/** Rates over cells a few pixels wide, whatever the zoom. */
function rates() {
  const cells = Math.max(20, Math.floor((view.width - GUTTER - RIGHT) / 7));
  const span = (view.to - view.from) / cells, out = [];
  for (let cell = 0; cell < cells; cell++) {
    const from = view.from + cell * span, to = from + span;
    const per = (values, before) => (valueAt(series.t, values, to, before) - valueAt(series.t, values, from, before)) / span * 1e6;
    out.push({ from, to, commits: Math.max(0, per(series.stored, data.start)), bytes: per(series.bytes, 0) });
  }
  return out;
}

function drawRate(g, panel) {
  const cells = rates();
  panel.cells = cells;
  const most = name => Math.max(1, ...cells.map(cell => cell[name])) * 1.08;
  const y = scale(g, panel, 0, most('commits'), n => number.format(n));
  const yBytes = scale(g, panel, 0, most('bytes'), n => bytes(n), true);
  g.fillStyle = colours.bytes;
  g.globalAlpha = .45;
  for (const cell of cells) if (cell.bytes > 0) g.fillRect(x(cell.from), yBytes(cell.bytes), x(cell.to) - x(cell.from) - .6, yBytes(0) - yBytes(cell.bytes));
  g.globalAlpha = 1;
  steps(g, cells.map(cell => cell.from), cells.map(cell => cell.commits), y, colours.commits, { width: 1.5, until: view.to });
  label(g, panel, [['commits', 'commits/s, left'], ['bytes', 'answers per s, right']]);
}

function drawBuffer(g, panel) {
  const first = Math.max(0, lastAtMost(series.t, view.from)), last = lastAtMost(series.t, view.to);
  let most = 1;
  for (let i = first; i <= last; i++) most = Math.max(most, series.buffered[i]);
  const near = most > data.budget / 4;
  const y = scale(g, panel, 0, near ? Math.max(most, data.budget) * 1.06 : most * 1.12, n => bytes(n));
  g.beginPath();
  g.moveTo(GUTTER, y(0));
  let held = valueAt(series.t, series.buffered, view.from, 0), pixel = -1e9;
  for (let i = first; i <= last; i++) {
    const px = Math.max(GUTTER, x(series.t[i]));
    if (px - pixel < .5 && i < last) continue;
    g.lineTo(px, y(held)); g.lineTo(px, y(series.buffered[i]));
    held = series.buffered[i]; pixel = px;
  }
  const end = Math.min(x(lastSample()), view.width - RIGHT);
  g.lineTo(end, y(held)); g.lineTo(end, y(0));
  g.fillStyle = colours.buffered; g.globalAlpha = .35; g.fill(); g.globalAlpha = 1;
  steps(g, series.t, series.buffered, y, colours.buffered, { width: 1.2, until: lastSample() });
  if (near) {
    g.strokeStyle = colours.budget; g.setLineDash([6, 4]);
    g.beginPath(); g.moveTo(GUTTER, y(data.budget)); g.lineTo(view.width - RIGHT, y(data.budget)); g.stroke();
    g.setLineDash([]);
  }
  label(g, panel, [['buffered', 'buffered'], ['budget', near ? `budget ${bytes(data.budget)}` : `budget ${bytes(data.budget)}, far above`]]);
}

function drawStages(g, panel) {
  const first = Math.max(0, lastAtMost(stages.t, view.from)), last = lastAtMost(stages.t, view.to);
  let most = 1;
  for (let i = first; i <= last; i++) most = Math.max(most, stages.counts[i].reduce((a, b) => a + b, 0));
  const y = scale(g, panel, 0, most * 1.05, n => number.format(n));
  for (let i = first; i <= last; i++) {
    const from = Math.max(GUTTER, x(stages.t[i]));
    const to = Math.min(view.width - RIGHT, x(stages.t[i + 1] ?? lastSample()));
    let sum = 0;
    stages.counts[i].forEach((count, stage) => {
      g.fillStyle = colours[`stage-${stage}`];
      g.fillRect(from, y(sum + count), Math.max(.5, to - from + .4), y(sum) - y(sum + count));
      sum += count;
    });
  }
  label(g, panel, STAGES.map((name, stage) => [`stage-${stage}`, name]));
}

/** Names what is drawn, in the panel's upper left. */
function label(g, panel, names) {
  g.font = SMALL;
  let left = GUTTER + 8;
  const width = names.reduce((sum, [, name]) => sum + g.measureText(name).width + 26, 6);
  g.fillStyle = colours.card; g.globalAlpha = .78;
  g.fillRect(left - 4, panel.top + 5, width, 16);
  g.globalAlpha = 1;
  for (const [colour, name] of names) {
    g.fillStyle = colours[colour]; g.fillRect(left, panel.top + 10, 11, 6);
    g.fillStyle = colours.soft; g.fillText(name, left + 15, panel.top + 17);
    left += g.measureText(name).width + 26;
  }
}

const SIGNS = { stall: '‖', resumed: '▸', synced: '✓', behind: '↓', halt: '■', panic: '✕', 'store-failed': '✕', 'store-reopened': '↻' };

function drawNotices(g, panel) {
  const grave = ({ kind }) => ['halt', 'panic', 'store-failed', 'stall'].includes(kind), taken = [];
  g.font = SMALL;
  for (const stall of stalls) {
    if (stall.to < view.from || stall.from > view.to) continue;
    const left = Math.max(GUTTER, x(stall.from)), right = Math.min(view.width - RIGHT, x(stall.to));
    g.fillStyle = colours.stall;
    g.fillRect(left, panel.top + 3, Math.max(2, right - left), 3);
  }
  // The grave ones get their words first; where there is no room a stroke has to do.
  for (const incident of [...ours.filter(grave), ...ours.filter(one => !grave(one))]) {
    const px = x(incident.t);
    if (px < GUTTER - 2 || px > view.width - RIGHT + 2) continue;
    g.fillStyle = grave(incident) ? colours.stall : colours.soft;
    g.fillRect(Math.round(px) - .5, panel.top + 9, 1.5, 15);
    if (taken.length > 200) continue;
    const name = `${SIGNS[incident.kind] ?? '·'} ${INCIDENTS[incident.kind] ?? incident.kind}`, end = px + g.measureText(name).width + 14;
    if (end > view.width + 8 || taken.some(([from, to]) => px < to && end > from)) continue;
    taken.push([px, end]);
    g.fillText(name, px + 5, panel.top + 21);
  }
}

/** A box in an outcome's colour and pattern, as strong as its kind. */
function box(g, outcome, shade, left, top, width, height) {
  const { colour, pattern, letter } = OUTCOMES[outcome];
  if (pattern === 'hollow') {
    g.strokeStyle = colours[colour];
    g.strokeRect(left + .5, top + .5, Math.max(.5, width - 1), height - 1);
    return;
  }
  g.globalAlpha *= shade;
  g.fillStyle = colours[colour];
  g.fillRect(left, top, width, height);
  g.globalAlpha /= shade;
  if (patterns[pattern] && width >= 4) { g.fillStyle = patterns[pattern]; g.fillRect(left, top, width, height); }
  if (letter && width >= 15 && height >= 8) {
    g.fillStyle = colours.card; g.fillRect(left + 1, top, 10, height);
    g.fillStyle = colours[colour]; g.font = `bold ${SMALL}`; g.fillText(letter, left + 2.5, top + height - .5);
  }
}

function drawBars(g, panel, list, top, bar, rows) {
  const pixel = new Float64Array(rows).fill(-1e9), weight = new Int8Array(rows);
  within(list, view.from, view.to, request => {
    const left = Math.max(GUTTER, x(requests.from[request])), right = Math.min(view.width - RIGHT, x(requests.to[request]));
    const place = row[request], outcome = requests.outcome[request];
    const found = view.search ? view.search.test(request) : true;
    const py = top + place * (bar + 1), width = right - left;
    g.globalAlpha = found ? 1 : .13;
    if (width < 1) {
      // Many may share a pixel; the one that must be seen most is.
      const px = Math.floor(left), heavy = OUTCOMES[outcome].weight + (view.search && found ? 20 : 0);
      if (pixel[place] === px && weight[place] >= heavy) return;
      [pixel[place], weight[place]] = [px, heavy];
      g.fillStyle = colours[OUTCOMES[outcome].colour];
      g.globalAlpha *= Math.max(.6, SHADES[requests.kind[request]]);
      g.fillRect(px, py, 1, bar);
      view.drawn++;
      return;
    }
    view.drawn++;
    box(g, outcome, SHADES[requests.kind[request]], left, py, Math.max(1, width - .5), bar);
    if (requests.second[request]) { g.fillStyle = colours.outrun; g.fillRect(left, py - 1, Math.max(2, width), 2); }
    if (view.search && found) { g.strokeStyle = colours.found; g.lineWidth = 1.5; g.strokeRect(left - 1, py - 1, width + 2, bar + 2); g.lineWidth = 1; }
    const words = width > 60 && bar >= 9 ? about(request) : '';
    if (words) {
      g.font = SMALL;
      const start = left + (OUTCOMES[outcome].letter ? 15 : 5);
      if (start + g.measureText(words).width < right - 4) {
        g.fillStyle = requests.outcome[request] === 0 || SHADES[requests.kind[request]] < .6 ? colours.ink : colours.card;
        if (OUTCOMES[outcome].pattern !== 'plain' && OUTCOMES[outcome].pattern !== 'hollow') {
          const measure = g.measureText(words).width;
          g.fillStyle = colours.card; g.fillRect(start - 2, py, measure + 4, bar); g.fillStyle = colours.ink;
        }
        g.fillText(words, start, py + bar - .8);
      }
    }
  });
  g.globalAlpha = 1;
}

function drawLane(g, panel) {
  const { peer, bar } = panel, right = view.width - RIGHT;
  const clip = (from, to) => [Math.max(GUTTER, x(from)), Math.min(right, x(to))];
  for (const span of peer.spans) {
    const [a, b] = clip(span.from, span.to);
    if (b > a) { g.fillStyle = colours.connected; g.fillRect(a, panel.top + 1, b - a, panel.height - 1); }
  }
  for (const ban of peer.bans) {
    const [a, b] = clip(ban.from, ban.to);
    if (b <= a) continue;
    g.globalAlpha = .16; g.fillStyle = colours.offence; g.fillRect(a, panel.top + 1, b - a, panel.height - 1);
    g.globalAlpha = .8; g.fillStyle = patterns.rising; g.fillRect(a, panel.top + 1, b - a, panel.height - 1); g.globalAlpha = 1;
    const name = `kept out for ${lasting(ban.lasts)}: ${ban.text}`;
    g.font = SMALL;
    if (b - a > g.measureText(name).width + 22) { g.fillStyle = colours.offence; g.fillText(name, a + 16, panel.top + panel.height - 6); }
  }
  panel.ours = panel.top + 8;
  panel.theirs = panel.ours + peer.rows * (bar + 1) + 3;
  drawBars(g, panel, peer.ours, panel.ours, bar, ROWS);
  if (peer.theirs.length) drawBars(g, panel, peer.theirs, panel.theirs, 4, THEIR_ROWS);
  let last = -1e9;
  for (const incident of peer.incidents) {
    const px = x(incident.t);
    if (px < GUTTER || px > right) continue;
    if (incident.kind === 'offence') {
      g.fillStyle = colours.offence;
      const py = panel.top + panel.height - 10;
      g.beginPath(); g.moveTo(px, py - 7); g.lineTo(px + 6.5, py); g.lineTo(px, py + 7); g.lineTo(px - 6.5, py); g.fill();
      g.fillStyle = colours.card; g.font = `bold ${SMALL}`; g.textAlign = 'center'; g.fillText('!', px, py + 3.5); g.textAlign = 'left';
    } else if (px - last >= 1) {
      g.fillStyle = incident.kind === 'connected' ? colours.delivered : colours.faint;
      g.fillRect(px - .75, panel.top + 1, 1.5, panel.height - 1);
      last = px;
    }
  }
}

const DRAW = { notices: drawNotices, height: drawHeight, rate: drawRate, buffer: drawBuffer, stages: drawStages, lane: drawLane };

/** What came of requests to a peer that was not to be, the gravest first: who holds us up is to be seen at a glance. */
function troubles(peer) {
  const bad = OUTCOMES.map((outcome, place) => ({ ...outcome, count: peer.outcomes[place] }));
  return bad.filter(({ weight, count }) => weight > 2 && count).sort((a, b) => b.weight - a.weight).slice(0, 3);
}

function names(g, panel) {
  g.fillStyle = colours.card; g.fillRect(0, panel.top, GUTTER - 62, panel.height);
  if (panel.name === 'lane') {
    const { peer } = panel, found = view.search && view.search.lanes && view.search.lanes.has(peer.lane);
    g.font = MONO; g.fillStyle = found ? colours.found : colours.ink; g.fillText(peer.short, 16, panel.top + 17);
    g.font = SMALL; g.fillStyle = colours.faint;
    if (panel.height < 34) return;
    const bad = troubles(peer);
    const nothing = peer.asked && !bad.length ? `${number.format(peer.asked)} asked of us` : 'no data';
    g.fillText(peer.bytes ? bytes(peer.bytes) : nothing, 16, panel.top + 31);
    bad.forEach(({ name, colour, count }, place) => {
      const top = panel.top + 44 + place * 13;
      if (top > panel.top + panel.height - 4) return;
      g.fillStyle = colours[colour]; g.fillText(`${number.format(count)} ${name.replace(' by another', '')}`, 16, top);
    });
    return;
  }
  g.font = `600 ${FONT}`; g.fillStyle = colours.ink; g.fillText(panel.title, 16, panel.top + 20);
  g.font = SMALL; g.fillStyle = colours.faint;
  if (panel.under) wrap(g, panel.under, 16, panel.top + 35, GUTTER - 84);
}
function wrap(g, words, left, top, width) {
  let line = '';
  for (const word of words.split(' ')) {
    const longer = line ? `${line} ${word}` : word;
    if (g.measureText(longer).width > width && line) { g.fillText(line, left, top); top += 13; line = word; } else line = longer;
  }
  g.fillText(line, left, top);
}

/** Shades stalls through all panels. */
function shade(g) {
  g.fillStyle = colours.stall;
  g.globalAlpha = .1;
  for (const { from, to } of stalls) {
    const left = Math.max(GUTTER, x(from)), right = Math.min(view.width - RIGHT, x(to));
    if (right > left) g.fillRect(left, 0, Math.max(1, right - left), view.height);
  }
  g.globalAlpha = 1;
}

function draw() {
  const began = performance.now();
  view.width = chart.parentElement.clientWidth;
  arrange();
  view.drawn = 0;
  const g = pen(chart, view.width, view.height);
  ticks(g, 0, view.height, false);
  for (const panel of view.panels) {
    g.save();
    g.beginPath(); g.rect(0, panel.top, view.width, panel.height); g.clip();
    DRAW[panel.name](g, panel);
    g.restore();
    names(g, panel);
    g.strokeStyle = colours.rule;
    g.beginPath(); g.moveTo(0, panel.top + panel.height + .5); g.lineTo(view.width, panel.top + panel.height + .5); g.stroke();
  }
  shade(g);
  drawOverview();
  view.paint = performance.now() - began;
}

/** How many requests begin in each of so many parts of the whole; kept, since only the window's width changes it. */
function begun(cells) {
  if (begun.counts?.length === cells) return begun.counts;
  const counts = begun.counts = new Uint32Array(cells);
  for (let i = 0; i < COUNT; i++) counts[Math.min(cells - 1, Math.floor(requests.from[i] / DURATION * cells))]++;
  return counts;
}

/** The strip at the top: time, and where in the whole trace this is. */
function drawOverview() {
  const g = pen(overview, view.width, TICKS + 34), right = view.width - RIGHT;
  const whole = at => GUTTER + at / DURATION * (right - GUTTER);
  const counts = begun(Math.max(1, Math.floor((right - GUTTER) / 2)));
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  g.fillStyle = colours.faint; g.globalAlpha = .55;
  counts.forEach((count, cell) => { if (count) g.fillRect(GUTTER + cell * 2, 30 - Math.max(1, Math.sqrt(count / most) * 24), 1.5, Math.max(1, Math.sqrt(count / most) * 24)); });
  g.globalAlpha = 1;
  for (const { t } of offences) { g.fillStyle = colours.offence; g.fillRect(whole(t) - 1, 2, 2, 5); }
  for (const { from, to } of stalls) { g.fillStyle = colours.stall; g.globalAlpha = .3; g.fillRect(whole(from), 2, Math.max(2, whole(to) - whole(from)), 28); g.globalAlpha = 1; }
  const a = whole(view.from), b = whole(view.to);
  g.fillStyle = colours.card; g.globalAlpha = .62;
  g.fillRect(GUTTER, 2, a - GUTTER, 29); g.fillRect(b, 2, right - b, 29);
  g.globalAlpha = 1;
  g.strokeStyle = colours.certifiable; g.strokeRect(a + .5, 2.5, Math.max(3, b - a - 1), 28);
  g.font = SMALL; g.fillStyle = colours.faint; g.fillText(`${lasting(Math.round(view.to - view.from))} shown`, 16, 20);
  g.translate(0, 34);
  ticks(g, 2, TICKS, true);
}
