// Turns the entities of demo/display.py back into characters where people take text out of the page: copying and editing.
(() => {
  const read = (text) => text.replace(/&#x000([0-9a-f]{2});/g, (_, code) => String.fromCharCode(parseInt(code, 16)));

  if (navigator.clipboard) {
    const write = navigator.clipboard.writeText.bind(navigator.clipboard);
    navigator.clipboard.writeText = (text) => write(read(text));
  }

  const mend = (node) => {
    for (const area of node.querySelectorAll(".edit-textarea")) {
      if (area.value === read(area.value)) continue;
      area.value = read(area.value);
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
  };

  new MutationObserver((changes) => {
    for (const { type, target, addedNodes } of changes) {
      if (type === "attributes") {
        const label = target.getAttribute("aria-label") ?? "";
        if (label !== read(label)) target.setAttribute("aria-label", read(label));
      } else if (addedNodes.length && target instanceof Element) {
        mend(target);
      }
    }
  }).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-label"] });
})();
