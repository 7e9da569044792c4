// The settings as a form.
// Contract: `settings` holds valid values at all times; what is out of range is said beside its
// field and not taken.

import { element } from "./dom.js";
import { keyForm } from "./key.js";
import { DEFAULTS, FIELDS, loadSettings, parse, saveSettings } from "./settings.js";

const get = (id) => document.getElementById(id);

export class Panel {
  /** `key` has get() and set(key) for the server's key. */
  constructor(key) {
    this.key = key;
    this.settings = loadSettings();
    this.dialog = get("settings");
    get("open-settings").addEventListener("click", () => this.open());
    get("reset").addEventListener("click", () => {
      this.#keep({ ...DEFAULTS });
      this.#draw();
    });
    // A click on the backdrop is one on the dialog itself.
    this.dialog.addEventListener(
      "click",
      (event) => event.target === this.dialog && this.dialog.close(),
    );
  }

  open() {
    this.#draw();
    this.dialog.showModal();
  }

  #keep(settings) {
    this.settings = settings;
    saveSettings(settings);
  }

  #draw() {
    const drawn = FIELDS.map((field) => this.#number(field));
    get("fields").replaceChildren(this.#system(), element("div", { class: "grid" }, ...drawn));
    get("key-place")?.remove();
    if (!this.key.get()) return;
    // Outside of the dialog's own form: forms cannot be nested.
    const save = (key) => {
      this.key.set(key);
      this.dialog.close();
    };
    this.dialog.append(
      element("div", { id: "key-place" }, keyForm("Save the key", save, this.key.get())),
    );
  }

  #system() {
    const area = element("textarea", {
      id: "set-system",
      rows: 3,
      placeholder: "The model's own",
      "aria-describedby": "hint-system",
      oninput: () => this.#keep({ ...this.settings, system: area.value }),
    });
    area.value = this.settings.system;
    return element(
      "div",
      { class: "field" },
      element("label", { for: "set-system" }, "System line"),
      area,
      element(
        "p",
        { class: "hint", id: "hint-system" },
        "opens each conversation; empty takes the model's own",
      ),
    );
  }

  #number(field) {
    const id = `set-${field.name}`;
    const hint = element("p", { class: "hint", id: `hint-${field.name}` }, field.hint);
    const input = element("input", {
      id,
      type: "number",
      inputmode: field.step < 1 ? "decimal" : "numeric",
      min: field.min,
      max: field.max,
      step: field.step < 1 ? "any" : 1,
      placeholder: field.initial === null ? "random" : field.initial,
      "aria-describedby": hint.id,
      value: this.settings[field.name],
      oninput: () => take(),
    });
    const take = () => {
      // What is no number at all reads as empty here, too.
      const value = input.validity.badInput ? undefined : parse(field, input.value);
      const bad = value === undefined;
      input.setAttribute("aria-invalid", bad);
      hint.textContent = bad
        ? `Give ${wanted(field)}; ${this.settings[field.name]} holds.`
        : field.hint;
      if (!bad) this.#keep({ ...this.settings, [field.name]: value });
    };
    return element(
      "div",
      { class: "field" },
      element("label", { for: id }, field.label),
      input,
      hint,
    );
  }
}

function wanted({ step, min, max }) {
  return `a ${step < 1 ? "" : "whole "}number from ${min} to ${max}`;
}
