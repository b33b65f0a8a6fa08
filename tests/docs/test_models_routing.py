"""What docs/models.md says of routes and of models over HTTP is what the code has."""

import re
import tomllib

import msgspec
import pytest
from inference_models import registry_of
from pages import page

from streamapp.core.route import ROUTE
from streamapp.core.scopes import Verb
from streamapp.core.settings import Settings
from streamapp.gateway.inference import hosted
from streamapp.gateway.scopes import rule
from streamapp.models.formats.v2 import JSON_LENGTH
from streamapp.models.routes import Routes
from streamapp.models.routing import reports
from streamapp.models.routing.score import CHARS_PER_TOKEN
from streamapp.models.routing.spec import Canary, Guard, RouteSpec, Weights, check_route
from streamapp.models.routing.sticky import SRM_P_MIN
from streamapp.plugin.testing import HashModels
from streamapp.stages.classify import Classify
from streamapp.stages.shadow import Shadow

PAGE = page("models")


ROUTES, SERVED = PAGE.section("Routes"), PAGE.section("Models over HTTP")


def plain(text):
    return re.sub(r"\s+", " ", text)


def test_the_declared_route_is_one():
    routes = msgspec.convert(tomllib.loads(ROUTES.blocks("toml")[0]), Routes)
    spec = routes.route["topic"]
    check_route("topic", spec)
    assert spec.canary == Canary(model="classify/large", percent=5)
    assert spec.guard == Guard(error_rate_max=0.05, p95_ms_max=100, calls_min=50)
    assert spec.weights == Weights()  # the page shows the defaults
    undeclared = RouteSpec(task="classify", models=["a"])
    assert "250 ms at least and 60 s at most" in plain(ROUTES)
    assert [undeclared.shadow_wait_s(took) for took in (0.0, 1.0, 99.0)] == [0.25, 1.0, 60.0]
    assert spec.shadow_wait_s(99.0) == 1.0
    assert spec.deadline_ms == RouteSpec(task="classify", models=["a"]).deadline_ms


@pytest.mark.parametrize(("number", "stage"), [(1, Classify), (2, Shadow)])
def test_the_stages_take_the_options_of_the_page(number, stage):
    declared = tomllib.loads(ROUTES.blocks("toml")[number])
    assert stage.name in declared["workflow"]["stages"]
    options = declared["stages"][stage.name]
    made = stage({key: float(one) if type(one) is int else one for key, one in options.items()})
    spec = RouteSpec(task="classify", models=["a"])
    made.declare(HashModels(routes={"topic": spec}))
    assert all(f"`{column}`" in ROUTES for column in made.writes)


def test_every_field_of_the_column_and_every_reason_is_there():
    assert all(f"`{field.name}`" in ROUTES for field in ROUTE if field.name != "route")
    reasons = set(re.findall(r"^\| `([a-z]+)` \|", ROUTES, re.MULTILINE)) - {"why"}
    assert reasons == {
        "score", "split", "fallback", "ensemble", "truncated", "none", "exhausted",
    }  # fmt: skip


def test_the_queries_are_those_that_are_tested():
    """``tests/path/test_shadow.py`` runs them on both stores."""
    said = [plain(each) for each in ROUTES.blocks("sql")]
    for query in (reports.AGREEMENT, reports.DRIFT):
        written = reports.written(query, "topic", "topic").replace('"', "")
        assert plain(written).strip() in [each.strip() for each in said]
    assert plain(reports.NEIGHBOURS).strip() in [each.strip() for each in said]


def test_the_commands_are_there(capsys):
    from streamapp.cli.app import main

    for line in ROUTES.blocks("console")[0].splitlines():
        words = line.split()
        assert main([*words[1:4], "--help"]) == 0
        said = capsys.readouterr().out
        assert all(word in said for word in words if word.startswith("--"))


def test_the_defaults_of_the_page():
    spec = RouteSpec(task="classify", models=["a"])
    for name in ("failures_max", "cool_down_s", "ahead_events"):
        assert f"`{name}` ({getattr(spec, name):g})" in ROUTES
    assert spec.exhausted == "wait"
    assert f"p < {SRM_P_MIN}" in ROUTES
    assert CHARS_PER_TOKEN > 1
    assert "streamapp_route_answers_total" in ROUTES
    assert "streamapp_route_shadows_total" in ROUTES


def test_routes_and_scopes_of_the_gateway():
    rows = re.findall(r"^\| (.+?) \| (\S+) \|", SERVED, re.MULTILINE)[1:]
    checked = 0
    for paths, scope in rows:
        if "`" not in paths:
            continue
        method = re.search(r"GET|POST", paths)[0]
        for path in re.findall(r"/v2[^`]*", paths):
            for each in {path.replace("[", "").replace("]", ""), re.sub(r"\[.*?\]", "", path)}:
                assert rule(method, each).verb is Verb(scope.strip("`")), each
                checked += 1
    assert checked == 10


async def test_the_request_of_the_page_is_answered(tmp_path):
    from gateway_thread import GatewayThread

    registry = registry_of(tmp_path, pull=("tensor/double@2",))
    body = msgspec.json.decode(SERVED.blocks("json")[0])
    with GatewayThread(models=lambda: registry) as gateway:
        import aiohttp

        async with aiohttp.ClientSession() as http:
            url = f"{gateway.url}/v2/models/tensor/double/infer"
            async with http.post(url, json=body) as answer:
                assert (await answer.json())["outputs"][0]["data"] == [3.0, 6.0, 9.0, 12.0]
    assert f"at most {hosted.BATCH_ROWS_MAX} rows" in SERVED
    assert JSON_LENGTH in SERVED
    assert "models_bytes_max" in Settings.__dataclass_fields__
    assert "`models_bytes_max`" in SERVED
