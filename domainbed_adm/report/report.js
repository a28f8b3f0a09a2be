// Headings become buttons that sort their table: numbers as numbers, text as text, what is unknown last.
// Without this script the tables are as they are.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const highestFirst = table.hasAttribute("data-highest-first");

  const compare = (column, sign) => (a, b) => {
    const [x, y] = [a.cells[column], b.cells[column]];
    if (!headings[column].classList.contains("number")) {
      return sign * x.textContent.localeCompare(y.textContent, "en", { numeric: true });
    }
    const [p, q] = [x, y].map((cell) => parseFloat(cell.dataset.value));
    return isNaN(p) || isNaN(q) ? isNaN(p) - isNaN(q) : sign * (p - q);
  };

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const first = highestFirst && heading.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = heading.getAttribute("aria-sort") === first ? other : first;
      headings.forEach((one) => one.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      body.append(...[...body.rows].sort(compare(column, order === "ascending" ? 1 : -1)));
    });
  });
}
