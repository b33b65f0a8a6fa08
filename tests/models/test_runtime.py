"""Local models say nothing to anybody: no device id, no upload queue."""

import os
import subprocess
import sys


def files_after_loading(home, **environment):
    code = "from streamapp.models.runtime import onnxruntime; onnxruntime.SessionOptions()"
    env = os.environ | {"HOME": str(home), **environment}
    env.pop("XDG_CACHE_HOME", None)
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):  # CI would switch it off, too
        if name not in environment:
            env.pop(name, None)
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    return [path for path in home.rglob("*") if path.is_file()]


def test_no_device_id_is_written(tmp_path):
    assert files_after_loading(tmp_path) == []
