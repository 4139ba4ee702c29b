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

  // A click on the photograph adds a point to the text below it; a sixth one starts over.
  document.addEventListener("click", (event) => {
    const image = event.target.closest?.("img.clcae-mark");
    const text = image?.parentElement.querySelector(".clcae-points input");
    if (!text) return;
    const [x, y] = [event.offsetX * image.naturalWidth / image.width, event.offsetY * image.naturalHeight / image.height];
    const given = text.value.trim().split(/\s+/).filter(Boolean);
    text.value = [...(given.length < 5 ? given : []), `${x.toFixed(1)},${y.toFixed(1)}`].join(" ");
    for (const kind of ["input", "change"]) text.dispatchEvent(new Event(kind, { bubbles: true }));
  });

  let pressed = null;
  document.addEventListener("click", (event) => {
    pressed = event.target.closest?.("button");
    if (pressed?.classList.contains("clcae-copy")) {
      const text = pressed.closest(".clcae-explorer").querySelector(".clcae-snippet textarea");
      navigator.clipboard?.writeText(text.value).catch(() => text.select());
    }
  }, true);

  // A photograph of a phone is made to fit here, and AVIF made JPEG; of what no decoder reads, only the beginning
  // is sent.
  const kept = (file) => file.type !== "image/avif";
  const fitting = async (file) => {
    const image = await createImageBitmap(file);
    const longer = Math.max(image.width, image.height);
    for (let side = 4096, made = file; ; side /= 2) {
      if (made.size <= limit && (made !== file || (kept(file) && longer <= side))) return made;
      const canvas = document.createElement("canvas");
      canvas.width = Math.ceil((image.width * Math.min(side, longer)) / longer);
      canvas.height = Math.ceil((image.height * Math.min(side, longer)) / longer);
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      made = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    }
  };

  // The upload widget reads the file here and reports what is thrown as its `error`.
  const read = FileReader.prototype.readAsArrayBuffer;
  FileReader.prototype.readAsArrayBuffer = function (file) {
    const ours = pressed?.classList.contains("clcae-upload");
    const photograph = ours && file.type.startsWith("image/") && file.size <= 8 * limit;
    if (ours && !photograph && file.size > limit) throw `${file.size} bytes`;
    if (!photograph || (kept(file) && file.size < limit / 4)) return read.call(this, file);
    fitting(file).then((made) => read.call(this, made), () => read.call(this, file.slice(0, 4096)));
  };
})();
