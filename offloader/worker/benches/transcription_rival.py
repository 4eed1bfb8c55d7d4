"""The rival of the transcription bench: faster-whisper, as its own documentation tells to call it, on one thread.

    python transcription_rival.py MODEL_DIR greedy|beam|batched FILE.wav …

Prints one line of JSON: CPU seconds of loading and of transcribing, texts, peak memory. The files are 16 kHz, mono, 16 bit.
"""

import json
import os
import resource
import sys
import wave

os.environ["OMP_NUM_THREADS"] = "1"

import numpy  # noqa: E402
from faster_whisper import BatchedInferencePipeline, WhisperModel  # noqa: E402
from faster_whisper import __version__ as version  # noqa: E402


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def samples(path):
    with wave.open(path) as file:
        return numpy.frombuffer(file.readframes(file.getnframes()), dtype=numpy.int16).astype(numpy.float32) / 32768


def main():
    directory, mode, *files = sys.argv[1:]
    model = WhisperModel(directory, device="cpu", compute_type="int8", cpu_threads=1, num_workers=1)
    batched = BatchedInferencePipeline(model=model) if mode == "batched" else None

    def transcribe(audio):
        # Without word times, which cost more: ours always has them.
        options = {"language": "en", "vad_filter": True}
        if mode == "batched":
            segments, _ = batched.transcribe(audio, batch_size=8, **options)
        else:
            segments, _ = model.transcribe(audio, beam_size=1 if mode == "greedy" else 5, **options)
        return " ".join(segment.text for segment in segments)

    # The voice detector is loaded at its first use.
    audio = [samples(path) for path in files]
    transcribe(audio[0][: 16_000 * 3])
    loaded = cpu_seconds()
    texts = [transcribe(one) for one in audio]
    spent = cpu_seconds() - loaded
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"version": version, "load_s": loaded, "cpu_s": spent, "peak_kb": peak, "texts": texts}))


main()
