/** Gaussian noise for a try, from a seed. In and out: `ImageData`. */

/** 8-bit levels; a picture with less noise counts as clean, and the service returns it as it is. */
export const CLEAN = 0.3;

/** Uniform numbers in (0, 1) from a seed (mulberry32). */
function uniform(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
}

/** A picture with white Gaussian noise of deviation `sigma` (8-bit levels) in every colour, rounded and clipped. */
export function noisy(picture, sigma, seed) {
  const { data, width, height } = picture;
  const out = new ImageData(new Uint8ClampedArray(data), width, height);
  const next = uniform(seed);
  let spare = null;
  for (let i = 0; i < data.length; i++) {
    if (i % 4 === 3) continue;
    let normal = spare;
    if (normal === null) {
      const radius = Math.sqrt(-2 * Math.log(next()));
      const angle = 2 * Math.PI * next();
      normal = radius * Math.cos(angle);
      spare = radius * Math.sin(angle);
    } else {
      spare = null;
    }
    out.data[i] = data[i] + sigma * normal; // Uint8ClampedArray rounds and clips
  }
  return out;
}
