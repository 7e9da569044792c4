// The list of conversations, and the drawer that it becomes on a narrow screen.
// Contract: draws what it is given and reports what the person wants; keeps no sessions.

import { titleOf } from "./conversation.js";
import { byId, element, iconButton } from "./dom.js";

// The same width as in style.css.
const narrow = matchMedia("(max-width: 760px)");

export class Sidebar {
  /** `actions` has open(id), rename(session, title), remove(session) and export(session). */
  constructor(actions) {
    this.actions = actions;
    this.list = byId("sessions");
    this.shown = [[], ""];
    byId("search").addEventListener("input", () => this.show(...this.shown));
    byId("open-side").addEventListener("click", () => this.toggle(true));
    byId("close-side").addEventListener("click", () => this.toggle(false));
    byId("scrim").addEventListener("click", () => this.toggle(false));
    narrow.addEventListener("change", () => this.toggle(false));
    this.toggle(false);
  }

  show(sessions, currentId) {
    this.shown = [sessions, currentId];
    if (this.list.querySelector("input")) return; // a name is being written
    const focused = document.activeElement?.dataset.focus;
    const found = sessions.filter(matching(byId("search").value));
    this.list.replaceChildren(...found.map((session) => this.#row(session, currentId)));
    byId("none-found").hidden = found.length > 0 || sessions.length === 0;
    if (focused) this.list.querySelector(`[data-focus="${focused}"]`)?.focus();
  }

  get open() {
    return document.body.classList.contains("side-open");
  }

  /** On a narrow screen, open or close the drawer; on a wide one the list is always there. */
  toggle(open) {
    const was = this.open;
    document.body.classList.toggle("side-open", open && narrow.matches);
    byId("scrim").hidden = !this.open;
    byId("side").inert = narrow.matches && !this.open;
    byId("page").inert = this.open;
    byId("open-side").setAttribute("aria-expanded", this.open);
    if (this.open) byId("close-side").focus();
    else if (was) byId("open-side").focus();
  }

  #row(session, currentId) {
    const title = titleOf(session);
    const current = session.id === currentId;
    const name = element(
      "button",
      {
        type: "button",
        class: "session",
        "aria-current": current ? "page" : null,
        "data-focus": `open-${session.id}`,
        title,
        onclick: () => {
          this.toggle(false);
          this.actions.open(session.id);
        },
      },
      title,
    );
    const button = (kind, label, act) =>
      iconButton(kind, `${label} ${title}`, act, { "data-focus": `${kind}-${session.id}` });
    return element(
      "li",
      { class: current ? "current" : null },
      name,
      !session.unreadable && button("edit", "Rename", () => this.#rename(row(), session)),
      !session.unreadable && button("export", "Export", () => this.actions.export(session)),
      button("trash", "Delete", () => this.actions.remove(session)),
    );

    function row() {
      return name.parentElement;
    }
  }

  #rename(row, session) {
    const field = element("input", { type: "text", "aria-label": "Name", maxlength: 200 });
    field.value = titleOf(session);
    let finished = false;
    const finish = (keep) => {
      if (finished) return;
      finished = true;
      field.remove();
      if (keep && field.value.trim()) this.actions.rename(session, field.value.trim());
      else this.show(...this.shown);
      this.list.querySelector(`[data-focus="open-${session.id}"]`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) finish(true);
      if (event.key !== "Escape") return;
      event.stopPropagation();
      finish(false);
    });
    field.addEventListener("blur", () => finish(true));
    row.replaceChildren(field);
    field.focus();
    field.select();
  }
}

/** Whether a session has all words of a query in its title, its questions and its answers. */
function matching(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return (session) => {
    const texts = session.exchanges.flatMap(({ question, answer }) => [question, answer]);
    const text = [titleOf(session), ...texts].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  };
}
