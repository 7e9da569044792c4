// Markdown to DOM, from the tokens of markdown-it.
// Contract: every character of the text ends in a text node, so no text can become an element of
// its own choosing, and nothing is loaded: pictures stay the text they are, and a link is followed
// only by a click. What is too long or nested too deeply to be drawn is shown as it was written.

import { copy, element, iconButton } from "./dom.js";
import "./vendor/markdown-it.js"; // defines markdownit

const MAX_CHARACTERS = 200_000;
// A list inside a list is two levels.
const MAX_NESTING = 40;
const WORD = /\w/;

const parser = globalThis
  .markdownit({ html: false, linkify: true, maxNesting: MAX_NESTING })
  // A growing answer must not change what is shown already: no underlined headings, and no
  // definitions of links that stand elsewhere.
  .disable(["lheading", "reference"]);
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
for (const scheme of ["//", "ftp:", "mailto:"]) parser.linkify.add(scheme, null);
// In 2*3*4 the asterisks are signs of multiplication.
parser.inline.ruler.before("emphasis", "product", (state, silent) => {
  const { src, pos } = state;
  if (src[pos] !== "*" || !WORD.test(src[pos - 1] ?? "") || !WORD.test(src[pos + 1] ?? "")) {
    return false;
  }
  if (!silent) state.pending += "*";
  state.pos++;
  return true;
});

/**
 * Shows `text` in `container`. Blocks that are there already stay as they are, so that a growing
 * answer keeps what the reader has selected in it.
 */
export function render(container, text) {
  const blocks = split(text);
  let same = 0;
  while (same < blocks.length && container.children[same]?.source === blocks[same].source) same++;
  while (container.children.length > same) container.lastChild.remove();
  for (const { source, tokens } of blocks.slice(same)) {
    const root = document.createDocumentFragment();
    if (tokens) build(root, tokens);
    else root.append(element("p", {}, ...literal(source)));
    const [node] = root.children;
    node.source = source;
    container.append(node);
  }
}

/** The nodes that show a text as it was written, cut where it is too long to be drawn. */
export function literal(text) {
  const rest = text.length - MAX_CHARACTERS;
  if (rest <= 0) return [text];
  return [
    text.slice(0, MAX_CHARACTERS),
    element("em", {}, ` (${rest} more characters are stored and not shown)`),
  ];
}

/** The blocks of a text: `{source, tokens}`, without tokens where it is to be shown literally. */
function split(text) {
  if (text.length > MAX_CHARACTERS) return [{ source: text }];
  const tokens = parser.parse(text, {});
  // The parser leaves out what is nested more deeply than it may be.
  if (tokens.some((token) => token.level >= MAX_NESTING - 1)) return [{ source: text }];
  const lines = text.split(/\r\n?|\n/);
  const blocks = [];
  let start = 0;
  tokens.forEach((token, at) => {
    if (token.level || token.nesting > 0) return;
    const [from, to] = tokens[start].map;
    blocks.push({ source: lines.slice(from, to).join("\n"), tokens: tokens.slice(start, at + 1) });
    start = at + 1;
  });
  return blocks;
}

/** Adds the elements of `tokens`, a flat list of openings, closings and leaves, to `root`. */
function build(root, tokens) {
  const open = [root];
  for (const token of tokens) {
    const parent = open.at(-1);
    if (token.nesting > 0) {
      // The parser does not bound emphasis in emphasis; beyond the bound its text alone is shown.
      const node = open.length > MAX_NESTING ? parent : opening(token, parent);
      if (node !== parent) parent.append(token.type === "table_open" ? frame(node) : node);
      open.push(node);
    } else if (token.nesting < 0) {
      const node = open.pop();
      if (token.type === "link_close" && node.address) node.after(address(node));
    } else parent.append(leaf(token));
  }
}

/** The element that a token opens; its parent where it opens none, as a paragraph of a list. */
function opening(token, parent) {
  switch (token.type) {
    case "paragraph_open":
      return token.hidden ? parent : element("p");
    case "heading_open":
      // The page's own headings are above the first three levels.
      return element(`h${Math.min(Number(token.tag[1]) + 3, 6)}`);
    case "ordered_list_open":
      return element("ol", { start: token.attrGet("start") });
    case "th_open":
    case "td_open":
      return element(token.tag, { class: token.attrGet("style")?.replace("text-align:", "") });
    case "link_open":
      return link(token.attrGet("href"), token.attrGet("title"));
    default:
      return element(token.tag);
  }
}

/** What scrolls sideways in place of the page where a table is wide. */
function frame(table) {
  return element(
    "div",
    { class: "table", tabindex: "0", role: "group", "aria-label": "Table" },
    table,
  );
}

function link(href, title) {
  const node = /^https?:/i.test(href)
    ? element("a", { href, title, target: "_blank", rel: "noopener noreferrer" })
    : element("span", { title });
  node.address = href;
  return node;
}

/** The address of a link that says something else. */
function address(node) {
  return node.textContent === node.address
    ? ""
    : element("span", { class: "address" }, ` (${node.address})`);
}

/** The node, or the text, of a token that holds its content itself. */
function leaf(token) {
  switch (token.type) {
    case "inline": {
      const content = document.createDocumentFragment();
      build(content, token.children);
      return content;
    }
    case "fence":
    case "code_block":
      return codeBlock(token.content.replace(/\n$/, ""), token.info.trim().split(/\s/)[0]);
    case "code_inline":
      return element("code", {}, token.content);
    case "hr":
      return element("hr");
    case "softbreak":
    case "hardbreak":
      return "\n";
    case "image":
      return imageText(token.content, token.attrGet("src"), token.attrGet("title"));
    default:
      return token.content;
  }
}

function codeBlock(text, language) {
  const button = iconButton("copy", "Copy the code", () => copy(text, button));
  const head = element("div", { class: "code-head" }, element("span", {}, language), button);
  const code = element("code", {}, text);
  return element("div", { class: "code" }, head, element("pre", { tabindex: "0" }, code));
}

/** A picture in Markdown as it was written: an answer must not make the browser load anything. */
function imageText(description, source, title) {
  return `![${description}](${source}${title ? ` "${title}"` : ""})`;
}
