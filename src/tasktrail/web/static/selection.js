// Selects all jobs of a page, and says how many are selected. The form stays while what is in it is replaced,
// so its listeners are added once; what is returned says it anew.
export function select(form) {
  if (!form) return () => {};
  const boxes = () => [...form.querySelectorAll("input[name=ids]")];
  const say = () => {
    const all = form.querySelector("#pick-all");
    if (!all) return;
    const chosen = boxes().filter((box) => box.checked).length;
    all.hidden = false;
    all.checked = chosen > 0 && chosen === boxes().length;
    all.indeterminate = chosen > 0 && !all.checked;
    for (const button of form.querySelectorAll("button[value$=-selected]")) {
      button.dataset.words ??= button.textContent;
      button.disabled = chosen === 0;
      button.textContent = chosen ? `${button.dataset.words} (${chosen})` : button.dataset.words;
    }
  };
  form.addEventListener("change", ({ target }) => {
    if (target.id === "pick-all") for (const box of boxes()) box.checked = target.checked;
    say();
  });
  // All jobs of the filter are meant by the other buttons, whatever is selected.
  form.addEventListener("submit", ({ submitter }) => {
    if (submitter?.value.endsWith("-all")) for (const box of boxes()) box.checked = false;
  });
  say();
  return say;
}
