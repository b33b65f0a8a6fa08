"""Heads: what is learnt, what the threshold is worth, and what lies in the folder afterwards."""

import math
import re

import numpy as np
import onnx
import pytest

from streamapp.core.errors import Refuse
from streamapp.models import Registry
from streamapp.models.declaration import read_manifest
from streamapp.models.heads.calibration import (
    UNKNOWN,
    calibrate,
    judge,
    judge_across,
    shares_of,
    temperature_of,
    threshold_of,
)
from streamapp.models.heads.examples import groups_of
from streamapp.models.heads.files import Origin, graph_of, placed, write_head
from streamapp.models.heads.logistic import Linear, fit, minimise, softmax
from streamapp.models.heads.training import centroids, deal, train

DIM = 12
ORIGIN = Origin("embed/tiny@1", "a" * 64, "rows.csv, 90 rows", "b" * 64, "2026-01-01T00:00:00Z")


def blobs(per_label=30, labels=3, spread=0.25, seed=0, strangers=0):
    """Unit vectors around a direction for each label, and some around none."""
    chance = np.random.default_rng(seed)
    middles = np.random.default_rng(99).standard_normal((labels, DIM))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    rows = np.repeat(middles, per_label, axis=0)
    rows = np.concatenate([rows, np.zeros((strangers, DIM))])
    names = [f"label {n}" for n in range(labels) for _ in range(per_label)] + [None] * strangers
    vectors = rows + spread * chance.standard_normal(rows.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), names


def places_of(names, labels):
    return np.array([UNKNOWN if name is None else labels.index(name) for name in names])


@pytest.fixture(scope="module")
def head():
    return train(*blobs(strangers=20), precision=0.9)


class TestLogistic:
    def test_the_gradient_is_nothing_where_it_stops(self):
        vectors, names = blobs(spread=0.6)
        places = places_of(names, sorted(set(names)))
        found = fit(vectors, places, 3, penalty=0.01)
        mean, deviation = vectors.mean(axis=0), vectors.std(axis=0) + np.float32(1e-4)
        columns = ((vectors - mean) / deviation).astype(np.float64)
        weight = found.weight * deviation
        shares = softmax(found.scores(vectors)).astype(np.float64)
        shares[np.arange(len(places)), places] -= 1
        assert np.abs(shares.T @ columns / len(columns) + 0.01 * weight).max() < 2e-4
        assert np.abs(shares.mean(axis=0)).max() < 2e-4

    def test_a_column_that_never_varies_does_no_harm(self):
        vectors, names = blobs()
        vectors[:, 3] = 0.5
        places = places_of(names, sorted(set(names)))
        found = fit(vectors, places, 3, penalty=0.01)
        assert np.isfinite(found.weight).all()
        assert (found.scores(vectors).argmax(axis=1) == places).mean() > 0.95
        moved = vectors.copy()
        moved[:, 3] = 0.7  # it says nothing about the label, so it changes nothing
        assert np.allclose(found.scores(moved), found.scores(vectors), atol=1e-3)

    def test_where_a_bowl_is_lowest(self):
        curve = np.array([1.0, 10.0, 1000.0])
        bowl = lambda x: (float(((x - 3) ** 2 * curve).sum()), 2 * (x - 3) * curve)  # noqa: E731
        assert minimise(bowl, np.zeros(3)) == pytest.approx([3, 3, 3], abs=1e-4)

    def test_centroids_are_the_directions_of_the_means(self):
        vectors = np.eye(3, dtype=np.float32)[[0, 1, 0, 2]]
        found = centroids(vectors, np.array([0, 0, 1, 1]), 2)
        assert found.weight == pytest.approx(np.array([[1, 1, 0], [1, 0, 1]]) / math.sqrt(2))
        assert not found.bias.any()


class TestCalibration:
    def test_a_temperature_undoes_what_scaled_the_scores(self):
        chance = np.random.default_rng(1)
        scores = 2 * chance.standard_normal((4000, 5)).astype(np.float32)
        places = np.array([chance.choice(5, p=row / row.sum()) for row in softmax(scores)])
        assert temperature_of(scores, places) == pytest.approx(1, rel=0.1)
        assert temperature_of(scores * 50, places) == pytest.approx(50, rel=0.1)
        assert temperature_of(scores / 50, places) == pytest.approx(0.02, rel=0.1)

    def test_the_threshold_is_the_lowest_that_is_precise_enough(self):
        sure = np.array([0.99, 0.9, 0.8, 0.7, 0.6], np.float32)
        shares = np.stack([sure, 1 - sure], axis=1)
        truth = np.array([0, 0, 1, 0, 1])
        assert threshold_of(shares, truth, 1.0) == pytest.approx(0.9)
        assert threshold_of(shares[:1], truth[:1], 1.0) == pytest.approx(0.99)
        assert threshold_of(shares, truth, 0.75) == pytest.approx(0.7)
        assert threshold_of(shares, truth, 0.6) == pytest.approx(0.6)
        assert threshold_of(shares, 1 - truth, 0.9) is None

    def test_rows_of_one_probability_are_answered_together(self):
        shares = np.full((4, 2), 0.5, np.float32)
        shares[:, 0] += 0.25
        assert threshold_of(shares, np.array([0, 0, 1, 1]), 0.9) is None
        assert threshold_of(shares, np.array([0, 0, 1, 1]), 0.5) == pytest.approx(0.75)

    def test_an_answer_to_what_has_no_label_is_wrong(self):
        shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], np.float32)
        found = judge(shares, np.array([0, UNKNOWN, 1]), 0.75)
        assert (found.examples, found.accuracy, found.coverage) == (3, 0.5, 0.5)
        assert (found.precision, found.refused) == (0.5, 0)
        assert math.isnan(judge(shares, np.array([0, 0, 1]), 0.95).precision)

    def test_no_row_is_judged_by_its_own_threshold(self):
        """Each part is as sure as the other is wrong: a threshold of one's own would look good."""
        sure = np.array([3.0, 2, 1, 3, 2, 1], np.float32)
        scores = np.stack([sure, -sure], axis=1)
        places = np.array([0, 0, 1, 1, 0, 0])
        parts = np.array([0, 0, 0, 1, 1, 1])
        own = calibrate(scores[:3], places[:3], 1.0)
        assert judge(shares_of(scores[:3], own.temperature), places[:3], own.threshold)[3] == 1
        assert judge_across(scores, places, parts, 1.0) is None  # the other part's reaches nothing


class TestTraining:
    @pytest.mark.parametrize("kind", ["linear", "prototypes"])
    def test_what_was_measured_holds_for_others(self, kind):
        head = train(*blobs(60, spread=0.4), kind, precision=0.95)
        vectors, names = blobs(200, spread=0.4, seed=5)
        shares = shares_of(head.linear.scores(vectors), head.temperature)
        found = judge(shares, places_of(names, head.labels), head.threshold)
        assert found.precision > 0.9
        assert found.coverage == pytest.approx(head.measured.coverage, abs=0.1)
        assert found.accuracy == pytest.approx(head.measured.accuracy, abs=0.06)

    def test_strangers_teach_it_where_to_say_unknown(self):
        naive = train(*blobs(60, spread=0.3), precision=0.95)
        taught = train(*blobs(60, spread=0.3, strangers=60), precision=0.95)
        vectors, names = blobs(100, spread=0.3, seed=5, strangers=100)
        truth = places_of(names, taught.labels)
        found = [
            judge(shares_of(h.linear.scores(vectors), h.temperature), truth, h.threshold)
            for h in (naive, taught)
        ]
        assert found[0].refused < 0.7 < found[1].refused
        assert found[0].precision < 0.9 <= found[1].precision

    def test_the_same_examples_make_the_same_head(self):
        first, again = (train(*blobs(10), seed=3, precision=0.5) for _ in range(2))
        assert np.array_equal(first.linear.weight, again.linear.weight)
        assert first[3:5] == again[3:5]
        assert first.measured == pytest.approx(again.measured, nan_ok=True)

    def test_every_fold_has_seen_every_label(self):
        places = np.repeat(np.arange(4), [2, 3, 7, 100])
        folds = deal(places, np.arange(112), 0)
        assert set(folds) == set(range(5))
        for fold in range(5):
            assert set(places[folds != fold]) == {0, 1, 2, 3}

    def test_what_is_repeated_is_in_one_fold_and_folds_stay_alike(self):
        chance = np.random.default_rng(0)
        groups = chance.permutation(np.repeat(np.arange(60), chance.integers(1, 5, 60)))
        places = groups % 3 + UNKNOWN  # one of the three is unknown
        folds = deal(places, groups, 7)
        for group in range(60):
            assert len(set(folds[groups == group])) == 1
        for place in (UNKNOWN, 0, 1):
            counts = np.bincount(folds[places == place], minlength=5)
            assert np.ptp(counts) <= 2, counts
        assert np.array_equal(folds, deal(places, groups, 7))
        assert not np.array_equal(folds, deal(places, groups, 8))

    def test_a_text_of_two_labels_is_in_one_fold_and_leaves_no_label_unseen(self):
        """Labels 0 and 1 share a text, so do 0 and 2; 3 has many texts, one of them is of 1 too."""
        groups = np.array([0, 0, 1, 1, 2, 3, 4, 4, *range(5, 30)])
        places = np.array([0, 1, 0, 2, 1, 2, 3, 1, *[3] * 25])
        for seed in range(20):
            folds = deal(places, groups, seed)
            assert set(folds) == set(range(5))
            assert all(len(set(folds[groups == group])) == 1 for group in range(30))
            for fold in range(5):
                assert set(places[folds != fold]) == {0, 1, 2, 3}

    @pytest.mark.parametrize("kind", ["linear", "prototypes"])
    def test_a_repeat_is_not_measured_by_what_learnt_it(self, kind):
        """There is nothing to learn: who is right more often than by chance remembers."""
        vectors = np.random.default_rng(0).standard_normal((60, 64)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        groups = np.tile(np.arange(60), 4)
        labels = ["a", "b"] * 120
        remembered = train(vectors[groups], labels, kind, precision=0.3)
        honest = train(vectors[groups], labels, kind, precision=0.3, groups=groups)
        assert remembered.measured.accuracy > 0.8
        assert honest.measured.accuracy < 0.7

    @pytest.mark.parametrize("kind", ["linear", "prototypes"])
    def test_a_file_twice_over_is_worth_what_it_is_once(self, kind):
        vectors, names = blobs(10, spread=0.6, strangers=10)
        twice = np.tile(np.arange(len(names)), 2)
        once = train(vectors, names, kind, precision=0.5)
        again = train(vectors[twice], names * 2, kind, precision=0.5, groups=twice)
        assert again.measured.accuracy == once.measured.accuracy
        assert np.allclose(again.linear.weight, once.linear.weight, atol=1e-2)

    def test_texts_that_look_alike_to_an_encoder_are_one(self):
        texts = ["Hello  there", "bye", " hello there\n", "ﬁne", "fine", "hello there!", "BYE"]
        assert groups_of(texts).tolist() == [0, 1, 0, 2, 2, 3, 1]

    @pytest.mark.parametrize(
        ("labels", "why"),
        [
            (["a", "a"], "1 label "),
            (["a", "a", "b", None], "one text only of 'b'"),
            ([str(n) for n in range(10_001)] * 2, "10,001 labels"),
        ],
    )
    def test_too_little_to_learn_from(self, labels, why):
        with pytest.raises(Refuse, match=why) as caught:
            train(np.zeros((len(labels), 4), np.float32), labels)
        assert caught.value.fix

    def test_a_text_that_is_repeated_is_one(self):
        vectors = np.zeros((6, 4), np.float32)
        with pytest.raises(Refuse, match="one text only of 'b'") as caught:
            train(vectors, [*"aabbb", None], groups=np.array([0, 1, 2, 2, 2, 3]))
        assert "two different texts" in caught.value.fix

    def test_where_nothing_is_within_reach_none_is_named(self):
        vectors = np.random.default_rng(0).standard_normal((100, DIM)).astype(np.float32)
        with pytest.raises(Refuse, match="no threshold makes 99.9% of the answers") as caught:
            train(vectors, [str(at) for at in range(50)] * 2, precision=0.999)
        assert "--precision" not in caught.value.fix
        assert "examples" in caught.value.fix

    def test_a_precision_out_of_reach_names_one_within(self):
        chance = np.random.default_rng(0)
        vectors = chance.standard_normal((60, DIM)).astype(np.float32)
        with pytest.raises(Refuse, match="no threshold makes 99% of the answers") as caught:
            train(vectors, ["a", "b"] * 30, precision=0.99)
        [within] = re.findall(r"--precision (0\.\d+)", caught.value.fix)
        assert train(vectors, ["a", "b"] * 30, precision=float(within)).measured.coverage > 0

    def test_labels_that_are_easily_told_apart_leave_room_for_doubt(self):
        """Were every probability 1, strangers could not be told from the others by it."""
        head = train(*blobs(20, spread=0.05, strangers=20), precision=0.9)
        assert head.measured.accuracy == 1
        assert head.measured.refused > 0.5


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path, head):
        folder = tmp_path / "models/head/three/1"
        write_head(folder, head, ORIGIN)
        return folder

    def test_the_manifest_says_what_was_measured(self, folder, head):
        manifest = read_manifest(folder / "manifest.toml")
        assert manifest.full_name == "head/three@1"
        assert manifest.labels == list(head.labels)
        assert manifest.threshold == head.threshold
        assert manifest.embedder == "embed/tiny@1"
        assert manifest.lineage.parent == f"embed/tiny@1+{'a' * 64}"
        assert manifest.lineage.source_sha256 == "b" * 64
        for name in ("accuracy", "coverage", "precision", "refused"):
            assert manifest.measured[name] == pytest.approx(getattr(head.measured, name), abs=1e-4)

    def test_it_is_pulled_opened_and_gives_what_was_trained(self, folder, head, tmp_path):
        registry = Registry(folder.parents[2], tmp_path / "cache", threads=1)
        assert registry.labels("head/three") == head.labels
        with pytest.raises(Refuse, match="is not in"):
            registry.classifier("head/three")
        assert registry.pull("head/three").pulled
        found = registry.classifier("head/three")
        assert found is registry.classifier("head/three@1")
        assert (found.labels, found.threshold) == (head.labels, head.threshold)
        vectors, _ = blobs(20)
        vectors[3] = np.nan
        given = found.classify(vectors)
        assert np.isnan(given[3]).all()
        vectors[3], given[3] = 0, shares_of(head.linear.bias[None], head.temperature)
        assert np.allclose(
            given, shares_of(head.linear.scores(vectors), head.temperature), atol=1e-6
        )

    def test_a_row_does_not_depend_on_its_neighbours(self, folder, tmp_path):
        registry = Registry(folder.parents[2], tmp_path / "cache", threads=1)
        registry.pull("head/three")
        found, (vectors, _) = registry.classifier("head/three"), blobs(20)
        alone = np.concatenate([found.classify(row[None]) for row in vectors])
        assert np.allclose(found.classify(vectors), alone, atol=1e-6)

    def test_a_version_does_not_change(self, folder, head):
        before = (folder / "manifest.toml").read_bytes()
        with pytest.raises(Refuse, match="a version does not change") as caught:
            write_head(folder, head, ORIGIN)
        assert "three/2" in caught.value.fix
        assert (folder / "manifest.toml").read_bytes() == before

    @pytest.mark.parametrize("place", ["three/1", "head/three", "embed/three/1", "head/three/0"])
    def test_a_head_lies_where_heads_lie(self, tmp_path, place):
        with pytest.raises(Refuse, match="MODELS/head/NAME/VERSION"):
            placed(tmp_path / place)

    def test_nothing_is_left_of_one_that_cannot_be(self, tmp_path, head):
        models = tmp_path / "models"
        with pytest.raises(Refuse, match="'name' must be lower-case letters"):
            write_head(models / "head/Not A Name/1", head, ORIGIN)
        assert not list(models.rglob("*.onnx"))
        assert not list(models.glob(".*"))

    def test_the_graph_is_whole(self, head):
        model = onnx.load_from_string(graph_of(head))
        onnx.checker.check_model(model, full_check=True)
        assert graph_of(head) == graph_of(head)

    def test_one_written_over_is_noticed(self, folder, head, tmp_path):
        other = head._replace(linear=Linear(-head.linear.weight, head.linear.bias))
        (folder / "head.onnx").write_bytes(graph_of(other))
        registry = Registry(folder.parents[2], tmp_path / "cache", threads=1)
        with pytest.raises(Refuse, match="sha256"):
            registry.pull("head/three")
        assert not list((tmp_path / "cache").rglob("*.onnx"))
