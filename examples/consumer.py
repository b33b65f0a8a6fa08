"""A reader of this host's ring with the flags of the zero-shot gateway's ``scripts/consumer.py``.

    python examples/consumer.py                       # the newest frame
    python examples/consumer.py --follow              # frames as they come
    python examples/consumer.py --batch 100           # the newest 100
    python examples/consumer.py --pytorch --batch 50  # the same as tensors
    python examples/consumer.py --learn               # attractors from the newest 500, every 5 s

It reads the ring that the settings of this folder name (``streamapp config show``); ``--ring`` is
for another.
"""

import argparse
import signal
import sys

from streamapp.core.errors import StreamappError
from streamapp.ring import PhysicsConsumer


def show(frame):
    values = f"sentiment {frame.sentiment:+.2f}  velocity {frame.velocity:.2f}"
    print(f"{frame.frame_id:>8}  {values}  semantic {frame.semantic[:3]}", flush=True)


def show_tensors(consumer, n):
    semantic, floats = consumer.read_batch_tensors(n)
    print(f"semantic {tuple(semantic.shape)} {semantic.dtype}, floats {tuple(floats.shape)}")
    if len(semantic):
        print(f"mean length of a vector: {semantic.norm(dim=1).nanmean():.3f}")


def show_batch(consumer, n):
    frames = consumer.read_batch(n)
    print(f"read {len(frames)} frames: semantic {frames.semantic.shape} {frames.semantic.dtype}")
    for frame in frames[:5]:
        show(frame)


def learn(path):
    """K-means over the newest frames; the mirror pulls what comes by what was found."""
    from streamapp.cli import main

    ring = ["--ring-path", path] if path else []
    return main(["ring", "attractors", "learn", "--k", "5", "--frames", "500", "--follow", *ring])


def main():
    parser = argparse.ArgumentParser(description="Read this host's ring of frames.")
    parser.add_argument("--follow", action="store_true", help="print frames as they come")
    parser.add_argument("--batch", type=int, default=0, metavar="N", help="the newest N frames")
    parser.add_argument("--pytorch", action="store_true", help="as torch tensors")
    parser.add_argument("--learn", action="store_true", help="set attractors by k-means")
    parser.add_argument("--ring", metavar="PATH", help="a ring's file")
    asked = parser.parse_args()
    if asked.learn:
        return learn(asked.ring)
    # Following may begin before the ring is there; everything else wants frames now.
    with PhysicsConsumer(asked.ring, wait=None if asked.follow else 0) as consumer:
        if asked.follow:
            for frame in consumer.follow():
                show(frame)
        elif asked.pytorch:
            show_tensors(consumer, asked.batch or 256)
        elif asked.batch:
            show_batch(consumer, asked.batch)
        elif frame := consumer.read_latest():
            show(frame)
        else:
            print("no frames yet")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # head(1) may end it
    try:
        sys.exit(main())
    except StreamappError as error:
        sys.exit(f"{error.message}\n{error.fix}")
    except KeyboardInterrupt:
        sys.exit(130)
