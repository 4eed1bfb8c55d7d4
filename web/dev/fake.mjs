// A message server that only pretends: REST, events and static files for designing pages and for `npm run axe`.
// It carries no media. Never shipped; the real stack is what tests of behaviour run against.
import { createReadStream, existsSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'
import * as data from './data.mjs'

const DIST = fileURLToPath(new URL('../dist', import.meta.url))
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' }
const CSP = "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"

export function startFake(port = 0) {
  const state = structuredClone({ channels: data.channels, messages: data.messages, call: data.call, users: data.people })
  const sockets = new Set()
  const media = data.wav()
  const tell = (event) => {
    for (const socket of sockets) socket.send(JSON.stringify({ at_ms: Date.now(), ...event }))
  }
  const callFor = (user) => ({ ...state.call, you: { identity: user.id, host: user.roles.includes('host') } })
  const changed = () => tell({ type: 'call', call: state.call })

  const info = (user) => ({
    user: { id: user.id, username: user.username, display_name: user.display_name, roles: user.roles, guest_call_id: user.guest_call_id ?? null },
    features: { recording: true, transcription: true, captions: true },
    notice: { version: '1', text: 'This call is being recorded. The recording and its transcript are kept by your organisation and may be reviewed. Do you agree to be recorded?' },
  })

  /** [method, pattern, answer(context)]; the answer is a body, or [status, body]. */
  const routes = [
    ['GET', '/session', ({ user }) => info(user)],
    ['DELETE', '/session', () => [204]],
    ['GET', '/people', ({ query }) => ({ people: state.users.filter((u) => u.display_name.toLowerCase().includes((query.get('q') ?? '').toLowerCase())).map(({ id, display_name }) => ({ id, display_name })) })],
    ['GET', '/users', () => ({ users: state.users })],
    ['POST', '/users', ({ body }) => (state.users.push({ id: `u-${Date.now()}`, disabled: false, ...body, password: undefined }), state.users.at(-1))],
    ['PATCH', '/users/:id', ({ id, body }) => Object.assign(state.users.find((u) => u.id === id), body)],
    ['GET', '/channels', () => ({ channels: state.channels })],
    ['POST', '/channels', ({ body }) => (state.channels.push({ id: `ch-${Date.now()}`, unread: 0, active_call: null, ...body }), state.channels.at(-1))],
    ['GET', '/channels/:id/messages', ({ id, query }) => ({ messages: (state.messages[id] ?? []).filter((m) => !query.get('call_id') || m.call_id === query.get('call_id')) })],
    ['POST', '/channels/:id/messages', ({ id, body, user }) => {
      const message = { id: `m-${Date.now()}`, author: { id: user.id, display_name: user.display_name }, text: body.text, at_ms: Date.now(), call_id: body.call_id ?? null }
      ;(state.messages[id] ??= []).push(message)
      tell({ type: 'message', channel_id: id, message })
      return message
    }],
    ['POST', '/channels/:id/read', () => [204]],
    ['POST', '/channels/:id/call', ({ user }) => ({ call: callFor(user) })],
    ['GET', '/calls/:id', ({ id, user }) => (id === state.call.id ? callFor(user) : [404, { error: { code: 'not_found', message: '' } }])],
    ['POST', '/calls/:id/join', ({ user }) => ({ url: '/livekit', token: 'fake', call: callFor(user) })],
    ['POST', '/calls/:id/guest-links', () => ({ url: '/join/8Kd0sJx2Lm', expires_at_ms: data.NOW + 86_400_000 })],
    ['POST', '/calls/:id/recording', ({ body }) => ((state.call.recording.state = body.action === 'start' ? 'asking' : 'off'), changed(), [204])],
    ['GET', '/calls/:id/captions', () => ({ captions: [] })],
    ['POST', '/calls/:id/captions', ({ body }) => ((state.call.captions = body), changed(), [204])],
    ['POST', '/calls/:id/consent', ({ user, body }) => {
      const me = state.call.participants.find((p) => p.identity === user.id)
      if (me) me.consent = body.granted ? 'granted' : 'declined'
      changed()
      return [204]
    }],
    ['POST', '/calls/:id/reactions', ({ id, user, body }) => (tell({ type: 'reaction', call_id: id, identity: user.id, emoji: body.emoji }), [204])],
    ['POST', '/calls/:id/hand', ({ user, body }) => {
      const me = state.call.participants.find((p) => p.identity === user.id)
      if (me) me.hand_raised_at_ms = body.raised ? Date.now() : null
      changed()
      return [204]
    }],
    ['POST', '/calls/:id/:verb', () => [204]],
    ['POST', '/calls/:id/participants/:who/:verb', () => [204]],
    ['GET', '/recordings', ({ query }) => ({ recordings: data.recordings(query.get('q')), next_cursor: null })],
    ['GET', '/recordings/:id', ({ id }) => data.detail(id) ?? [404, { error: { code: 'not_found', message: '' } }]],
    ['GET', '/recordings/:id/transcript.json', () => data.transcript],
    ['POST', '/recordings/:id/verify', () => ({ ok: true, checked_segments: 148, checked_bytes: 3_412_880, first_bad: null, root: data.detail('r-1').seal.root, signature_ok: true, at_ms: data.NOW })],
    ['GET', '/recordings/:id/accesses', () => ({ accesses: data.accesses })],
    ['GET', '/accesses', () => ({ accesses: data.accesses })],
    ['GET', '/ops/nodes', () => ({ nodes: data.nodes })],
    ['GET', '/ops/calls', () => ({ calls: data.opsCalls })],
    ['GET', '/ops/departed', () => ({ departed: data.departed })],
    ['GET', '/ops/jobs', () => ({ jobs: data.jobs })],
    ['GET', '/ops/captions', () => data.captionDelay],
    ['POST', '/ops/nodes/:id/drain', () => [204]],
    ['DELETE', '/ops/nodes/:id/drain', () => [204]],
    ['POST', '/fake/ring', ({ body }) => (tell({ type: 'ring', call: state.call, from: { id: 'u-jonas', display_name: 'Jonas Brandt' } }), body, [204])],
    ['POST', '/fake/call', ({ body }) => (Object.assign(state.call, body), changed(), [204])],
  ].map(([method, pattern, answer]) => ({ method, regex: new RegExp(`^/api/v1${pattern.replace(/:(\w+)/g, '(?<$1>[^/]+)')}$`), answer }))

  const userOf = (request) => {
    const name = /conclave_session=(\w+)/.exec(request.headers.cookie ?? '')?.[1]
    if (name === 'guest') return { id: 'g-1', username: '', display_name: 'Dr. Weber', roles: [], guest_call_id: state.call.id }
    return state.users.find((u) => u.username === name)
  }

  async function api(request, response, url) {
    let text = ''
    for await (const chunk of request) text += chunk
    const body = text ? JSON.parse(text) : {}
    const send = (status, value, headers = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers })
      response.end(value === undefined ? undefined : JSON.stringify(value))
    }
    const key = `${request.method} ${url.pathname}`
    if (key === 'POST /api/v1/session' || key === 'POST /api/v1/session/setup') {
      const user = state.users.find((u) => u.username === body.username)
      if (!user || body.password === 'wrong') return send(401, { error: { code: 'bad_credentials', message: '' } })
      return send(200, info(user), { 'set-cookie': `conclave_session=${user.username}; HttpOnly; SameSite=Lax; Path=/` })
    }
    if (key === 'POST /api/v1/session/guest') {
      const guest = { id: 'g-1', username: '', display_name: body.display_name, roles: [], guest_call_id: state.call.id }
      return send(200, info(guest), { 'set-cookie': 'conclave_session=guest; HttpOnly; SameSite=Lax; Path=/' })
    }
    const user = userOf(request)
    if (!user) return send(401, { error: { code: 'signed_out', message: '' } })
    if (/\/media$/.test(url.pathname)) return range(request, response)
    for (const route of routes) {
      const match = route.method === request.method && route.regex.exec(url.pathname)
      if (!match) continue
      const answer = route.answer({ ...match.groups, user, body, query: url.searchParams })
      return Array.isArray(answer) ? send(answer[0], answer[1]) : send(200, answer)
    }
    send(404, { error: { code: 'not_found', message: '' } })
  }

  function range(request, response) {
    const [from, to] = (/bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? []).slice(1)
    const start = Number(from ?? 0)
    const end = to ? Number(to) : media.length - 1
    response.writeHead(from === undefined ? 200 : 206, {
      'content-type': 'audio/wav', 'accept-ranges': 'bytes', 'content-length': end - start + 1,
      ...(from === undefined ? {} : { 'content-range': `bytes ${start}-${end}/${media.length}` }),
    })
    response.end(media.subarray(start, end + 1))
  }

  function file(response, path) {
    let target = join(DIST, normalize(path))
    if (!target.startsWith(DIST) || !existsSync(target) || !statSync(target).isFile()) target = join(DIST, 'index.html')
    response.writeHead(200, { 'content-type': TYPES[extname(target)] ?? 'application/octet-stream', 'content-security-policy': CSP })
    createReadStream(target).pipe(response)
  }

  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost')
    if (url.pathname.startsWith('/api/')) api(request, response, url).catch((error) => response.writeHead(500).end(String(error)))
    else file(response, url.pathname)
  })
  const events = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request, socket, head) => {
    const user = userOf(request)
    if (request.url !== '/api/v1/events' || !user) return socket.destroy()
    events.handleUpgrade(request, socket, head, (ws) => {
      sockets.add(ws)
      ws.on('close', () => sockets.delete(ws))
      ws.on('message', () => ws.send(JSON.stringify({ type: 'pong', at_ms: Date.now() })))
      ws.send(JSON.stringify({ type: 'hello', at_ms: Date.now(), user: info(user).user }))
    })
  })
  return new Promise((done) =>
    server.listen(port, '127.0.0.1', () =>
      done({ url: `http://127.0.0.1:${server.address().port}`, state, tell, changed, close: () => (sockets.forEach((s) => s.terminate()), server.closeAllConnections(), server.close()) }),
    ),
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const fake = await startFake(Number(process.env.PORT ?? 5180))
  console.log(`fake message server at ${fake.url}; sign in as maria with any password`)
}
