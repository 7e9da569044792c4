// Sets the theme that was chosen here before, ahead of the first paint; without a choice the
// browser's preference holds. A classic script, because modules run too late for that.

try {
  const chosen = localStorage.getItem("mmgpt-lite.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing follows its own preference.
}
