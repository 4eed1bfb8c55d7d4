// What Mattermost's Calls client does in a browser: one peer connection on which both ends offer, a data channel, and a plugin behind it.
// It is the polite peer. `toPlugin(type, data)` is given by the story; `MessagePack` by the library that the clients have too.
(() => {
  const RTC = { ice: 1, sdp: 2, mute: 3, unmute: 4, screenOn: 5, screenOff: 6, videoOn: 9, videoOff: 10 };
  const DC = { ping: 1, pong: 2, sdp: 3, loss: 4, rtt: 5, jitter: 6, lock: 7, unlock: 8, map: 9 };
  const packed = async (text) => new Uint8Array(await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer());
  const unpacked = (bytes) => new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));

  let pc, dc, options, voice, answers = 0, map = {}, candidates = [], making = false;
  let lockAnswer;
  const seen = { pongs: 0, maps: 0, offersByChannel: 0, offersByPlugin: 0, unknown: 0 };
  const say = (kind, payload) => {
    const parts = [MessagePack.encode(kind), ...(payload === undefined ? [] : [MessagePack.encode(payload)])];
    dc.send(Uint8Array.from(parts.flatMap((part) => [...part])));
  };

  const lock = async () => {
    if (!options.locking || dc.readyState !== "open") return;
    const end = Date.now() + 5_000;
    for (;;) {
      const granted = new Promise((done) => { lockAnswer = done; });
      say(DC.lock);
      if (await granted) return;
      if (Date.now() > end) throw new Error("the lock was not to be had");
      await sleep(50);
    }
  };

  const describe = async (description, byChannel) => {
    const json = JSON.stringify({ type: description.type, sdp: description.sdp });
    if (byChannel && dc.readyState === "open") say(DC.sdp, await packed(json));
    else globalThis.toPlugin(RTC.sdp, json);
  };

  const offer = async () => {
    making = true;
    try {
      await pc.setLocalDescription();
      await describe(pc.localDescription, options.dcSignaling);
    } finally {
      making = false;
    }
  };

  /** A change of what we send, under the lock. */
  const change = async (work) => {
    await lock();
    await work();
    await offer();
  };

  const takeDescription = async (description, byChannel) => {
    if (description.type === "offer") {
      seen[byChannel ? "offersByChannel" : "offersByPlugin"]++;
      // Polite: an own offer under way is rolled back, and made again afterwards.
      const crossed = making || pc.signalingState !== "stable";
      await pc.setRemoteDescription(description);
      await pc.setLocalDescription();
      await describe(pc.localDescription, options.dcSignaling);
      if (crossed) await offer();
    } else {
      await pc.setRemoteDescription(description);
      if (answers++ > 0 && dc.readyState === "open") say(DC.unlock);
    }
    for (const candidate of candidates.splice(0)) await pc.addIceCandidate(candidate);
  };

  // One after the other, as the client's queue does.
  let chain = Promise.resolve();
  const inOrder = (work) => {
    chain = chain.then(work).catch((error) => { globalThis.problems = [...(globalThis.problems ?? []), String(error)]; });
    return chain;
  };

  const onMessage = ({ data }) => {
    const [kind, payload] = MessagePack.decodeMulti(new Uint8Array(data));
    if (kind === DC.pong) seen.pongs++;
    else if (kind === DC.sdp) inOrder(async () => takeDescription(JSON.parse(await unpacked(payload)), true));
    else if (kind === DC.lock) lockAnswer?.(payload);
    else if (kind === DC.map) {
      seen.maps++;
      map = payload;
    }
  };

  const onTrack = ({ track, transceiver, streams }) => {
    // The page tells a screen from a camera by the map alone, at this moment.
    const entry = map[transceiver.mid];
    if (track.kind === "video" && !["screen", "video"].includes(entry?.type)) {
      seen.unknown++;
      return;
    }
    const element = document.createElement(track.kind);
    element.autoplay = true;
    element.dataset.type = entry?.type ?? "voice";
    element.dataset.sender = entry?.sender_id ?? "";
    element.dataset.stream = streams[0]?.id ?? "";
    element.srcObject = new MediaStream([track]);
    document.body.append(element);
    track.addEventListener("mute", () => element.remove());
    track.addEventListener("unmute", () => document.body.append(element));
  };

  globalThis.calls = {
    async connect(wanted) {
      options = wanted;
      pc = new RTCPeerConnection();
      pc.ontrack = onTrack;
      pc.onicecandidate = ({ candidate }) => candidate && globalThis.toPlugin(RTC.ice, JSON.stringify(candidate));
      dc = pc.createDataChannel("calls-dc");
      dc.binaryType = "arraybuffer";
      dc.onmessage = onMessage;
      dc.onopen = () => setInterval(() => dc.readyState === "open" && say(DC.ping), 1_000);
      await pc.setLocalDescription();
      globalThis.toPlugin(RTC.sdp, JSON.stringify(pc.localDescription));
    },
    fromPlugin(text) {
      const message = JSON.parse(text);
      if (message.type === "candidate") {
        if (pc.remoteDescription) pc.addIceCandidate(message.candidate);
        else candidates.push(message.candidate);
      } else if (["offer", "answer"].includes(message.type)) inOrder(() => takeDescription(message, false));
    },
    state: () => `${pc?.connectionState}/${dc?.readyState}`,
    seen: () => ({ ...seen, map, problems: globalThis.problems ?? [] }),
    async unmute() {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const [track] = stream.getAudioTracks();
      if (voice) await voice.replaceTrack(track);
      else await change(() => { voice = pc.addTrack(track, stream); });
      globalThis.toPlugin(RTC.unmute);
    },
    async mute() {
      globalThis.toPlugin(RTC.mute);
      await voice.replaceTrack(null);
    },
    /** `simulcast`: in two layers of the same size, as the client sends a screen where the site has that switched on. */
    async shareScreen({ simulcast = false } = {}) {
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: 640, height: 360 });
      const pen = canvas.getContext("2d");
      const rate = simulcast ? 20 : 10;
      let n = 0;
      setInterval(() => {
        pen.fillStyle = `hsl(${n++ * 7 % 360} 80% 50%)`;
        pen.fillRect(0, 0, 640, 360);
        // Something that takes bits.
        for (let speck = 0; simulcast && speck < 1_500; speck++) {
          pen.fillStyle = `hsl(${Math.random() * 360} 90% ${Math.random() * 100}%)`;
          pen.fillRect(Math.random() * 640, Math.random() * 360, 6, 6);
        }
      }, 1_000 / rate);
      const stream = canvas.captureStream(rate);
      // Announced before the track is there.
      globalThis.toPlugin(RTC.screenOn, JSON.stringify({ screenStreamID: stream.id }));
      const [track] = stream.getTracks();
      let transceiver;
      const sendEncodings = [{ rid: "l", maxBitrate: 500_000, maxFramerate: 5 }, { rid: "h", maxBitrate: 2_500_000, maxFramerate: 20 }]
        .map((encoding) => ({ ...encoding, scaleResolutionDownBy: 1 }));
      await change(() => {
        transceiver = pc.addTransceiver(track, { direction: "sendrecv", streams: [stream], ...(simulcast ? { sendEncodings } : {}) });
      });
      globalThis.calls.screen = transceiver;
    },
    async unshareScreen() {
      globalThis.toPlugin(RTC.screenOff);
      await change(() => pc.removeTrack(globalThis.calls.screen.sender));
    },
    async startVideo() {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240 } });
      const [track] = stream.getTracks();
      await change(() => pc.addTransceiver(track, { direction: "sendrecv", streams: [stream] }));
      // Announced after the track is on its way.
      globalThis.toPlugin(RTC.videoOn, JSON.stringify({ videoStreamID: stream.id }));
    },
    reportStats() {
      say(DC.loss, 0);
      say(DC.rtt, 0.0125);
      say(DC.jitter, 0.002);
    },
    /** Pictures that moved on since the last look, by what they are and whose. */
    async pictures() {
      const reports = await pc.getStats();
      const frames = [...reports.values()].filter((report) => report.type === "inbound-rtp" && report.kind === "video");
      return [...document.querySelectorAll("video")].map((video) => {
        const [track] = video.srcObject.getVideoTracks();
        const report = frames.find((report) => report.trackIdentifier === track.id);
        // Whose it is says the stream: the map's `sender_id` is the receiver's in the original.
        return { type: video.dataset.type, sender: video.dataset.stream, width: video.videoWidth, frames: report?.framesDecoded ?? 0, keys: report?.keyFramesDecoded ?? 0 };
      });
    },
    /** Frames that were sent of each layer, by its name. */
    async framesSent() {
      const reports = await pc.getStats();
      return Object.fromEntries([...reports.values()].filter((report) => report.type === "outbound-rtp" && report.rid)
        .map((report) => [report.rid, report.framesEncoded]));
    },
    /** Where media leaves and where to: the pair in use. */
    async way() {
      const reports = await pc.getStats();
      const transport = [...reports.values()].find((report) => report.type === "transport");
      const pair = reports.get(transport?.selectedCandidatePairId);
      return reports.get(pair?.localCandidateId)?.address;
    },
    /** What is known of the pictures that come, for when one does not. */
    async why() {
      const pictures = [...(await pc.getStats()).values()].filter((report) => report.type === "inbound-rtp" && report.kind === "video")
        .map(({ mid, packetsReceived, framesDecoded, keyFramesDecoded, pliCount, packetsLost }) => ({ mid, packetsReceived, framesDecoded, keyFramesDecoded, pliCount, packetsLost }));
      const sections = pc.getTransceivers().map(({ mid, currentDirection, receiver: { track: { kind, muted } } }) => `${mid} ${kind} ${currentDirection}${muted ? " muted" : ""}`);
      return { ...globalThis.calls.seen(), signalling: pc.signalingState, pictures, sections };
    },
    async packetsHeard() {
      const reports = await pc.getStats();
      return [...reports.values()].filter((report) => report.type === "inbound-rtp" && report.kind === "audio")
        .reduce((sum, report) => sum + report.packetsReceived, 0);
    },
  };
})();
