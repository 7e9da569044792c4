// The form for the API key of a server that asks for one.

import { element } from "./dom.js";

let count = 0;

/** A form with one field; `save(key)` gets what was entered. */
export function apiKeyForm(label, save, value = "") {
  const id = `key-${++count}`;
  // Not a login: "off" alone makes browsers offer to keep it as a password.
  const field = element("input", {
    id,
    type: "password",
    autocomplete: "one-time-code",
    required: true,
    value,
  });
  return element(
    "form",
    {
      class: "key",
      onsubmit: (event) => {
        event.preventDefault();
        save(field.value.trim());
      },
    },
    element("label", { for: id }, "Key of the server"),
    field,
    element("button", { type: "submit", class: "plain" }, label),
  );
}
