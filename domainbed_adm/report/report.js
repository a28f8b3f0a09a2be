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

// Downloads: each table as CSV and LaTeX, each chart as SVG. The page needs no network for them.
function offer(place, text, file, kind, make) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.setAttribute("aria-label", `Download ${file}`);
  button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([make()], { type: kind }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  place.append(button);
}

function bar(after) {
  const place = document.createElement("p");
  place.className = "download";
  after.after(place);
  return place;
}

// A file's name: the section, the caption, and a number where another has the same.
const taken = new Set();
function named(element, text) {
  const words = `${element.closest("section")?.id ?? "report"} ${text}`.replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_+|_+$/g, "").slice(0, 100);
  let name = words;
  for (let i = 2; taken.has(name); i++) name = `${words}_${i}`;
  taken.add(name);
  return name;
}

for (const table of document.querySelectorAll("table")) {
  const name = named(table, table.caption.textContent);
  const texts = () => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  const safe = (cell) => (/^[=@]/.test(cell) ? `'${cell}` : cell); // a spreadsheet would run it
  const csv = (cell) => (/[",\n]/.test(safe(cell)) ? `"${safe(cell).replace(/"/g, '""')}"` : safe(cell));
  const marks = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "<": "$<$", ">": "$>$", "–": "--" };
  const latex = (cell) => cell.replace(/[\\~^±<>–&%$#_{}]/g, (mark) => marks[mark] ?? `\\${mark}`).replace(/^[[*]/, "{}$&");
  const tabular = () => {
    const [head, ...rows] = texts().map((row) => `${row.map(latex).join(" & ")} \\\\`);
    const columns = [...table.tHead.rows[0].cells].map((cell) => (cell.classList.contains("number") ? "r" : "l")).join("");
    return [`\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...rows, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  };
  const place = bar(table.parentElement);
  offer(place, "CSV", `${name}.csv`, "text/csv", () => texts().map((row) => row.map(csv).join(",")).join("\n") + "\n");
  offer(place, "LaTeX", `${name}.tex`, "text/x-tex", tabular);
}

for (const figure of document.querySelectorAll("figure")) {
  const chart = figure.querySelector("svg");
  if (!chart) continue;
  const spoken = figure.querySelector("[aria-label]")?.getAttribute("aria-label") ?? "chart";
  const file = () => {
    const copy = chart.cloneNode(true);
    const style = document.createElementNS("http://www.w3.org/2000/svg", "style");
    style.textContent = ".rule{stroke:#d5dce3}.zero{stroke:#102030;stroke-dasharray:3 3}.chance{stroke:#52606d;stroke-dasharray:1 3}.curve{fill:none}text{font-family:sans-serif}";
    if (chart.classList.contains("chart")) copy.prepend(style);
    // programs that draw know no variables of a style sheet, and no page's colour
    const text = new XMLSerializer().serializeToString(copy);
    return text.replace(/var\(--colour\d, (#[0-9a-f]{6})\)/gi, "$1").replace(/currentColor/g, "#102030");
  };
  offer(bar(chart.parentElement), "SVG", `${named(figure, spoken)}.svg`, "image/svg+xml", file);
}
