import { describe, expect, it } from 'vitest'
import type { Caption } from '../../api/types'
import { Captions, SHOW_MS } from './captions.svelte'

const caption = (more: Partial<Caption>): Caption => ({
  call_id: 'c', identity: 'u-1', display_name: 'Ada', track_sid: 't', segment_id: 's1', committed: '', pending: '', final: false, language: 'en', start_ms: 0, end_ms: 0, delay_ms: 0, ...more,
})

describe('captions', () => {
  it('replaces a line of the same segment and keeps others', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ pending: 'We begin' }), 0)
    captions.handleCaption(caption({ segment_id: 's2', committed: 'Yes.' }), 1)
    captions.handleCaption(caption({ committed: 'We begin', pending: ' with the' }), 2)
    expect(captions.lines.map((line) => line.committed + line.pending)).toEqual(['We begin with the', 'Yes.'])
  })

  it('never takes back committed text when a late copy comes over the other path', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ committed: 'We begin with', pending: '' }), 0)
    captions.handleSpoken({ identity: 'u-1', trackSid: 't', segmentId: 's1', text: 'We begin with the dam', final: false, language: 'en' }, 'Ada', 1)
    expect(captions.lines[0]).toMatchObject({ committed: 'We begin with', pending: ' the dam' })
  })

  it('changes nothing after the final word', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ committed: 'Done.', final: true }), 0)
    captions.handleCaption(caption({ committed: 'Do', pending: 'ne' }), 1)
    expect(captions.lines[0]).toMatchObject({ committed: 'Done.', pending: '', final: true })
  })

  it('announces each finished sentence once, with its speaker', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ pending: 'Do' }), 0)
    expect(captions.announced).toBeNull()
    captions.handleCaption(caption({ committed: 'Done.', final: true }), 1)
    expect(captions.announced?.text).toBe('Ada: Done.')
  })

  it('shows a line for a while after its last change, newest last', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ committed: 'Old' }), 0)
    captions.handleCaption(caption({ segment_id: 's2', committed: 'New' }), SHOW_MS)
    expect(captions.visible(SHOW_MS + 1, 3).map((line) => line.committed)).toEqual(['New'])
  })
})
