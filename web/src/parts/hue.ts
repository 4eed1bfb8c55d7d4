/** A colour angle from an id: the same person looks the same on every page. */
export function hueOf(id: string): number {
  let hash = 2166136261
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 16777619)
  // Twelve clearly different hues read better than 360 near ones.
  return ((hash >>> 0) % 12) * 30 + 10
}
