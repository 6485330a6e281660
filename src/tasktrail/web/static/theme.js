// Before anything is painted, so that nothing flashes in the other theme.
(() => {
  const chosen = localStorage.getItem("tasktrail-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
