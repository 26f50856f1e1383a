'use strict';
// What the pages of a run and of a load share: it stands before the script of each, which closes what is opened here. Whatever they are
// told is text: elements are made here, and what they say is set as `textContent`.
(() => {
const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== '') node.append(child);
  return node;
}
/** Sets a text only where it is another one: what is unchanged is not drawn again. */
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}
const formats = [0, 1, 2, 3].map((digits) => new Intl.NumberFormat('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits }));
function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-3)) return value.toExponential(2);
  if (Number.isInteger(value)) return formats[0].format(value);
  return formats[size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3].format(value);
}
/** Numbers with their words: the items stay, their texts change. */
function pairs(list, items) {
  items.forEach(([label, count, kind], at) => {
    const item = list.children[at] ?? list.appendChild(el('li', {}, el('b'), el('span')));
    if (item.className !== kind) item.className = kind;
    put(item.firstChild, formats[0].format(count));
    put(item.lastChild, ` ${label}`);
  });
  while (list.children.length > items.length) list.lastChild.remove();
}
function facts(list, items) {
  items.forEach(([label, text], at) => {
    const item = list.children[at] ?? list.appendChild(el('div', {}, el('dt'), el('dd')));
    put(item.firstChild, label);
    put(item.lastChild, text);
    show(item, text !== '');
  });
  while (list.children.length > items.length) list.lastChild.remove();
}

