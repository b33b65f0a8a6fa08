"""``/v2``: a model that cannot serve is not ready, and says no more than that."""

from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec
from gateway_thread import GatewayThread

from streamapp.models import Registry

DECLARED = 'task = "tensor"\nname = "NAME"\nversion = 1\nabout = "x"\nlicence = "MIT"\n'
SIDES = '[inputs]\nx = "float32[n,3]"\n[outputs]\ny = "float32[n,3]"\n'
BROKEN = {
    "sound": f'{DECLARED}format = "function"\nfunction = "tiny_models:affine"\n{SIDES}',
    "nowhere": f'{DECLARED}format = "function"\nfunction = "tiny_models:nowhere"\n{SIDES}',
    "spacy": f'{DECLARED}format = "spacy"\n{SIDES}',
    "nonsense": "task = 3",
}


def test_what_is_no_model_is_not_ready(tmp_path):
    """A function that is not there, a format for another task, and a manifest that is none."""
    for name, text in BROKEN.items():
        place = tmp_path / f"models/tensor/{name}/1/manifest.toml"
        place.parent.mkdir(parents=True)
        place.write_text(text.replace("NAME", name))
    make = lambda: Registry(tmp_path / "models", tmp_path / "cache")  # noqa: E731
    with GatewayThread(models=make) as gateway:
        ready = {}
        for name in BROKEN:
            try:
                with urlopen(f"{gateway.url}/v2/models/tensor%2F{name}/ready") as answer:
                    ready[name] = answer.status
            except HTTPError as error:
                ready[name] = error.code
                assert str(tmp_path) not in error.read().decode()
        index = urlopen(f"{gateway.url}/v2/repository/index", b"").read().decode()
    assert ready == {"sound": 200, "nowhere": 503, "spacy": 503, "nonsense": 503}
    states = {one["name"]: one["state"] for one in msgspec.json.decode(index)}
    assert states["tensor/sound"] == "READY"
    assert states["tensor/nonsense"] == states["tensor/spacy"] == "UNAVAILABLE"
    assert str(tmp_path) not in index
