// Selects all jobs of a page, and says how many are selected.
export function select(form) {
  const all = form?.querySelector("#pick-all");
  if (!all) return;
  const boxes = () => [...form.querySelectorAll("input[name=ids]")];
  const buttons = [...form.querySelectorAll("button[value$=-selected]")];
  const words = new Map(buttons.map((button) => [button, button.textContent]));
  const say = () => {
    const chosen = boxes().filter((box) => box.checked).length;
    all.checked = chosen > 0 && chosen === boxes().length;
    all.indeterminate = chosen > 0 && !all.checked;
    for (const button of buttons) {
      button.disabled = chosen === 0;
      button.textContent = chosen ? `${words.get(button)} (${chosen})` : words.get(button);
    }
  };
  all.hidden = false;
  all.addEventListener("change", () => {
    for (const box of boxes()) box.checked = all.checked;
    say();
  });
  form.addEventListener("change", say);
  // All jobs of the filter are meant by the other buttons, whatever is selected.
  form.addEventListener("submit", (event) => {
    if (event.submitter?.value.endsWith("-all")) for (const box of boxes()) box.checked = false;
  });
  say();
}
