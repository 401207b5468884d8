// Filters the rows of the responses. The page is whole without it; it only hides rows and counts the rest.
(() => {
  "use strict";
  const form = document.getElementById("filters");
  const rows = [...document.querySelectorAll("details.response")].map((element) => {
    const [set, verdicts] = element.dataset.key.split("|");
    return { element, set, verdicts: verdicts.split(","), differs: "differs" in element.dataset, text: null };
  });
  const count = document.getElementById("shown");
  const none = document.getElementById("none");
  const text = (row) => (row.text ??= row.element.textContent.toLowerCase().replace(/\s+/g, " "));
  const value = (name) => form.elements[name].value;
  const apply = () => {
    const words = value("text").toLowerCase().split(/\s+/).filter(Boolean);
    const set = value("set"), model = value("model"), verdict = value("verdict");
    const differ = form.elements.differ.checked;
    let shown = 0;
    for (const row of rows) {
      const asked = model === "" ? row.verdicts : [row.verdicts[model]];
      const fits = (set === "" || row.set === set)
        && (verdict === "" ? asked.some((own) => own !== "-") : asked.includes(verdict))
        && (!differ || row.differs)
        && words.every((word) => text(row).includes(word));
      row.element.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} shown`;
    none.hidden = shown > 0;
  };
  let waiting;
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); };
  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
})();
