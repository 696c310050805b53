'use strict';
// Asks for the drawing twice a second, and puts it in place of the last one.
const INTERVAL_MS = 500;
const OLD_MS = 4000;
const EVENTS_SHOWN = 12;
const by = (id) => document.getElementById(id);
let newest = 0;
let updatedAt = Date.now();

function nodes() {
  return [...document.querySelectorAll('.map .node')];
}

function fade() {
  const wanted = by('search').value.trim().toLowerCase();
  for (const node of nodes()) {
    node.classList.toggle('faded', wanted !== '' && !node.dataset.name.toLowerCase().includes(wanted));
  }
}

function tell(node) {
  by('about').textContent = node ? node.getAttribute('aria-label') : '';
}

function draw(text) {
  const parsed = new DOMParser().parseFromString(text, 'image/svg+xml').documentElement;
  if (parsed.nodeName !== 'svg') throw new Error('the drawing cannot be read');
  const focused = document.activeElement?.dataset?.id;
  by('map').replaceChildren(document.importNode(parsed, true));
  fade();
  const again = focused === undefined ? undefined : nodes().find((node) => node.dataset.id === focused);
  again?.focus({ preventScroll: true });
}

function sentence(event) {
  const known = ['version', 'number', 'at', 'tunnel', 'node', 'node_name', 'kind'];
  const node = event.node && (event.node_name ? `${event.node_name} (${event.node})` : event.node);
  const subject = [event.tunnel, node].filter(Boolean).join(' to ');
  const values = Object.entries(event).filter(([name, value]) => !known.includes(name) && value !== null);
  const details = values.map(([name, value]) => `${name.replaceAll('_', ' ')} ${value}`).join(', ');
  return [subject, event.kind.replaceAll('_', ' '), details].filter(Boolean).join(': ');
}

function list(events) {
  for (const event of events) {
    const time = document.createElement('time');
    time.dateTime = event.at;
    time.textContent = event.at.slice(11, 19);
    const item = document.createElement('li');
    item.append(time, sentence(event));
    by('events').prepend(item);
    newest = Math.max(newest, event.number);
  }
  while (by('events').childElementCount > EVENTS_SHOWN) by('events').lastElementChild.remove();
}

function age() {
  const seconds = Math.round((Date.now() - updatedAt) / 1000);
  by('age').classList.toggle('old', Date.now() - updatedAt > OLD_MS);
  by('age').textContent = seconds < 2 ? 'up to date' : `no answer for ${seconds} s`;
}

async function update() {
  try {
    if (!document.hidden) {
      const answer = await fetch(`map/update?after=${newest}`, { cache: 'no-store' });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const { svg, events, newest: last } = await answer.json();
      // Another daemon counts its events from 1 again.
      if (last < newest) newest = 0;
      draw(svg);
      list(events);
      updatedAt = Date.now();
    }
  } catch (error) {
    // The age of the drawing shows it.
  }
  age();
  setTimeout(update, INTERVAL_MS);
}

/** Moves the focus to the nearest node in a direction. */
function move(dx, dy) {
  const all = nodes();
  const here = all.indexOf(document.activeElement);
  if (here < 0) return all[0]?.focus();
  const centre = (node) => {
    const box = node.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const [x, y] = centre(all[here]);
  const distance = (node) => {
    const [a, b] = centre(node);
    const along = (a - x) * dx + (b - y) * dy;
    const across = Math.abs((a - x) * dy) + Math.abs((b - y) * dx);
    return along > 4 ? along + 3 * across : Infinity;
  };
  const nearest = all.reduce((best, node) => (distance(node) < distance(best) ? node : best));
  if (distance(nearest) < Infinity) nearest.focus();
}

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
document.addEventListener('keydown', (event) => {
  const isTyping = document.activeElement === by('search');
  if (event.key === 'Escape') {
    by('search').value = '';
    by('search').blur();
    fade();
  } else if (event.key === '/' && !isTyping) {
    event.preventDefault();
    by('search').focus();
  } else if (event.key === 'Enter' && isTyping) {
    nodes().find((node) => !node.classList.contains('faded'))?.focus();
  } else if (DIRECTIONS[event.key] && !isTyping) {
    event.preventDefault();
    move(...DIRECTIONS[event.key]);
  }
});
document.addEventListener('focusin', (event) => tell(event.target.closest('.node')));
document.addEventListener('click', (event) => event.target.closest('.node')?.focus());
by('search').addEventListener('input', fade);
update();
