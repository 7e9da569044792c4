// What is stored per browser: sampling settings, the theme, the key, the session shown last.
// Contract: what is read back is checked like foreign input; a browser without storage gives
// the defaults.

const PREFIX = "mmgpt-lite.";

/** Every setting: its name in the request, what it starts as, its range, and a word on it. */
export const FIELDS = [
  {
    name: "temperature",
    label: "Temperature",
    initial: 0,
    min: 0,
    max: 2,
    step: 0.05,
    hint: "0 always takes the likeliest token; more brings variety",
  },
  {
    name: "top_p",
    label: "Top p",
    initial: 1,
    min: 0,
    max: 1,
    step: 0.01,
    hint: "keep the likeliest tokens up to this probability",
  },
  {
    name: "top_k",
    label: "Top k",
    initial: 0,
    min: 0,
    max: 1000,
    step: 1,
    hint: "keep so many of the likeliest tokens; 0 keeps all",
  },
  {
    name: "min_p",
    label: "Min p",
    initial: 0,
    min: 0,
    max: 1,
    step: 0.01,
    hint: "drop tokens below this share of the likeliest",
  },
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    initial: 1,
    min: 0.5,
    max: 2,
    step: 0.05,
    hint: "above 1 avoids repeating earlier tokens",
  },
  {
    name: "max_tokens",
    label: "Longest answer",
    initial: 512,
    min: 1,
    max: 32768,
    step: 1,
    hint: "in tokens",
  },
  {
    name: "seed",
    label: "Seed",
    initial: null,
    min: 0,
    max: 2147483647,
    step: 1,
    hint: "the same seed repeats an answer; empty draws a new one",
  },
];

export const DEFAULTS = Object.freeze({
  ...Object.fromEntries(FIELDS.map((field) => [field.name, field.initial])),
  system: "",
});

/** The value of a field that a text stands for, or undefined when it stands for none. */
export function parse(field, text) {
  if (String(text).trim() === "") return field.initial === null ? null : undefined;
  const value = Number(text);
  const whole = field.step < 1 || Number.isInteger(value);
  return whole && value >= field.min && value <= field.max ? value : undefined;
}

export function loadSettings() {
  let stored = {};
  try {
    stored = JSON.parse(readItem("settings") || "{}") ?? {};
  } catch {
    // Damaged: the defaults.
  }
  const settings = { ...DEFAULTS };
  for (const field of FIELDS) {
    const value = parse(field, stored[field.name] ?? "");
    if (value !== undefined) settings[field.name] = value;
  }
  if (typeof stored.system === "string") settings.system = stored.system;
  return settings;
}

export function saveSettings(settings) {
  writeItem("settings", JSON.stringify(settings));
}

/** The part of a request that the settings make; the system line is a message. */
export function sampling(settings) {
  const { system, seed, ...rest } = settings;
  return seed === null ? rest : { ...rest, seed };
}

export function readItem(name) {
  try {
    return localStorage.getItem(PREFIX + name) ?? "";
  } catch {
    return "";
  }
}

/** Keep a text under that name; an empty one is forgotten. */
export function writeItem(name, text) {
  try {
    if (text) localStorage.setItem(PREFIX + name, text);
    else localStorage.removeItem(PREFIX + name);
  } catch {
    // Without storage it holds until the page is closed.
  }
}

/** Whether the page is dark now, by choice or by the browser's preference. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function setTheme(name) {
  document.documentElement.dataset.theme = name;
  writeItem("theme", name);
}
