// Draws the figures of the page and answers its controls.
window.PACEHPC = JSON.parse(document.getElementById("page-data").textContent);
const hidden = new Set(); // groups that are switched off

function draw(element) {
  if (element.dataset.drawn) return;
  element.dataset.drawn = "yes";
  Bokeh.embed.embed_item(PACEHPC.charts[element.dataset.chart], element.id).then(showGroups);
}

function drawVisible(root) {
  for (const element of root.querySelectorAll("[data-chart]"))
    if (!element.closest("[hidden]")) draw(element);
}

function showGroups() {
  for (const doc of Bokeh.documents)
    for (const model of doc.all_models)
      if (model.type === "GlyphRenderer" && (model.name || "").startsWith("group ")) {
        const visible = !hidden.has(model.name);
        if (model.visible !== visible) model.visible = visible;
      }
}

for (const box of document.querySelectorAll("input[data-group]"))
  box.addEventListener("change", () => {
    const name = "group " + box.dataset.group;
    for (const other of document.querySelectorAll(`input[data-group="${box.dataset.group}"]`))
      other.checked = box.checked;
    if (box.checked) hidden.delete(name);
    else hidden.add(name);
    showGroups();
  });

for (const radio of document.querySelectorAll("input[data-shows]"))
  radio.addEventListener("change", () => {
    for (const other of document.querySelectorAll(`input[name="${radio.name}"]`))
      document.getElementById(other.dataset.shows).hidden = !other.checked;
    drawVisible(document);
  });

drawVisible(document);
