"use strict";
function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0];
  const column = [...header.parentNode.children].indexOf(header);
  const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const numeric = header.classList.contains("number");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  // Empty cells come last in either direction.
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
  };
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("th button");
  if (button) sortBy(button.closest("th"));
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
