/** A small history router: the path is the state, `navigate` is the only verb. */

export type Route =
  | { page: 'signin' }
  | { page: 'setup'; token: string }
  | { page: 'join'; token: string }
  | { page: 'channels'; channel: string | null }
  | { page: 'call'; id: string }
  | { page: 'officer' }
  | { page: 'recording'; id: string }
  | { page: 'ops' }
  | { page: 'people' }
  | { page: 'missing' }

export function parse(pathname: string, search: string): Route {
  const parts = pathname.split('/').filter(Boolean).map(decode)
  const query = new URLSearchParams(search)
  const [first, second, ...rest] = parts
  if (rest.length > 0) return { page: 'missing' }
  switch (first) {
    case undefined:
      return { page: 'channels', channel: query.get('channel') }
    case 'signin':
      return { page: 'signin' }
    case 'setup':
      return { page: 'setup', token: query.get('token') ?? '' }
    case 'join':
      return second ? { page: 'join', token: second } : { page: 'missing' }
    case 'call':
      return second ? { page: 'call', id: second } : { page: 'missing' }
    case 'officer':
      return second ? { page: 'recording', id: second } : { page: 'officer' }
    case 'ops':
      return { page: 'ops' }
    case 'people':
      return { page: 'people' }
    default:
      return { page: 'missing' }
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

class Router {
  href = $state(location.pathname + location.search)
  route: Route = $derived.by(() => {
    const url = new URL(this.href, location.origin)
    return parse(url.pathname, url.search)
  })
  query = $derived(new URL(this.href, location.origin).searchParams)

  constructor() {
    addEventListener('popstate', () => this.#read())
  }

  navigate(href: string, options: { replace?: boolean } = {}): void {
    if (href === this.href) return
    if (options.replace) history.replaceState(null, '', href)
    else history.pushState(null, '', href)
    this.#read()
    scrollTo(0, 0)
  }

  /** Changes the query of the current page without a new history entry. */
  replaceQuery(changes: Record<string, string>): void {
    const url = new URL(this.href, location.origin)
    for (const [name, value] of Object.entries(changes)) {
      if (value) url.searchParams.set(name, value)
      else url.searchParams.delete(name)
    }
    history.replaceState(null, '', url.pathname + url.search)
    this.#read()
  }

  /** Click handler for the whole document: plain clicks on own links stay in the page. */
  handleClick(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    const link = event.target instanceof Element ? event.target.closest('a') : null
    if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return
    if (link.pathname.startsWith('/api/') || link.getAttribute('href')?.startsWith('#')) return
    event.preventDefault()
    this.navigate(link.pathname + link.search)
  }

  #read(): void {
    this.href = location.pathname + location.search
  }
}

export const router = new Router()
