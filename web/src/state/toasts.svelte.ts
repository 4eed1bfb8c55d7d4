/** Short messages that come and go. Each says what happened and, if something went wrong, what to do next. */

export interface Toast {
  id: number
  kind: 'info' | 'good' | 'bad'
  text: string
  action?: { label: string; run: () => void }
}

/** Long enough to read two lines; errors stay until they are dismissed. */
const SHOW_MS = 6_000
/** More than this covers the page; the oldest goes. */
const TOASTS_MAX = 4

class Toasts {
  list: Toast[] = $state([])
  #next = 1

  show(kind: Toast['kind'], text: string, action?: Toast['action']): number {
    const id = this.#next++
    this.list = [...this.list.filter((toast) => toast.text !== text), { id, kind, text, action }].slice(-TOASTS_MAX)
    if (kind !== 'bad') setTimeout(() => this.dismiss(id), SHOW_MS)
    return id
  }

  dismiss(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id)
  }
}

export const toasts = new Toasts()
