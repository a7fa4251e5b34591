// Turns the entities of demo/display.py back into characters where people take text out of the page: copying and editing.
(() => {
  const read = (text) => text.replace(/&#x000([0-9a-f]{2});/g, (_, code) => String.fromCharCode(parseInt(code, 16)));

  if (navigator.clipboard) {
    const write = navigator.clipboard.writeText.bind(navigator.clipboard);
    navigator.clipboard.writeText = (text) => write(read(text));
  }

  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const node of change.addedNodes) {
        if (!(node instanceof Element)) continue;
        for (const area of node.matches(".edit-textarea") ? [node] : node.querySelectorAll(".edit-textarea")) {
          area.value = read(area.value);
          area.dispatchEvent(new Event("input", { bubbles: true }));
        }
      }
    }
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
