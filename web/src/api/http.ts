/** One place that talks HTTP to the message server: JSON in, JSON out, errors as values with text for people. */

export class ApiError extends Error {
  constructor(
    /** 0 when no answer came at all. */
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message)
    this.name = 'ApiError'
  }
}

export const BASE = '/api/v1'

/** Long enough for a slow link, short enough that a person still waits for the answer. */
const TIMEOUT_MS = 20_000

let signedOut = (): void => undefined

/** Told when a request shows that the session has ended. */
export function whenSignedOut(listener: () => void): void {
  signedOut = listener
}

type Query = Record<string, string | number | undefined | null>

export function path(parts: TemplateStringsArray, ...values: (string | number)[]): string {
  return parts.reduce((all, part, i) => all + part + (i < values.length ? encodeURIComponent(String(values[i])) : ''), '')
}

export function withQuery(url: string, query?: Query): string {
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== '') params.set(name, String(value))
  }
  const text = params.toString()
  return text ? `${url}?${text}` : url
}

export async function request<T>(method: string, url: string, options: { body?: unknown; query?: Query; timeoutMs?: number } = {}): Promise<T> {
  let response: Response
  try {
    response = await fetch(withQuery(BASE + url, options.query), {
      method,
      credentials: 'same-origin',
      headers: options.body === undefined ? { accept: 'application/json' } : { accept: 'application/json', 'content-type': 'application/json' },
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS),
    })
  } catch (cause) {
    const late = cause instanceof DOMException && cause.name === 'TimeoutError'
    throw new ApiError(0, late ? 'timeout' : 'unreachable', '')
  }
  if (response.status === 401 && !url.startsWith('/session')) signedOut()
  if (!response.ok) throw await errorFrom(response)
  if (response.status === 204) return undefined as T
  const text = await response.text()
  return (text ? JSON.parse(text) : undefined) as T
}

async function errorFrom(response: Response): Promise<ApiError> {
  try {
    const body = (await response.json()) as { error?: { code?: string; message?: string } }
    return new ApiError(response.status, body.error?.code ?? '', body.error?.message ?? '')
  } catch {
    return new ApiError(response.status, '', '')
  }
}

export const get = <T>(url: string, query?: Query) => request<T>('GET', url, { query })
export const post = <T>(url: string, body: unknown = {}) => request<T>('POST', url, { body })
export const patch = <T>(url: string, body: unknown) => request<T>('PATCH', url, { body })
export const del = <T>(url: string) => request<T>('DELETE', url)
