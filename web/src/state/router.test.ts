import { describe, expect, it } from 'vitest'
import { parse } from './router.svelte'

describe('routes', () => {
  it.each([
    ['/', '', { page: 'channels', channel: null }],
    ['/', '?channel=ch-1', { page: 'channels', channel: 'ch-1' }],
    ['/signin', '', { page: 'signin' }],
    ['/setup', '?token=abc', { page: 'setup', token: 'abc' }],
    ['/join/T%2F1', '', { page: 'join', token: 'T/1' }],
    ['/call/c-1', '', { page: 'call', id: 'c-1' }],
    ['/call', '', { page: 'missing' }],
    ['/officer', '', { page: 'officer' }],
    ['/officer/r-1', '', { page: 'recording', id: 'r-1' }],
    ['/officer/r-1/x', '', { page: 'missing' }],
    ['/call/%E0%A4%A', '', { page: 'call', id: '%E0%A4%A' }],
    ['/wp-admin', '', { page: 'missing' }],
  ])('%s%s', (path, search, route) => expect(parse(path, search)).toEqual(route))
})
