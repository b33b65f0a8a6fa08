"""BGE-M3 in the stage ``embed``: pulled, opened, its weights of tokens stored and compared in SQL."""

import pytest
from shelves import Shelf
from sinks import DuckSink, ParquetSink, event, record
from tiny_bge_m3 import DIM, weights, write_graph, write_tokenizer

from streamapp.models.manifest import EmbedManifest, SparseSpec
from streamapp.plugin import Refuse
from streamapp.plugin.testing import HashModels, batch_of
from streamapp.stages.embed import Embed

TEXTS = ["where is my parcel", None, "my parcel was sent on monday", "refund now"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bge")
    write_graph(folder / "model.onnx", weights(), "vecs")
    write_tokenizer(folder / "tokenizer.json")
    shelf = Shelf(folder)
    manifest = EmbedManifest(
        name="bge-m3", version=1, about="", licence="MIT", model="model.onnx",
        tokenizer="tokenizer.json", dim=DIM, batch_invariant=True, tokens_max=64,
        sparse=SparseSpec(output="sparse_vecs"),
        inputs={"input_ids": "int64[n,t]", "attention_mask": "int64[n,t]"},
        outputs={"dense_vecs": "float32[n,1024]", "sparse_vecs": "float32[n,t,1]"},
    )  # fmt: skip
    return shelf.registry(shelf.put(manifest, folder, "model.onnx", "tokenizer.json"))


def columns_of(models, texts, **options):
    stage = Embed({"model": "embed/bge-m3", **options})
    stage.declare(models)
    stage.open(models)
    columns = stage.enrich(batch_of(text=texts))
    assert {name: array.type for name, array in columns.items()} == stage.writes
    return columns


def test_both_are_written(models):
    columns = columns_of(models, TEXTS, sparse=True)
    assert columns["embedding"].type.list_size == DIM
    dense = columns_of(models, TEXTS)
    assert list(dense) == ["embedding", "truncated"]
    assert columns["embedding"].equals(dense["embedding"])
    one, missing, *_ = columns["sparse"].to_pylist()
    assert missing is None
    assert {weight["token"] for weight in one} <= {f"▁{word}" for word in TEXTS[0].split()}
    assert all(weight["weight"] > 0 for weight in one)


def test_the_heaviest_tokens_stay_in_the_order_of_the_text(models):
    [every] = columns_of(models, TEXTS[2:3], sparse=True)["sparse"].to_pylist()
    assert len(every) > 2
    [two] = columns_of(models, TEXTS[2:3], sparse=True, sparse_max=2)["sparse"].to_pylist()
    least = sorted(one["weight"] for one in every)[-2]
    assert two == [one for one in every if one["weight"] >= least]


def test_a_model_that_weighs_nothing_is_refused():
    models = HashModels()
    stage = Embed({"sparse": True})
    stage.declare(models)
    with pytest.raises(Refuse, match="hashed-words.* weighs no tokens"):
        stage.open(models)
    with pytest.raises(Refuse, match="sparse_max"):
        Embed({"sparse_max": 0})


@pytest.mark.parametrize("sink", [DuckSink, lambda folder: ParquetSink(str(folder / "p"))])
def test_texts_are_compared_by_their_words_in_sql(models, tmp_path, sink):
    columns = columns_of(models, TEXTS, sparse=True)
    rows = [event(offset, text=text) for offset, text in enumerate(TEXTS)]
    with sink(tmp_path).open(columns={"sparse": columns["sparse"].type}) as store:
        store.write([record(0, 4, rows, extra={"sparse": columns["sparse"]})])
        with store.reader() as reader:
            found = reader.execute(
                "with w as (select id, unnest(sparse) as s from events), "
                "q as (select s.token, s.weight from w where id = 'id-0') "
                "select id, sum(w.s.weight * q.weight) as alike from w join q on w.s.token = q.token "
                "where id <> 'id-0' group by id order by alike desc"
            ).fetchall()
    first, _, third, _ = (
        {w["token"]: w["weight"] for w in one or ()} for one in columns["sparse"].to_pylist()
    )
    expected = sum(first.get(token, 0) * third.get(token, 0) for token in ("▁my", "▁parcel"))
    assert expected > 0
    assert found == [("id-2", pytest.approx(expected, rel=1e-4))]
