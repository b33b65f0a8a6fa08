"""What docs/gateway.md says of schemas is what the code has."""

import json
import re
import shutil
import tomllib

import msgspec
import pytest
from pages import page

from streamapp.core.config import describe
from streamapp.core.errors import Reject
from streamapp.core.metrics import Metrics
from streamapp.gateway.schemas import guess, learned, rules, sample, shape, watch, wire
from streamapp.gateway.schemas.recent import RECENT_MAX
from streamapp.gateway.schemas.rules import Rules
from streamapp.gateway.stamp import stamp
from streamapp.topics import catalogue
from streamapp.topics.catalogue import SCHEMAS, Topic

SECTION = page("gateway").section("Schemas")


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)[1]


def answers():
    lines = block("console").splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


POLICIES = re.findall(r"^\| `([a-z-]+)` \| goes", SECTION, re.MULTILINE)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_declared_topic_does_what_the_page_says(tmp_path, policy):
    folder = shutil.copytree(catalogue.defaults("topics"), tmp_path / "topics")
    declared = tomllib.loads(block("toml"))
    (folder / "schemas" / declared["schema"]).write_text(block("json"))
    (folder / "orders.toml").write_text(block("toml").replace('"reject"', f'"{policy}"', 1))
    topic = catalogue.load(folder)["orders"]
    checked = Rules(topic, folder / "schemas", Metrics())
    event = stamp(b'{"total": -1}', source="/", received_us=0, bytes_max=99)
    if policy == "reject":
        with pytest.raises(Reject) as caught:
            checked.judged(event)
        assert caught.value.message in re.sub(r"\s+", " ", SECTION)
        assert f"`{caught.value.code}`" in SECTION
    else:
        judged = checked.judged(event)
        assert isinstance(judged.record, rules.Letter) == (policy == "dead-letter")
        assert (rules.HEADER in dict(judged.record.headers)) == (policy == "observe")
        assert f"`{rules.HEADER}`" in SECTION


def test_every_policy_is_on_the_page():
    assert set(POLICIES) == set(Topic.__annotations__["validate"].__args__[0].__args__)


def test_the_answers_are_such():
    for command, answer in answers().items():
        if "/api/schemas/" in command:
            shown = set(
                re.findall(r'"(\w+)":', re.sub(r'"(fields|sample)":\{.*?\}\},?', "", answer))
            )
            assert shown <= set(wire.LearnedSchema.__struct_fields__) | {"fields", "sample"}
        elif "/api/schemas" in command:
            msgspec.json.decode(answer, type=wire.LearnedTypes)
        else:
            msgspec.json.decode(answer, type=wire.RecentEvents)


def test_the_fields_are_those_of_the_sample():
    [answer] = [one for command, one in answers().items() if "/api/schemas/" in command]
    fields = json.loads(re.search(r'"fields":(\{.*\}),"is_cut"', answer)[1])
    event = json.loads(re.search(r'"sample":(\{.*\}),"json_schema"', answer)[1])
    found = dict(shape.cells_of(event))
    assert {path: [kind] for path, kind in found.items()} == {
        path: field["types"] for path, field in fields.items()
    }


def test_the_numbers_are_the_code_s():
    for said in (
        f"{watch.LOOKS_MAX} of a type and {watch.LOOKS_ALL_MAX:,} of all",
        f"{learned.TYPES_MAX} types (one seen fewer than {learned.RARE}",
        f"{shape.FIELDS_MAX} fields of each, {shape.DEPTH_MAX} levels deep",
        f"the last {RECENT_MAX:,} events",
        f"at least {guess.EXAMINED_MIN} events",
        f"after {learned._SHAPE_S:.0f} s, counts after {learned._COUNT_S:.0f} s",
        f"header `{guess.HEADER[0]}: {guess.HEADER[1].decode()}`",
        f"`{sample.REDACTED}`",
        f"`{SCHEMAS}`",
    ):
        assert said in re.sub(r"\s+", " ", SECTION), said
    assert learned.GONE_US == 7 * 86_400 * 1_000_000
    assert guess.REQUIRED_MIN == 2
    assert watch._VALUE_BYTES_MAX == 64 << 10
    [setting] = [field for field in describe() if field.name == "learn"]
    assert set(setting.metadata["one_of"]) == {"samples", "shapes", "off"}
