import { flushSync, mount, unmount } from 'svelte'
import { afterEach, describe, expect, it } from 'vitest'
import type { Transcript } from '../api/types'
import { RecordingModel } from '../state/officer/recording.svelte'
import { ID } from '../testids'
import TranscriptView from './TranscriptView.svelte'

const said = { id: 's1', identity: 'u-ann', display_name: 'Ann', start_ms: 500, end_ms: 1_400, text: 'good morning', confidence: 0.9, words: [] }
const missing = { identity: 'u-bob', display_name: 'Bob', from_ms: 61_000, reason: 'segment 3 has been changed' }

describe('the page of a transcript', () => {
  let page: ReturnType<typeof mount> | undefined
  afterEach(() => page && unmount(page))

  function show(transcript: Transcript): { box: HTMLElement; jumps: [number, boolean?][] } {
    const model = new RecordingModel('r-1', '')
    model.transcript = transcript
    const jumps: [number, boolean?][] = []
    const box = document.createElement('div')
    document.body.replaceChildren(box)
    page = mount(TranscriptView, { target: box, props: { model, seek: (ms: number, play?: boolean) => void jumps.push([ms, play]) } })
    flushSync()
    return { box, jumps }
  }
  const lines = (box: HTMLElement) => [...box.querySelectorAll<HTMLElement>(`[data-testid="${ID.transcriptMissing}"]`)]

  it('says whose words are missing, from where on and why, and leads there', () => {
    const { box, jumps } = show({ language: 'en', model: 'm', segments: [said], missing: [missing] })
    expect(lines(box).map((line) => [line.dataset.identity, line.dataset.from])).toEqual([['u-bob', '61000']])
    expect(lines(box)[0]?.textContent).toContain('Words of Bob are missing, from 1:01 on')
    expect(lines(box)[0]?.textContent).toContain('segment 3 has been changed')
    lines(box)[0]?.querySelector('button')?.click()
    expect(jumps).toEqual([[61_000, true]])
    expect(box.querySelectorAll(`[data-testid="${ID.transcriptSentence}"]`)).toHaveLength(1)
  })
  it('says nothing of the kind where nothing is missing', () => {
    const { box } = show({ language: 'en', model: 'm', segments: [said] })
    expect(lines(box)).toEqual([])
  })
  it('does not say that nobody spoke where words are missing', () => {
    const { box } = show({ language: 'en', model: 'm', segments: [], missing: [missing] })
    expect(lines(box)).toHaveLength(1)
    expect(box.querySelector('[role="status"]')).toBeNull()
    unmount(page!)
    page = undefined
    expect(show({ language: 'en', model: 'm', segments: [] }).box.querySelector('[role="status"]')?.textContent).toContain('Nobody said anything')
  })
})
