// The settings as a form.
// Contract: `settings` holds valid values at all times; a value out of range is reported beside its
// field and not used.

import { apiKeyForm } from "./api-key.js";
import { byId, element } from "./dom.js";
import { DEFAULTS, FIELDS, loadSettings, parse, saveSettings } from "./settings.js";

export class SettingsDialog {
  /** `apiKey` has get() and set(key). */
  constructor(apiKey) {
    this.apiKey = apiKey;
    this.settings = loadSettings();
    this.dialog = byId("settings");
    byId("open-settings").addEventListener("click", () => this.open());
    byId("reset").addEventListener("click", () => {
      this.#store({ ...DEFAULTS });
      this.#render();
    });
    // A click on the backdrop is one on the dialog itself.
    this.dialog.addEventListener(
      "click",
      (event) => event.target === this.dialog && this.dialog.close(),
    );
  }

  open() {
    this.#render();
    this.dialog.showModal();
  }

  #store(settings) {
    this.settings = settings;
    saveSettings(settings);
  }

  #render() {
    const numbers = FIELDS.map((field) => this.#number(field));
    byId("fields").replaceChildren(this.#system(), element("div", { class: "grid" }, ...numbers));
    byId("key-place")?.remove();
    if (!this.apiKey.get()) return;
    // Outside of the dialog's own form: forms cannot be nested.
    const save = (key) => {
      this.apiKey.set(key);
      this.dialog.close();
    };
    this.dialog.append(
      element("div", { id: "key-place" }, apiKeyForm("Save the key", save, this.apiKey.get())),
    );
  }

  #system() {
    const area = element("textarea", {
      id: "set-system",
      rows: 3,
      placeholder: "The model's own",
      "aria-describedby": "hint-system",
      oninput: () => this.#store({ ...this.settings, system: area.value }),
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
      oninput: () => apply(),
    });
    const apply = () => {
      // What is no number at all reads as empty here, too.
      const value = input.validity.badInput ? undefined : parse(field, input.value);
      const bad = value === undefined;
      input.setAttribute("aria-invalid", bad);
      hint.textContent = bad
        ? `Give ${range(field)}; ${this.settings[field.name]} holds.`
        : field.hint;
      if (!bad) this.#store({ ...this.settings, [field.name]: value });
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

function range({ step, min, max }) {
  return `a ${step < 1 ? "" : "whole "}number from ${min} to ${max}`;
}
