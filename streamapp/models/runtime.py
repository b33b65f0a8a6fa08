"""onnxruntime, with its telemetry off.

Its wheels report to their maker from Linux too: a device id is written below the user's cache and
events are uploaded.  Models here are local and say nothing to anybody.  The switch is read once,
when the library loads (https://github.com/microsoft/onnxruntime/pull/27379).  Who wants it
sets ``ORT_DISABLE_TELEMETRY=0``.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251  # the library's own switch

import onnxruntime  # after the switch

__all__ = ["onnxruntime"]
