// Building elements. Contract: whatever is given as a child becomes a text node or is a node
// already; nothing here parses markup, so no text can become an element.

const SVG = "http://www.w3.org/2000/svg";

// Strokes on a 24 x 24 grid.
const ICONS = {
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM15 9V5H5v11h4",
  down: "M12 5v14M6 13l6 6 6-6",
  edit: "M4 20l1-4L16.5 4.5l3 3L8 19zM14 7l3 3",
  export: "M12 15V4M8 8l4-4 4 4M5 14v5h14v-5",
  import: "M12 4v11M8 11l4 4 4-4M5 14v5h14v-5",
  menu: "M4 7h16M4 12h16M4 17h16",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01",
  plus: "M12 5v14M5 12h14",
  retry: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
  send: "M12 19V6M6 11.5L12 5.5l6 6",
  sliders: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4",
  stop: "M8 8h8v8H8z",
  theme: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
};

/** The element of the page with that id. */
export const byId = (id) => document.getElementById(id);

/**
 * An element. Attributes whose name begins with "on" are listeners, true is an attribute without
 * a value, false and null are none; children that are false or null are left out.
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

/** The icon of that name, hidden from screen readers: the button around it carries the label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows an icon only. */
export function iconButton(name, label, onclick, attributes = {}) {
  const given = {
    type: "button",
    class: "quiet",
    "aria-label": label,
    title: label,
    ...attributes,
  };
  return element("button", { ...given, onclick }, icon(name));
}

/** Draws the icons that the page itself asks for with data-icon. */
export function drawIcons() {
  for (const button of document.querySelectorAll("[data-icon]")) {
    button.prepend(icon(button.dataset.icon));
    const label = button.getAttribute("aria-label");
    if (label) button.title = label;
  }
}

/** Puts text on the clipboard; a page that is served without TLS beyond this machine cannot. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return toast("The browser did not allow copying; select the text and copy it by hand.");
  }
  button.replaceChildren(icon("check"));
  setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  return undefined;
}

let hiding = 0;

/**
 * One sentence over the page, for a while, with at most one thing to do about it.
 * `onExpire` is called when it goes without that having been done.
 */
export function toast(sentence, label = "", action = () => {}, onExpire = () => {}) {
  const box = byId("toast");
  box.leave?.();
  const [text, button] = box.children;
  text.textContent = sentence;
  button.textContent = label;
  button.hidden = !label;
  box.hidden = false;
  const close = (then) => {
    clearTimeout(hiding);
    box.hidden = true;
    box.leave = null;
    then();
  };
  box.leave = () => close(onExpire);
  button.onclick = () => close(action);
  hiding = setTimeout(box.leave, 8000);
}
