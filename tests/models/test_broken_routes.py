"""A wrong routes.toml: each part of it is refused to who uses it, by file and line."""

import pytest

from streamapp.core.errors import Refuse
from streamapp.models import Registry
from streamapp.models.places import line_of
from streamapp.models.repository import Repository
from streamapp.models.serving.live import live

#: What is wrong, on which line, what else says so, and how it is used.
GOOD = '[defaults]\nembed = "embed/tiny@1"\n[aliases]\nt = "embed/tiny"\n'
ROUTE = '\n[route.topic]\ntask = "classify"\nmodels = ["classify/x"]\n'
WRONG = {
    "no TOML": ("[aliases", 1, "", "t"),
    "an unknown table": ('[alias]\nx = "embed/tiny"\n', 1, "'alias'", "x"),
    "a default that is no text": ("[defaults]\n\nembed = 3\n", 3, "[defaults] embed", None),
    "a short name that is no text": (f"{GOOD}u = [1]\n", 5, "[aliases] u", "u"),
    "a key that is missing": ('[route."a.b"]\ntask = "head"\n', 1, "'models' is missing", "a.b"),
    "a key of another type": (f"{GOOD}{ROUTE}deadline_ms = 'x'\n", 9, "'deadline_ms'", "topic"),
    "an inner table": (f"{ROUTE}\n[route.topic.guard]\ncalls_min = -1\n", 7, "calls_min", "topic"),
    "an infinite weight": (f"{ROUTE}weights = {{ beta = inf }}\n", 5, "weights.beta", "topic"),
    "an infinite time": (f"{ROUTE}cool_down_s = inf\n", 5, "cool_down_s", "topic"),
    "offsets beyond 64 bits": (f"{ROUTE}ahead_events = {2**63}\n", 5, "ahead_events", "topic"),
    "more calls than are remembered": (f"{ROUTE}guard.calls_min = 257\n", 5, "<= 256", "topic"),
    "a contradiction": (f"{ROUTE}ensemble = 'vote'\n", 2, "ensemble of one model", "topic"),
    "a model that is not there": (f"{GOOD}{ROUTE}", 6, "no model is called", "topic"),
}


def registry_of(shelf, text):
    (shelf.models_dir / "routes.toml").write_text(text)
    return shelf.registry()


def use(registry, name):
    return registry.manifest() if name is None else registry.router(name)


@pytest.mark.parametrize(("text", "line", "says", "name"), WRONG.values(), ids=WRONG)
def test_who_uses_it_is_told_where_it_is(stocked, text, line, says, name):
    registry = registry_of(stocked, text)
    assert registry.manifest("embed/tiny@1").version == 1  # who names a model needs no routes
    assert [each.full_name for each in registry.list()] == ["embed/tiny@1"]
    with pytest.raises(Refuse) as caught:
        use(registry, name)
    assert f"{stocked.models_dir / 'routes.toml'}:{line}" in caught.value.message
    assert says in caught.value.message
    assert caught.value.fix


def test_the_rest_of_the_file_holds(stocked):
    registry = registry_of(stocked, f"{GOOD}u = 7\n{ROUTE}deadline_ms = 'x'\n[route.good]\n"
                           'task = "entities"\nmodels = ["entities/x"]\n')  # fmt: skip
    assert registry.manifest().full_name == registry.manifest("t").full_name == "embed/tiny@1"
    assert [*registry.catalogue.routes.route] == ["good"]
    assert {*registry.catalogue.broken} == {"short name u", "route topic"}


def test_what_the_first_folder_says_wrongly_is_not_taken_from_the_next(stocked, tmp_path):
    own = tmp_path / "own"
    own.mkdir()

    def registry(text):
        (own / "routes.toml").write_text(text)
        return Registry([own, stocked.models_dir], stocked.cache)

    assert registry('[aliases]\nt = "embed/tiny@1"\n').manifest().version == 1
    assert registry("[aliases]\nt = 3\n").manifest().version == 1  # of the default it says nothing
    for text in ("[aliases]\nt = 3\n", "nonsense"):
        with pytest.raises(Refuse, match="own/routes.toml:"):
            registry(text).manifest("t")
    with pytest.raises(Refuse, match="own/routes.toml:1"):
        registry("nonsense").manifest()


def test_a_process_that_runs_keeps_what_it_had(stocked, caplog):
    registry = registry_of(stocked, f"{GOOD}{ROUTE}")
    topic = registry.catalogue.routes.route["topic"]
    for text in ("nonsense", f"{GOOD}\n[route.topic]\ntask = 3\n", "[aliases]\nt = 3\n"):
        caplog.clear()
        (stocked.models_dir / "routes.toml").write_text(text)
        assert registry.refresh()
        assert "stays as it was" in caplog.text
        assert registry.manifest("t").full_name == "embed/tiny@1"
        if "defaults" in text or text == "nonsense":
            assert registry.manifest().full_name == "embed/tiny@1"
            assert registry.catalogue.routes.route["topic"] == topic
    (stocked.models_dir / "routes.toml").write_text(GOOD)
    assert registry.refresh()
    assert not registry.catalogue.broken
    assert not registry.catalogue.routes.route


def test_a_process_that_starts_says_so(stocked, caplog):
    live(registry_of(stocked, f"{GOOD}u = 7\n"))
    assert "routes.toml:5" in caplog.text


def test_nothing_is_removed_while_routes_cannot_be_read(stocked):
    registry = registry_of(stocked, "[aliases")
    with pytest.raises(Refuse, match="routes.toml:1"):
        Repository(registry, stocked.models_dir).remove("embed/tiny@1")
    removed = Repository(registry, stocked.models_dir).remove("embed/tiny@1", force=True)
    assert removed == [stocked.manifest_path.parent]


@pytest.mark.parametrize(
    ("keys", "line"),
    [((), 1), (("a",), 2), (("a", "b"), 3), (("t.u", "c"), 5), (("t.u", "v", "d"), 7), (("t.u", "v", "z"), 6),
     (("list", "x"), 9), (("list",), 8), (("none",), 1)],
)  # fmt: skip
def test_lines_of_keys(keys, line):
    text = "# a = 1\n[a]\nb = 2\n[ 't.u' ] # x\nc = 1\n[\"t.u\".v]\n d  = 3\n[[list]]\nx = 1\n"
    assert line_of(text, keys) == line
