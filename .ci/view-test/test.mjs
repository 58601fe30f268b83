// Opens a page of `soma-sync trace view` in a real browser, does what a reader does, and looks at what is shown.
// Usage: node test.mjs PAGE.html PAGE_OF_A_PART.html [SCREENSHOT.png]
import assert from 'node:assert/strict';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const [page_path, part_path, screenshot] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
try {
  const page = await browser.newPage({ viewport: { width: 1440, height: 1000 }, colorScheme: 'light' });
  const errors = [], loads = [];
  page.on('pageerror', error => errors.push(error.stack));
  page.on('console', message => { if (message.type() === 'error') errors.push(message.text()); });
  page.on('request', request => loads.push(request.url()));
  await page.goto(pathToFileURL(page_path).href);
  const shown = () => page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    const [from, to] = document.body.dataset.view.split(' ').map(Number);
    done({ ...document.body.dataset, from, to, said: document.getElementById('said').textContent });
  }))));
  await page.waitForFunction(() => document.body.dataset.ready === 'yes');
  const data = JSON.parse(await page.locator('#data').textContent());
  const first = await shown();
  assert.deepEqual([first.from, first.to], [0, data.duration], 'the whole trace is shown at first');
  assert.ok(Number(first.drawn) > 20, 'requests are drawn');
  const chart = await page.locator('#chart').boundingBox();
  const ink = () => page.evaluate(() => {
    const canvas = document.getElementById('chart');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3]) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return seen.size;
  });
  assert.ok(await ink() > 12, 'the canvas has colours');
  if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });

  // Brush, wheel, keys.
  const middle = chart.y + 120;
  await page.mouse.move(chart.x + 400, middle);
  await page.mouse.down();
  await page.mouse.move(chart.x + 700, middle, { steps: 4 });
  await page.mouse.up();
  const brushed = await shown();
  assert.ok(brushed.to - brushed.from < data.duration / 2 && brushed.from > 0, 'a brush zooms');
  await page.mouse.wheel(0, -300);
  const wheeled = await shown();
  assert.ok(wheeled.to - wheeled.from < brushed.to - brushed.from, 'the wheel zooms in');
  await page.keyboard.press('ArrowRight');
  const moved = await shown();
  assert.ok(moved.from > wheeled.from, 'an arrow moves');
  assert.ok(Math.abs(moved.to - moved.from - (wheeled.to - wheeled.from)) < 1, 'and does not zoom');
  await page.keyboard.press('-');
  assert.ok((await shown()).to - (await shown()).from > moved.to - moved.from, 'minus zooms out');
  if (screenshot) await page.screenshot({ path: screenshot.replace('.png', '-zoomed.png'), fullPage: true });
  await page.keyboard.press('0');
  assert.deepEqual([(await shown()).from, (await shown()).to], [0, data.duration], '0 shows all');

  // Hover: what the panel of commits says is what was recorded.
  await page.mouse.move(chart.x + 800, middle);
  await shown();
  const tip = await page.locator('#tip').innerText();
  assert.match(tip, /stored/, tip);
  const at = await page.evaluate(() => valueAt(series.t, series.stored, when(800), data.start));
  assert.ok(tip.replaceAll(',', '').includes(String(at)), `${tip} has not ${at}`);

  // A request under the pointer is named.
  const spot = await page.evaluate(() => {
    const panel = view.panels.find(({ peer }) => peer && peer.ours.some(i => x(requests.to[i]) - x(requests.from[i]) > 6));
    const request = panel.peer.ours.find(i => x(requests.to[i]) - x(requests.from[i]) > 6);
    return { x: (x(requests.from[request]) + x(requests.to[request])) / 2, y: panel.ours + row[request] * (panel.bar + 1) + panel.bar / 2, id: requests.id[request] };
  });
  await page.locator('#chart').hover({ position: { x: spot.x, y: spot.y } });
  await shown();
  assert.match(await page.locator('#tip').innerText(), new RegExp(`#${spot.id}\\b`));

  // Search by index and by peer.
  const index = Math.floor(data.stored / 2);
  await page.keyboard.press('/');
  await page.keyboard.type(String(index));
  const of_index = await shown();
  const ranges = data.requests.first.filter((first, i) => first > 0 && first <= index && index <= data.requests.last[i]).length;
  assert.equal(Number(of_index.found), ranges, 'as many requests as name the commit');
  assert.match(of_index.said, new RegExp(`commit ${index}: ${ranges} request.*stored at`));
  await page.keyboard.press('Enter');
  const centred = await shown();
  assert.match(centred.said, /^1 of /);
  assert.ok(centred.to - centred.from < data.duration, 'what was found is shown near');
  if (screenshot) await page.screenshot({ path: screenshot.replace('.png', '-found.png'), fullPage: true });
  await page.locator('#search').fill(`peer ${data.peers[1].id}`);
  assert.equal(Number((await shown()).found), data.requests.peer.filter(peer => peer === 1).length);
  await page.locator('#search').fill('nonsense!');
  assert.match((await shown()).said, /commit is a number/);
  await page.keyboard.press('Escape');
  await page.keyboard.press('0');

  // The first stall.
  await page.keyboard.press('s');
  const stalled = await shown();
  const stall = data.incidents.find(({ kind }) => kind === 'stall');
  assert.ok(stall, 'the trace has a stall');
  assert.equal(stalled.stall, '0');
  assert.ok(stalled.from <= stall.t && stall.t <= stalled.to, 'the stall is in sight');
  assert.ok(stalled.said.includes(stall.text), stalled.said);
  await page.keyboard.press('o');
  assert.match((await shown()).said, /^offence 1 of/);

  // Dark, help, a narrow window.
  await page.keyboard.press('0');
  await page.keyboard.press('t');
  await shown();
  assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor), 'rgb(20, 24, 27)');
  if (screenshot) await page.screenshot({ path: screenshot.replace('.png', '-dark.png'), fullPage: true });
  await page.keyboard.press('?');
  assert.ok(await page.locator('#keys').isVisible());
  await page.keyboard.press('Escape');
  assert.ok(!await page.locator('#keys').isVisible());
  await page.setViewportSize({ width: 700, height: 800 });
  await shown();
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing sticks out of a narrow window');

  // Where nothing could be replayed the page says so, and shows the requests.
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.goto(pathToFileURL(part_path).href);
  await page.waitForFunction(() => document.body.dataset.ready === 'yes');
  assert.match(await page.locator('#notes').innerText(), /lacks the first/);
  assert.match(await page.locator('#under').innerText(), /<\/script>/, 'a hostile name is text');
  assert.ok(Number((await shown()).drawn) > 20, 'requests are drawn without a machine, too');
  for (const key of ['s', 'o', '+', 'ArrowLeft', '0', 't']) await page.keyboard.press(key);
  await page.mouse.move(chart.x + 800, chart.y + 150);
  await shown();
  if (screenshot) await page.screenshot({ path: screenshot.replace('.png', '-part.png'), fullPage: true });

  assert.deepEqual(errors, []);
  assert.equal(loads.length, 2, `only the two pages are loaded: ${loads.join(', ')}`);
  console.log(`the page shows ${data.events} events, ${data.requests.from.length} requests; painted in ${first.paint} ms`);
} finally {
  await browser.close();
}
