/** Pixels of pictures, as `ImageData`: read from bitmaps, written to PNG, compared. */

/** PSNR of two pictures of one size, 8-bit RGB, dB. */
export function psnr(a, b) {
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) {
    if (i % 4 !== 3) sum += (a.data[i] - b.data[i]) ** 2;
  }
  return 10 * Math.log10(255 ** 2 / (sum / (a.data.length * 0.75)));
}

/** The pixels of a bitmap. */
export function read(bitmap) {
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** Pixels as a PNG file, with transparency only if there is any. */
export function png(picture) {
  const { data, width, height } = picture;
  const opaque = data.every((value, i) => i % 4 !== 3 || value === 255);
  // Not an OffscreenCanvas: it writes four channels even where it is opaque.
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d", { alpha: !opaque }).putImageData(picture, 0, 0);
  return new Promise((resolve, reject) => {
    const take = (blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large for this browser")));
    canvas.toBlob(take, "image/png");
  });
}
