/** Small choices kept in the browser. Storage may be switched off: then they last as long as the page. */

export function load(key: string): string | null {
  try {
    return localStorage.getItem(`conclave.${key}`)
  } catch {
    return null
  }
}

export function save(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`conclave.${key}`)
    else localStorage.setItem(`conclave.${key}`, value)
  } catch {
    // Nothing to do: the choice holds for this page only.
  }
}
