'use strict';
// What was recorded, and how to look things up in it. Moments are in microseconds since the beginning.

const data = JSON.parse(document.getElementById('data').textContent);
const DURATION = Math.max(1, data.duration);
const KINDS = ['commit info', 'availability', 'commits', 'commits to come', 'blocks', 'push', 'what cannot be'];
/** How strongly a kind of request is drawn. */
const SHADES = [.34, .34, .8, .5, 1, .34, .34];
/** What may become of a request: words, colour, letter, pattern, and how much it must be seen where there is no room for all. */
const OUTCOMES = [
  { name: 'under way at the end', colour: 'answered', letter: '…', pattern: 'hollow', weight: 1 },
  { name: 'answered', colour: 'answered', letter: '', pattern: 'plain', weight: 0 },
  { name: 'refused', colour: 'refused', letter: 'R', pattern: 'dots', weight: 4 },
  { name: 'timed out', colour: 'timeout', letter: 'T', pattern: 'rising', weight: 6 },
  { name: 'cancelled', colour: 'cancelled', letter: 'C', pattern: 'level', weight: 2 },
  { name: 'outrun by another', colour: 'outrun', letter: 'H', pattern: 'falling', weight: 3 },
  { name: 'malformed', colour: 'malformed', letter: 'M', pattern: 'crossed', weight: 8 },
  { name: 'connection lost', colour: 'lost', letter: 'L', pattern: 'upright', weight: 5 },
  { name: 'failed on our side', colour: 'failed', letter: 'X', pattern: 'crossed', weight: 7 },
];
const STAGES = ['being stored', 'complete', 'lacking blocks', 'being certified', 'asked for', 'missing'];
const INCIDENTS = {
  connected: 'connected', disconnected: 'disconnected', offence: 'offence, sent away', stall: 'stalled', resumed: 'goes on',
  synced: 'synced', behind: 'behind', halt: 'halted', panic: 'panicked', pruned: 'pruned', 'store-failed': 'the store failed',
  'store-reopened': 'the store is open again', 'committee-wanted': 'committee wanted',
  'observed-refused': 'own commit not taken', 'observed-lost': 'own commit lost',
};
const { requests, series, stages, incidents } = data;
const COUNT = requests.from.length;

/** The last place in an ascending array whose value is at most `value`; -1 where there is none. */
function lastAtMost(array, value) {
  let low = 0, high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (array[middle] <= value) low = middle + 1; else high = middle;
  }
  return low - 1;
}
/** A sampled value then; `before` where that is earlier than all samples. */
function valueAt(times, values, at, before = 0) {
  const place = lastAtMost(times, at);
  return place < 0 ? before : values[place];
}

/** Peers, each with its requests in rows so that none hides another, as far as there is room. */
const ROWS = 16, THEIR_ROWS = 2, BLOCK = 128;
/** A short name: the beginning of the id, or where others begin so too, also the part in which they differ. */
function shortened(id) {
  const others = data.peers.filter(peer => peer.id !== id);
  let digits = 8;
  while (digits < id.length && others.some(peer => peer.id.startsWith(id.slice(0, digits)))) digits++;
  return digits === 8 ? id.slice(0, 8) : `${id.slice(0, 4)}…${id.slice(digits - 4, digits)}`;
}
const peers = data.peers.map((peer, lane) => ({
  ...peer, lane, short: shortened(peer.id), ours: [], theirs: [], rows: 1, spans: [], bans: [], incidents: [],
  outcomes: OUTCOMES.map(() => 0), second: 0, bytes: 0, offences: 0, asked: 0,
}));
const row = new Uint8Array(COUNT);
(function arrange() {
  const free = peers.map(() => [new Array(ROWS).fill(-1), new Array(THEIR_ROWS).fill(-1)]);
  for (let i = 0; i < COUNT; i++) {
    const peer = peers[requests.peer[i]], inbound = requests.inbound[i];
    const ends = free[peer.lane][inbound];
    let place = ends.findIndex(end => end <= requests.from[i]);
    if (place < 0) place = ends.indexOf(Math.min(...ends));
    ends[place] = Math.max(ends[place], requests.to[i]);
    row[i] = place;
    (inbound ? peer.theirs : peer.ours).push(i);
    if (inbound) { peer.asked++; continue; }
    peer.rows = Math.max(peer.rows, place + 1);
    peer.outcomes[requests.outcome[i]]++;
    peer.second += requests.second[i];
    peer.bytes += requests.bytes[i];
  }
  for (const peer of peers) {
    for (const list of [peer.ours, peer.theirs]) {
      list.ends = [];
      for (let i = 0; i < list.length; i += BLOCK) {
        let end = 0;
        for (const request of list.slice(i, i + BLOCK)) end = Math.max(end, requests.to[request]);
        list.ends.push(end);
      }
    }
  }
})();
/** Calls `each` with the requests of a list that touch a span of time. A block of them is skipped by its last end. */
function within(list, from, to, each) {
  for (let block = 0; block < list.ends.length; block++) {
    if (list.ends[block] < from) continue;
    const end = Math.min(list.length, (block + 1) * BLOCK);
    for (let i = block * BLOCK; i < end; i++) {
      const request = list[i];
      if (requests.from[request] > to) return;
      if (requests.to[request] >= from) each(request);
    }
  }
}

/** Stalls as spans, and what happened to all or to a peer. */
const stalls = [], ours = [];
(function sort() {
  for (const incident of incidents) {
    const { t, kind, peer } = incident;
    if (kind === 'stall' || kind === 'resumed' || kind === 'halt') {
      const open = stalls[stalls.length - 1];
      if (open && open.to === null) open.to = t;
    }
    if (kind === 'stall') stalls.push({ from: t, to: null, text: incident.text });
    if (peer === null) { ours.push(incident); continue; }
    const of = peers[peer];
    of.incidents.push(incident);
    const last = of.spans[of.spans.length - 1];
    if (kind === 'connected' && !(last && last.to === null)) of.spans.push({ from: t, to: null });
    if (kind === 'disconnected' && last && last.to === null) last.to = t;
    if (kind === 'offence') {
      of.offences++;
      of.bans.push({ from: t, to: Math.min(DURATION, t + incident.lasts), text: incident.text, lasts: incident.lasts });
    }
  }
  for (const span of [...stalls, ...peers.flatMap(peer => peer.spans)]) span.to ??= DURATION;
})();
const offences = incidents.filter(incident => incident.kind === 'offence');

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
function bytes(n) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) { n /= 1000; unit++; }
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toPrecision(3)} ${units[unit]}`;
}
/** A moment or a length of time, with as many digits as `step` needs. */
function time(at, step = 1) {
  const sign = at < 0 ? '−' : '';
  at = Math.abs(at);
  if (DURATION >= 120e6 && step >= 1e6) {
    const s = Math.round(at / 1e6);
    const hours = Math.floor(s / 3600), minutes = Math.floor(s / 60) % 60;
    const two = n => String(n).padStart(2, '0');
    return sign + (hours ? `${hours}:${two(minutes)}` : String(minutes)) + `:${two(s % 60)}`;
  }
  const digits = Math.max(0, Math.min(6, Math.ceil(6 - Math.log10(Math.max(1, step)) - 1e-9)));
  return `${sign}${(at / 1e6).toFixed(digits)} s`;
}
function lasting(span) {
  return span < 1e3 ? `${span} µs` : span < 1e6 ? `${(span / 1e3).toPrecision(3)} ms` : `${(span / 1e6).toPrecision(4)} s`;
}
/** Round steps: at most `most` of them in `span`. */
function step(span, most) {
  const raw = span / Math.max(1, most), power = 10 ** Math.floor(Math.log10(Math.max(raw, 1e-12)));
  return [1, 2, 5, 10].map(m => m * power).find(s => s >= raw * .999);
}
function about(request) {
  const first = requests.first[request], last = requests.last[request], amount = requests.amount[request];
  const range = first === 0 ? '' : first === last ? `${first}` : `${first}–${last}`;
  const blocks = amount ? `${amount} block${amount === 1 ? '' : 's'}` : '';
  return blocks && range ? `${blocks} of ${range}` : blocks || range;
}

/** What is searched for, as a test of a request; `null` for nothing, a text for what is not understood. */
function query(text) {
  text = text.trim().toLowerCase();
  if (!text) return null;
  const commit = /^(?:commit\s+|index\s+)?(\d{1,10})$/.exec(text);
  if (commit) {
    const index = Number(commit[1]);
    return { index, name: `commit ${index}`, test: i => requests.first[i] <= index && index <= requests.last[i] && requests.first[i] > 0 };
  }
  const id = /^(?:request\s+)?#(\d{1,20})$/.exec(text);
  if (id) return { name: `request #${id[1]}`, test: i => requests.id[i] === Number(id[1]) };
  const peer = /^(?:peer\s+)?([0-9a-f]{1,64})$/.exec(text);
  if (peer) {
    const lanes = new Set(peers.filter(p => p.id.startsWith(peer[1])).map(p => p.lane));
    return { lanes, name: `peer ${peer[1]}`, test: i => lanes.has(requests.peer[i]) };
  }
  return 'A commit is a number, a peer the beginning of its id, a request # and a number.';
}
