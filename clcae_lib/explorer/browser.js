// What the widgets lack: names for screen readers, a copy button, and a refusal of huge files before they travel.
(() => {
  if (window.clcaeExplorer) return;
  window.clcaeExplorer = true;
  const limit = LIMIT;
  const inside = (selector) => document.querySelectorAll(`.clcae-explorer ${selector}`);

  // A slider's handle carries no name of its own; it takes the label beside it. An image takes its caption.
  const name = () => {
    for (const slider of inside(".widget-hslider, .widget-slider")) {
      const text = slider.querySelector(".widget-label")?.textContent;
      for (const part of slider.querySelectorAll(".noUi-handle, .widget-readout")) {
        if (text && part.getAttribute("aria-label") !== text) part.setAttribute("aria-label", text);
      }
    }
    for (const image of inside("img.widget-image")) {
      const text = image.parentElement.textContent.trim();
      if (image.alt !== text) image.alt = text;
    }
  };
  let due = 0;
  new MutationObserver(() => {
    clearTimeout(due);
    due = setTimeout(name, 100);
  }).observe(document.body, { childList: true, subtree: true });
  name();

  let pressed = null;
  document.addEventListener("click", (event) => {
    pressed = event.target.closest?.("button");
    if (pressed?.classList.contains("clcae-copy")) {
      const text = pressed.closest(".clcae-explorer").querySelector(".clcae-snippet textarea");
      navigator.clipboard?.writeText(text.value).catch(() => text.select());
    }
  }, true);

  // The upload widget reads the file here and reports what is thrown as its `error`.
  const read = FileReader.prototype.readAsArrayBuffer;
  FileReader.prototype.readAsArrayBuffer = function (file) {
    if (pressed?.classList.contains("clcae-upload") && file.size > limit) throw `${file.size} bytes`;
    return read.call(this, file);
  };
})();
