"""A certificate for 127.0.0.1 and localhost, by whatever this machine has to make one."""

import shutil
import subprocess


def make(folder, name="server"):
    """(certificate, key) as PEM files; None when no tool is there."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    if not shutil.which("openssl"):
        return None
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", chain,
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return chain, key
