// Writes a mark at the cursor of the question, as if it were typed.
function insertMark(name) {
  const field = document.querySelector(".question textarea");
  const before = field.value.slice(0, field.selectionStart);
  const mark = (before && !/\s$/.test(before) ? " " : "") + name;
  field.focus();
  field.setRangeText(mark, field.selectionStart, field.selectionEnd, "end");
  field.dispatchEvent(new Event("input", {bubbles: true}));
}

// Brings the answer into view, once it is shown as it is now.
function showAnswer() {
  const block = window.innerWidth < 861 ? "start" : "nearest";
  setTimeout(() => document.querySelector(".answer").scrollIntoView({block, behavior: "smooth"}), 100);
}

// Puts a text on the clipboard; where the connection is not secure browsers know the old way alone.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.body.appendChild(document.createElement("textarea"));
    field.value = text;
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

// Boxes and strokes, by mouse, finger, pen or keys: a box is dragged, or two corners are set one after the other. They are drawn here,
// so that they follow the pointer whatever the connection; their points, in pixels of the picture, go to the server. A click on a
// region selects it, as the server says.
const CLICK = 6;  // pixels of the screen: a shorter drag is a click
const STEP = 10;  // pixels of the picture that an arrow key moves the cross, 1 with Shift
let first = null;  // the corner that waits for the opposite one
let waits = false;  // that corner is set, the next click is the opposite one
let stroke = null;  // the points of a stroke so far
let pressed = null;  // the pointer that is down on the picture
let cross = null;  // where the keys have moved to

const picture = () => document.querySelector(".shown img");
const mode = () => ["box", "paint", "pick"].find(name => document.querySelector(".shown").classList.contains(name));

function place(event) {
  const image = picture(), shown = image.getBoundingClientRect();
  const x = (event.clientX - shown.left) / shown.width, y = (event.clientY - shown.top) / shown.height;
  return {x: x * image.naturalWidth, y: y * image.naturalHeight, left: event.clientX, top: event.clientY};
}

function draw(name, kind, values) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", kind);
  Object.entries({...values, class: `drawn ${name}`}).forEach(([key, value]) => shape.setAttribute(key, value));
  document.querySelector(".shown svg").append(shape);
}

// Draws what is under way up to a point.
function follow(to) {
  document.querySelectorAll(".drawn").forEach(old => old.remove());
  document.body.classList.toggle("cornered", first !== null);
  if (first) draw("corners", "rect", {x: Math.min(first.x, to.x), y: Math.min(first.y, to.y), width: Math.abs(first.x - to.x), height: Math.abs(first.y - to.y)});
  if (stroke) draw("stroke", "polyline", {points: stroke.map(point => `${point.x},${point.y}`).join(" "), "stroke-width": brush()});
  if (cross) draw("cross", "path", {d: `M${cross.x - 14},${cross.y}h28M${cross.x},${cross.y - 14}v28`});
}

function brush() {
  return Number(getComputedStyle(picture()).getPropertyValue("--brush"));
}

function cancel() {
  first = stroke = pressed = null;
  waits = false;
  follow();
}

function finish(to) {
  if (first) emitEvent("box", [first.x, first.y, to.x, to.y]);
  if (stroke) emitEvent("stroke", {points: stroke.map(point => [point.x, point.y]), width: brush()});
  cancel();
}

// A click, or Enter at the cross.
function spot(at) {
  emitEvent("spot", [at.x, at.y]);
}

document.addEventListener("pointerdown", event => {
  if (!event.isPrimary) return cancel();  // a second finger: the picture is zoomed
  if (event.target !== picture() || event.button) return;
  const at = place(event);
  cross = null;
  pressed = event.pointerId;
  event.target.setPointerCapture(pressed);
  if (mode() === "box") first ??= at;
  if (mode() === "paint") stroke = [at];
  follow(at);
});
// Not when it is put down: a finger that scrolls the page picks nothing.
document.addEventListener("click", event => {
  if (event.target === picture() && mode() === "pick") spot(place(event));
});
document.addEventListener("pointermove", event => {
  if (!first && !(stroke && !cross)) return;
  const at = place(event);
  stroke?.push(at);
  follow(at);
});
document.addEventListener("pointerup", event => {
  const from = first ?? stroke?.[0], mine = event.pointerId === pressed;
  pressed = null;
  if (!from || cross || !mine) return;
  if (waits || Math.max(Math.abs(event.clientX - from.left), Math.abs(event.clientY - from.top)) > CLICK) return finish(place(event));
  stroke = null;
  waits = first !== null;
  follow(from);
  spot(from);
});
document.addEventListener("pointercancel", cancel);

document.addEventListener("keydown", event => {
  if (event.key === "Escape") return cancel();
  if (!document.activeElement.matches(".shown")) return;
  const image = picture(), step = event.shiftKey ? 1 : STEP;
  const [right, down] = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key] ?? [0, 0];
  if (right || down) {
    const from = cross ?? {x: image.naturalWidth / 2, y: image.naturalHeight / 2};
    cross = {x: Math.min(Math.max(from.x + right, 0), image.naturalWidth), y: Math.min(Math.max(from.y + down, 0), image.naturalHeight)};
    stroke?.push(cross);
    follow(cross);
  } else if ((event.key === "Enter" || event.key === " ") && cross) {
    if (first || stroke) return event.preventDefault(), finish(cross);
    if (mode() === "box") [first, waits] = [cross, true];
    if (mode() === "paint") stroke = [cross];
    if (mode() === "pick") spot(cross);
    follow(cross);
  } else if (event.key === "Delete") {
    emitEvent("delete");
  } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
    emitEvent("undo");
  } else {
    return;
  }
  event.preventDefault();
});

// Files that are dropped anywhere are opened as by their buttons, and not by the browser in place of the page: on the depth picture, or
// with "depth" in its name beside a picture, a file is the depth. Texts go where the browser has them go.
let depthAfter = null;  // what was dropped with a picture, for once that is open
const hasFiles = event => event.dataTransfer.types.includes("Files");
document.addEventListener("dragover", event => hasFiles(event) && event.preventDefault());
document.addEventListener("drop", event => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  const files = [...event.dataTransfer.files], beside = files.length > 1 || picture()?.naturalWidth;
  const isDepth = file => event.target.closest("figure") || (/depth/i.test(file.name) && beside);
  const rgb = files.find(file => !isDepth(file));
  depthAfter = files.find(isDepth);
  if (rgb) give(rgb, "picture"); else giveDepth();
});

function give(file, kind) {
  const input = document.querySelector(`.upload-${kind} input[type=file]`), taken = new DataTransfer();
  taken.items.add(file);
  input.files = taken.files;
  input.dispatchEvent(new Event("change", {bubbles: true}));
}

function giveDepth() {
  if (depthAfter) give(depthAfter, "depth");
  depthAfter = null;
}
