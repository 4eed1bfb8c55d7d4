/** The real world for `CallModel`: REST, the event stream, LiveKit. */
import * as calls from '../../api/calls'
import { messages, send } from '../../api/channels'
import { events } from '../../api/events'
import type { CallNews, CallPorts } from './call.svelte'

export function realPorts(news: (news: CallNews) => void): CallPorts {
  return {
    api: { ...calls, messages, send },
    listen: (listener) => events.listen(listener),
    streamOpen: () => events.state === 'open',
    checkStream: () => events.check(),
    makeMedia: async (mediaEvents, devices) => {
      // The media engine is most of the page's code: it comes when a call is joined, not at sign-in.
      const { LiveKitMedia } = await import('./livekit')
      return new LiveKitMedia(mediaEvents, devices)
    },
    news,
    now: () => Date.now(),
  }
}
