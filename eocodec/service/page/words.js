/** Numbers and sentences as people read them. */

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 616 → "616 bytes", 34402 → "34.4 kB". */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  const [value, unit] = bytes < 1e6 ? [bytes / 1e3, "kB"] : [bytes / 1e6, "MB"];
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
}

/** 34402 → "34,402". */
export function count(value) {
  return grouped.format(value);
}

/** C, in as many digits as it deserves: 1.03, 96.5, 300. */
export function rate(value) {
  return String(Number(value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)));
}

/** 0.262 → "26 % of the original". */
export function share(part) {
  const percent = 100 * part;
  return `${percent < 1 ? percent.toPrecision(1) : percent < 10 ? percent.toFixed(1) : percent.toFixed(0)} % of the original`;
}

/** PSNR: "36.01 dB", or "exact". */
export function decibels(value) {
  return Number.isFinite(value) ? `${value.toFixed(2)} dB` : "exact";
}

/** SSIMULACRA2: "81.2", or a dash where the server cannot tell. */
export function score(value) {
  return Number.isFinite(value) ? value.toFixed(1) : "–";
}

/** Bits per pixel, three digits that count: "1.15", "0.0205". */
export function bitsPerPixel(value) {
  return value >= 1 ? value.toFixed(2) : value >= 0.1 ? value.toFixed(3) : value.toFixed(4);
}

/** "holiday.final.JPG" → "holiday.final". */
export function stem(name) {
  return name.replace(/\.[^.]{1,5}$/, "") || "picture";
}

/** Put sentences into a paragraph, which is hidden where there are none. */
export function note(paragraph, sentences) {
  paragraph.textContent = sentences.join(" ");
  paragraph.hidden = sentences.length === 0;
}
