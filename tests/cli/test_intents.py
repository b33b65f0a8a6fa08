"""``streamapp intents``: from a file of examples to answers, and what a wrong file gets."""

import json
import tomllib

import pytest
import word_vectors

from streamapp.models.session_embedder import SessionEmbedder

TOPICS = {
    "cancel": ["cancel my plan", "end my plan now", "stop the plan please", "cancel it"],
    "refund": ["my money back", "refund the money", "i want a refund", "give money back now"],
    "greeting": ["hello there", "good morning", "hello good people", "a good morning to you"],
}
STRANGERS = ["blue whales sing", "seven by nine", "rain in spain", "red brick wall"]


def rows(times=5, strangers=True):
    """Each text several times with words that say nothing."""
    found = [(text, label) for label, texts in TOPICS.items() for text in texts]
    found += [(text, "unknown") for text in STRANGERS if strangers]
    return [(f"{text} {'x' * n}", label) for n in range(times) for text, label in found]


def write(path, pairs, heads=("text", "label")):
    path.write_text("".join(f'"{a}","{b}"\n' for a, b in [heads, *pairs]))
    return path


@pytest.fixture
def intents(run, clean):
    """``streamapp intents VERB ...`` with models of words in ./models."""
    word_vectors.repository(clean / "models")
    return lambda verb, *arguments: run("intents", verb, *arguments, "--models-dir", "models")


@pytest.fixture
def trained(intents, clean):
    """What training on ./examples.csv said."""
    write(clean / "examples.csv", rows())
    arguments = ("examples.csv", "--out", "models/head/support/1", "--precision", "0.9")
    return intents("train", *arguments, "--json")


def test_from_examples_to_answers(intents, trained, run, clean):
    assert trained.code == 0, trained.err
    said = trained.json
    assert (said["model"], said["labels"]) == ("head/support@1", 3)
    assert said["measured"]["examples"] == len(rows())
    manifest = tomllib.loads((clean / "models/head/support/1/manifest.toml").read_text())
    assert manifest["embedder"] == "embed/words@1"
    assert manifest["labels"] == sorted(TOPICS)
    assert manifest["measured"]["precision"] >= 0.85
    assert run("models", "pull", "head/support", "--models-dir", "models").code == 0
    write(clean / "test.csv", rows(times=2))
    found = intents("eval", "test.csv", "--head", "head/support", "--json").json
    assert found["examples"] == 2 * len(rows()) / 5
    assert found["precision"] >= 0.8
    assert found["refused"] >= 0.5
    assert {one["label"] for one in found["labels"]} == set(TOPICS)


def test_what_people_read(intents, trained, run, clean):
    text = intents("train", "examples.csv", "--out", "models/head/again/1").out
    for words in ("wrote models/head/again/1: 3 labels", "right of the answered", "unknown kept"):
        assert words in text
    assert "streamapp models pull head/again@1" in text
    assert '[stages.intent]\n  head = "head/again"\n' in text
    assert "model =" not in text
    assert "move it there" not in text
    elsewhere = intents("train", "examples.csv", "--out", "heads/head/again/1").out
    assert f"models are looked for in {clean / 'models'}: move it there" in elsewhere
    run("models", "pull", "head/again", "--models-dir", "models")
    mistaken = [(text, "refund" if label == "cancel" else label) for text, label in rows(1)]
    write(clean / "test.csv", mistaken)
    shown = intents("eval", "test.csv", "--head", "head/again").out
    assert "right of all" in shown
    assert "mistakes  taken for  times" in shown
    assert "refund" in shown.partition("mistakes")[2]


def test_the_workflow_s_own_intents_are_judged(intents, clean):
    (clean / "topics").mkdir()
    (clean / "topics/workflow.toml").write_text(
        '[workflow]\nstages = ["embed", "intent"]\n[stages.intent.labels]\n'
        'cancel = "cancel my plan"\nrefund = "my money back"\n'
    )
    write(clean / "test.csv", [("cancel my plan", "cancel"), ("my money back", "cancel")])
    found = intents("eval", "test.csv", "--topics-dir", "topics", "--json").json
    assert (found["accuracy"], found["coverage"], found["precision"]) == (0.5, 1, 0.5)
    assert found["refused"] is None
    assert found["mistakes"] == [{"label": "cancel", "intent": "refund", "times": 1}]


def test_a_threshold_for_descriptions(intents, clean):
    (clean / "topics").mkdir()
    (clean / "topics/workflow.toml").write_text(
        '[workflow]\nstages = ["embed", "intent"]\n[stages.intent]\nmargin_min = 1.9\n'
        "[stages.intent.labels]\n"
        + "".join(f"{label} = {json.dumps(texts)}\n" for label, texts in TOPICS.items())
    )
    write(clean / "test.csv", rows())
    arguments = ("test.csv", "--topics-dir", "topics", "--calibrate")
    found = intents("eval", *arguments, "0.85", "--json").json
    assert found["coverage"] == 1  # without any threshold
    assert found["precision"] < 0.8 <= found["threshold"]["precision"]
    shown = intents("eval", *arguments, "0.85").out
    least = shown.partition("confidence_min = ")[2].split()[0]
    assert float(least) == pytest.approx(found["threshold"]["confidence_min"], abs=1e-4)
    write(clean / "wrong.csv", [(text, "other") for text, _ in rows()])
    refused = intents("eval", "wrong.csv", "--topics-dir", "topics", "--calibrate", "0.9")
    assert refused.code == 2
    assert "train a head" in refused.err


def test_examples_are_embedded_as_the_workflow_does_it(intents, clean, monkeypatch):
    (clean / "topics").mkdir()
    (clean / "topics/workflow.toml").write_text(
        '[workflow]\nstages = ["embed"]\n[stages.embed]\nmodel = "embed/words"\nkind = "passage"\n'
    )
    (clean / "models/routes.toml").unlink()  # no default
    kinds = []
    embed = SessionEmbedder.embed
    monkeypatch.setattr(
        SessionEmbedder,
        "embed",
        lambda self, texts, kind="query", out=None: (
            kinds.append(kind) or embed(self, texts, kind, out)
        ),
    )
    write(clean / "examples.csv", rows(strangers=False))
    arguments = ("examples.csv", "--out", "models/head/x/1", "--precision", "0.5")
    done = intents("train", *arguments, "--topics-dir", "topics")
    assert done.code == 0, done.err
    assert set(kinds) == {"passage"}
    assert 'model = "embed/words"' in done.out


def test_prototypes_and_other_columns_and_json_lines(intents, clean):
    lines = [json.dumps({"body": text, "folder": label}) for text, label in rows(strangers=False)]
    (clean / "mails.jsonl").write_text("\n".join(lines))
    done = intents(
        "train", "mails.jsonl", "--out", "models/head/mails/1", "--kind", "prototypes",
        "--text", "body", "--label", "folder", "--precision", "0.5", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    manifest = tomllib.loads((clean / "models/head/mails/1/manifest.toml").read_text())
    assert manifest["kind"] == "prototypes"
    assert done.json["measured"]["refused"] is None


def test_repeats_do_not_make_what_is_measured_better(intents, clean):
    noise = [(f"word{n} again{n}", "ab"[n % 2]) for n in range(40)]
    write(clean / "noise.csv", [*noise, *((f" {text} ", label) for text, label in noise * 3)])
    arguments = ("noise.csv", "--out", "models/head/x/1", "--precision", "0.1", "--json")
    trained = intents("train", *arguments)
    assert trained.code == 0, trained.err
    assert trained.json["measured"]["examples"] == 160
    assert trained.json["measured"]["accuracy"] < 0.7  # there is nothing to learn


def test_a_version_is_not_trained_again(intents, trained):
    assert trained.code == 0, trained.err
    again = intents("train", "examples.csv", "--out", "models/head/support/1")
    assert again.code == 2
    assert "a version does not change" in again.err
    assert "models/head/support/2" in again.err


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", "text,topic\nx,y\n", "no column 'label'; it has text, topic"),
        ("a.csv", "", "it is empty"),
        ("a.csv", "text,label\n", "it has no rows"),
        ("a.csv", "text,label\nx,\n", "line 2 has no 'label'"),
        ("a.csv", "text,label\n,x\n", "line 2 has no 'text'"),
        ("a.csv", "text,label\nhello, you,x\n", "line 2 has 3 fields, the header 2"),
        ("a.csv", "text,label\nx,a\nx,a\n", "the examples have 1 label\n"),
        ("a.csv", "text,label\nx,a\nx,b\n", "one text only of 'a', 'b'"),
        ("a.csv", "text,label\nx,a\ny,a\nz,b\n Z ,b\n", "one text only of 'b'"),
        ("a.xlsx", "", ".xlsx is no kind of file"),
        ("a.jsonl", "{]\n", "line 1: "),
        ("a.jsonl", "[1]\n", "line 1 is no object"),
        ("a.jsonl", '{"text": "\\ud800", "label": "a"}\n', "line 1: JSON is malformed"),
        ("a.jsonl", '{"text": NaN, "label": "a"}\n', "line 1: JSON is malformed"),
        ("a.jsonl", f'{{"text": {"9" * 5000}, "label": "a"}}\n', "line 1: Integer value out of"),
        ("a.jsonl", "[" * 100_000 + "\n", "line 1: "),
        ("a.jsonl", '{"text": 3, "label": "a"}\n', "line 1: 'text' is 3, no text"),
        ("a.csv", b"text,label\n\xff,a\n", "byte 11 is not UTF-8"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(intents, clean, name, content, why):
    content = content if isinstance(content, bytes) else content.encode()
    (clean / name).write_bytes(content)
    result = intents("train", name, "--out", "models/head/x/1")
    assert result.code == 2
    assert why in result.err
    assert "fix: " in result.err
    assert not (clean / "models/head").exists()


def test_a_file_that_is_not_there(intents):
    result = intents("train", "none.csv", "--out", "models/head/x/1")
    assert result.code == 2
    assert "none.csv: No such file" in result.err


def test_a_precision_out_of_reach_leaves_nothing(intents, clean):
    write(clean / "noise.csv", [(f"word{n}", "ab"[n % 2]) for n in range(60)])
    arguments = ("noise.csv", "--out", "models/head/x/1", "--precision", "0.999")
    result = intents("train", *arguments, "--json")
    assert result.code == 2
    assert result.json["error"]["code"] == "intents.precision"
    assert not (clean / "models/head").exists()


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--seed", "-1", "-1 is not in the range x>=0"),
        ("--model", "", "the name is empty"),
        ("--out", "", "the path is empty"),
        ("--out", "models/head/x/٣", "a head lies in MODELS/head/NAME/VERSION"),
        ("--out", "models/head/x/01", "a head lies in MODELS/head/NAME/VERSION"),
        ("--out", "models/head/X/1", "--out models/head/X/1: 'name' must be lower-case letters"),
        ("--out", "models/head/x/1000000000", "'version' must be a whole number <= 999999999"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_trained(
    intents, clean, monkeypatch, option, value, why
):
    monkeypatch.setattr(SessionEmbedder, "embed", lambda *_: pytest.fail("it was embedded"))
    write(clean / "examples.csv", rows())
    given = {"--out": "models/head/x/1"} | {option: value}
    result = intents("train", "examples.csv", *(f"{name}={said}" for name, said in given.items()))
    assert result.code == 2
    assert why in result.err
    assert "fix: " in result.err
    assert not (clean / "models/head").exists()


def test_an_empty_path_or_head_is_not_the_default_one(intents, clean):
    write(clean / "test.csv", rows(1))
    assert "the path is empty" in intents("eval", "").err
    result = intents("eval", "test.csv", "--head", "")
    assert result.code == 2
    assert "Invalid value for '--head': the name is empty" in result.err


def test_an_unknown_head_and_an_unknown_model(intents, trained):
    assert trained.code == 0, trained.err
    result = intents("eval", "examples.csv", "--head", "head/suport")
    assert result.code == 2
    assert "did you mean head/support@1" in result.err
    result = intents("train", "examples.csv", "--out", "models/head/y/1", "--model", "embed/word")
    assert result.code == 2
    assert "did you mean embed/words@1" in result.err


def test_help_ends_in_examples(run):
    for verb in ("train", "eval"):
        assert "streamapp intents " + verb in run("intents", verb, "--help").out
