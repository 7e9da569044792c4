// Light Markdown to DOM: paragraphs, headings, lists, code, bold and italics.
// Contract: every character of the text ends in a text node, so no text can become an element of
// its own choosing. Links and pictures stay the text they are: an answer must not make the
// browser load anything.

import { copy, element, iconButton } from "./dom.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(\S.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
// In the order of precedence. Underscores inside words are left alone, and nothing but code
// spans more than 1,000 characters, so that no text takes quadratic time.
const CODE = /(?<tick>`+)(?<code>[^`]|[^`].*?[^`])\k<tick>(?!`)/;
const BOLD = /(?<two>\*\*|(?<!\w)__)(?=\S)(?<bold>.{1,1000}?)(?<=\S)\k<two>/;
const ITALIC = /(?<one>\*|(?<!\w)_)(?=[^\s*_])(?<italic>.{1,1000}?)(?<=[^\s*_])\k<one>(?!\w)/;
const INLINE = new RegExp([CODE, BOLD, ITALIC].map((kind) => kind.source).join("|"), "s");

/**
 * Shows `text` in `container`. Blocks that are there already stay as they are, so that a growing
 * answer keeps what the reader has selected in it.
 */
export function render(container, text) {
  const found = blocks(text);
  const keys = found.map((block) => JSON.stringify(block));
  let same = 0;
  while (same < container.children.length && container.children[same].block === keys[same]) same++;
  while (container.children.length > same) container.lastChild.remove();
  for (let i = same; i < found.length; i++) {
    const node = BUILDERS[found[i].kind](found[i]);
    node.block = keys[i];
    container.append(node);
  }
}

function blocks(text) {
  const lines = text.split("\n");
  const found = [];
  for (let i = 0; i < lines.length;) {
    const fence = FENCE.exec(lines[i]);
    const heading = HEADING.exec(lines[i]);
    if (fence) {
      const end = lines.findIndex((line, at) => at > i && closes(line, fence[1]));
      const stop = end < 0 ? lines.length : end;
      found.push({ kind: "code", name: fence[2], text: lines.slice(i + 1, stop).join("\n") });
      i = stop + 1;
    } else if (heading) {
      found.push({
        kind: "heading",
        level: heading[1].length,
        text: heading[2].trimEnd().replace(/ #+$/, ""),
      });
      i++;
    } else if (ITEM.test(lines[i])) {
      const start = i;
      while (i < lines.length && (ITEM.test(lines[i]) || continues(lines, i))) i++;
      found.push({ kind: "list", lines: lines.slice(start, i) });
    } else if (!lines[i].trim()) {
      i++;
    } else {
      const start = i++;
      while (i < lines.length && lines[i].trim() && !opens(lines[i])) i++;
      found.push({ kind: "paragraph", text: lines.slice(start, i).join("\n") });
    }
  }
  return found;
}

const closes = (line, fence) => line.trim().startsWith(fence) && !line.trim().slice(fence.length);
const opens = (line) => FENCE.test(line) || HEADING.test(line) || ITEM.test(line);

/** A list goes on over an indented line, and over one empty line before its next item. */
function continues(lines, i) {
  if (!lines[i].trim()) return i + 1 < lines.length && ITEM.test(lines[i + 1]);
  return /^\s{2,}/.test(lines[i]) && !FENCE.test(lines[i]);
}

const BUILDERS = {
  paragraph: (block) => element("p", {}, ...inline(block.text)),
  // The page's own headings are above the first three levels.
  heading: (block) => element(`h${Math.min(block.level + 3, 6)}`, {}, ...inline(block.text)),
  list: (block) => list(block.lines),
  code: (block) => {
    const button = iconButton("copy", "Copy the code", () => copy(block.text, button));
    const head = element("div", { class: "code-head" }, element("span", {}, block.name), button);
    const code = element("code", {}, block.text);
    return element("div", { class: "code" }, head, element("pre", { tabindex: "0" }, code));
  },
};

/** Items of one list; deeper indentation makes a list inside the item above it. */
function list(lines) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const ordered = /\d/.test(mark);
  const start = ordered && parseInt(mark, 10) !== 1 ? parseInt(mark, 10) : null;
  const root = element(ordered ? "ol" : "ul", { start });
  let inner = [];
  const close = () => {
    if (inner.length) root.lastChild.append(list(inner));
    inner = [];
  };
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= indent.length + 1) {
      close();
      root.append(element("li", {}, ...inline(item[3])));
    } else if (item || inner.length) {
      inner.push(line);
    } else if (line.trim()) {
      root.lastChild.append("\n", ...inline(line.trim()));
    }
  }
  close();
  return root;
}

function inline(text) {
  const nodes = [];
  for (let rest = text; rest;) {
    const found = INLINE.exec(rest);
    if (!found) return [...nodes, rest];
    if (found.index) nodes.push(rest.slice(0, found.index));
    const { code, bold, italic } = found.groups;
    if (code !== undefined) nodes.push(element("code", {}, code.trim() || code));
    else if (bold !== undefined) nodes.push(element("strong", {}, ...inline(bold)));
    else nodes.push(element("em", {}, ...inline(italic)));
    rest = rest.slice(found.index + found[0].length);
  }
  return nodes;
}
