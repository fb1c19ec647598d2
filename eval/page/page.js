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

// Boxes, by mouse, finger or pen: dragged, or two corners one after the other. They are drawn here, so that they follow the pointer
// whatever the connection; their corners, in pixels of the picture, go to the server.
const CLICK = 6;  // pixels of the screen: a shorter drag is a click, which sets the first corner
let first = null;  // the corner that waits for the opposite one

function place(event) {
  const image = document.querySelector(".shown img"), shown = image.getBoundingClientRect();
  const x = (event.clientX - shown.left) / shown.width, y = (event.clientY - shown.top) / shown.height;
  return {x: x * image.naturalWidth, y: y * image.naturalHeight, left: event.clientX, top: event.clientY};
}

function drawBox(corner, opposite) {
  document.querySelectorAll(".drawn").forEach(old => old.remove());
  document.body.classList.toggle("cornered", corner !== null);
  if (corner === null) return;
  const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const sides = {x: Math.min(corner.x, opposite.x), y: Math.min(corner.y, opposite.y), width: Math.abs(corner.x - opposite.x), height: Math.abs(corner.y - opposite.y)};
  Object.entries({...sides, class: "drawn"}).forEach(([name, value]) => box.setAttribute(name, value));
  document.querySelector(".shown svg").append(box);
}

document.addEventListener("pointerdown", event => {
  if (!event.target.matches(".shown.box img")) return;
  event.target.setPointerCapture(event.pointerId);
  if (first === null) drawBox(first = place(event), place(event));
  else finish(place(event));
});
document.addEventListener("pointermove", event => first && drawBox(first, place(event)));
document.addEventListener("pointerup", event => {
  if (first && Math.max(Math.abs(event.clientX - first.left), Math.abs(event.clientY - first.top)) > CLICK) finish(place(event));
});
document.addEventListener("keydown", event => event.key === "Escape" && drawBox(first = null));

function finish(opposite) {
  emitEvent("box", [first.x, first.y, opposite.x, opposite.y]);
  drawBox(first = null);
}
