// The switch of the theme: light, dark, or as the system has it.
const WORDS = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
const NEXT = { system: "light", light: "dark", dark: "system" };

export function switchTheme(button) {
  if (!button) return;
  const chosen = () => document.documentElement.dataset.theme ?? "system";
  const say = () => {
    button.title = WORDS[chosen()];
    button.setAttribute("aria-label", WORDS[chosen()]);
  };
  button.addEventListener("click", () => {
    const next = NEXT[chosen()];
    if (next === "system") {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem("tasktrail-theme");
    } else {
      document.documentElement.dataset.theme = next;
      localStorage.setItem("tasktrail-theme", next);
    }
    say();
  });
  say();
  button.hidden = false;
}
