// Says below a chart what the bar under the pointer stands for.
export function readOut(root) {
  root.addEventListener("pointerover", (event) => {
    const bar = event.target.closest?.(".plot [aria-label]:not(svg)");
    const line = bar?.closest(".chart")?.querySelector(".readout");
    if (line) line.textContent = bar.getAttribute("aria-label");
  });
}
