"""Routes of routes.toml over real models: what manifests say counts, and swaps are followed."""

from threading import Event, current_thread, main_thread

import pytest
from classifier_files import Classifiers

from streamapp.core.errors import Refuse, Retry
from streamapp.core.metrics import Metrics
from streamapp.models.aliases import promote
from streamapp.models.serving.live import Live
from streamapp.stages.classify import Classify
from streamapp.testing.clock import FakeClock
from streamapp.testing.pipeline import Pipeline

ROUTE = """
[route.mood]
task = "classify"
models = [{models}]
ahead_events = 0
"""
OPTIONS = {"classify": {"columns": {"mood": "mood"}}}


@pytest.fixture
def files(tmp_path):
    return Classifiers(tmp_path).route("")


def routed(files, *models, more=""):
    names = ", ".join(f'"{name}"' for name in models)
    return files.route(ROUTE.format(models=names) + more)


def worker(models):
    return Pipeline(models=models).use(Classify, **OPTIONS)


def test_the_manifest_s_figures_choose(files):
    files.add("one", says="good", accuracy=0.6).add("two", says="bad", accuracy=0.9)
    routed(files, "classify/one", "classify/two")
    [row] = worker(files.registry()).send("a b c")
    assert row["mood"] == "bad"
    assert row["mood_route"]["model"] == "classify/two@1"
    assert row["mood_route"]["accuracy"] == pytest.approx(0.9)


def test_routes_toml_goes_before_the_manifest(files):
    files.add("one", says="good", accuracy=0.6).add("two", says="bad", accuracy=0.9)
    facts = '[route.mood.facts."classify/two"]\naccuracy = 0.1\n'
    routed(files, "classify/one", "classify/two", more=facts)
    assert worker(files.registry()).send("a")[0]["mood"] == "good"


@pytest.mark.parametrize("accuracy", ["nan", "7", '"high"', "[1]"])
def test_a_figure_of_the_manifest_that_is_none_is_named(files, accuracy):
    files.add("one").add("two", accuracy=accuracy)
    routed(files, "classify/one", "classify/two")
    with pytest.raises(Refuse, match=r"classify/two@1 \[measured\]: 'accuracy' ") as caught:
        worker(files.registry())
    assert "[route.NAME.facts]" in caught.value.fix
    routed(
        files, "classify/one", "classify/two", more="facts = {'classify/two' = {accuracy = 0.1}}"
    )
    assert len(worker(files.registry()).send("a")) == 1


def test_a_text_beyond_the_window_goes_to_whom_it_fits(files):
    files.add("one", accuracy=0.9).add("two", says="bad")
    wide = '[route.mood.facts."classify/two"]\nchars_max = 1000\n'
    routed(files, "classify/one", "classify/two", more=wide)
    short, long = worker(files.registry()).send("a", "a " * 40)
    assert (short["mood"], long["mood"]) == ("good", "bad")


def test_a_model_s_name_is_a_route_of_it(files):
    files.add("one")
    options = {"classify": {"columns": {"mood": "classify/one"}}}
    [row] = Pipeline(models=files.registry()).use(Classify, **options).send("a")
    assert (row["mood"], row["mood_route"]["why"]) == ("good", "score")


def test_an_alias_that_is_promoted_answers_from_one_event_on(files):
    files.add("one", 1, "good").add("one", 2, "bad")
    folder = files.models_dir / "classify" / "one"
    promote(folder, "champion", 1)
    routed(files, "classify/one@champion")
    clock, metrics = FakeClock(), Metrics()
    live = Live(files.registry(), metrics, clock=clock)
    pipeline = worker(live)
    assert pipeline.send("a")[0]["mood"] == "good"
    promote(folder, "champion", 2)
    clock.advance(2)
    live.turn()
    for _, opening in live._opening.values():
        opening.result(30)
    live.turn()
    found = [pipeline.send("a")[0] for _ in range(2)]
    assert [row["mood"] for row in found] == ["bad", "bad"]
    assert [row["mood_route"]["model"] for row in found] == ["classify/one@2"] * 2
    assert [row["mood_route"]["epoch"] for row in pipeline.rows()] == [1, 2, 2]
    counted = metrics.route_answers.labels("mood", "classify/one@champion", "score")
    assert counted._value.get() == 3
    live.close()


def turned(live, clock):
    """A look at the files, and what is being opened is open."""
    clock.advance(20)
    live.turn()


def test_a_route_that_is_edited_is_followed_and_a_wrong_one_is_not(files):
    files.add("one", says="good").add("two", says="bad").add("far", pull=False)
    routed(files, "classify/one")
    clock = FakeClock()
    live = Live(files.registry(), clock=clock)
    pipeline = worker(live)
    assert pipeline.send("a")[0]["mood"] == "good"
    for models, mood in ((["classify/two"], "bad"), (["classify/far"], "bad"), (["?"], "bad")):
        routed(files, *models)
        turned(live, clock)
        pipeline.send("a")  # the models are being opened meanwhile
        for opening in list(live._prepared.values()):
            opening.exception(30)
        assert pipeline.send("a")[0]["mood"] == mood
    assert pipeline.rejects() == []
    routed(files, "classify/one", "classify/two", more='[route.mood.split]\n"classify/two" = 100\n')
    turned(live, clock)
    assert pipeline.send("a")[0]["mood_route"]["why"] == "split"
    live.close()


def test_a_model_that_is_new_to_a_route_is_opened_while_others_answer(files, monkeypatch):
    files.add("one", says="good").add("two", says="bad")
    routed(files, "classify/one")
    clock, registry, threads, held = FakeClock(), files.registry(), [], Event()
    open_ = registry.classifier

    def classifier(name):
        threads.append((name, current_thread() is main_thread()))
        assert name == "classify/one" or held.wait(30)
        return open_(name)

    monkeypatch.setattr(registry, "classifier", classifier)
    live = Live(registry, clock=clock)
    pipeline = worker(live)
    pipeline.send("a")
    routed(files, "classify/two")
    turned(live, clock)
    assert [pipeline.send("a")[0]["mood"] for _ in range(3)] == ["good"] * 3
    held.set()
    live._prepared["classifier", "classify/two"].result(30)
    assert pipeline.send("a")[0]["mood"] == "bad"
    assert ("classify/two", False) in threads
    live.close()


def test_a_shadow_that_cannot_be_opened_is_opened_beside_those_that_answer(files, monkeypatch):
    files.add("one", says="good").add("two", says="bad")
    routed(files, "classify/one", more='shadow = "classify/two"\nshadow_wait_ms_max = 60000\n')
    clock, registry, threads, away = FakeClock(), files.registry(), [], [True]
    open_ = registry.classifier

    def classifier(name):
        if name == "classify/two":
            threads.append(current_thread() is main_thread())
            if away:
                raise Retry("models.remote", "it does not answer")
        return open_(name)

    monkeypatch.setattr(registry, "classifier", classifier)
    live = Live(registry, clock=clock)
    pipeline = worker(live)
    assert pipeline.send("a")[0]["mood_route"]["shadow_model"] is None
    assert threads == [True]  # at the start there is nobody who waits

    def later():
        clock.advance(31)
        [row] = pipeline.send("a")
        if (opening := live._prepared.get(("classifier", "classify/two"))) is not None:
            opening.exception(30)
            [row] = pipeline.send("a")
        return row

    assert [later()["mood"] for _ in range(2)] == ["good"] * 2
    assert threads == [True, False, False]
    away.clear()
    assert later()["mood_route"]["shadow"] == "bad"
    assert threads[3] is False
    live.close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[route.mood]\ntask = "classify"\nmodels = ["classify/none"]\n', "no model is called"),
        ('[route.mood]\ntask = "head"\nmodels = ["classify/one"]\n', "not for head"),
        ('[route.mood]\ntask = "embed"\nmodels = ["classify/one"]\n', "task"),
        (
            '[route.mood]\ntask = "classify"\nmodels = ["classify/one"]\ndeadline_ms = 0\n',
            "deadline",
        ),
        ('[route.mood]\ntask = "classify"\nmodels = ["classify/far"]\n', "is not in"),
        ("", "no model is called 'mood'"),
    ],
)
def test_a_wrong_route_does_not_start(files, text, why):
    files.add("one").add("far", pull=False)
    files.route(text)
    with pytest.raises(Refuse, match=why) as caught:
        worker(files.registry())
    assert caught.value.fix
