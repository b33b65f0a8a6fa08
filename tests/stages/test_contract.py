"""The stages that come along keep the contract that everyone's must keep."""

from typing import ClassVar

from streamapp.plugin.testing import HashClassifier, HashModels
from streamapp.stages.embed import Embed
from streamapp.stages.intent import Intent
from streamapp.stages.language import Language
from streamapp.stages.sentiment import Sentiment
from streamapp.testing.contracts.stage import StageContract

LABELS = {"cancel": ["stop my plan", "quero cancelar"], "greeting": ["hello there"]}


class TestLanguage(StageContract):
    stage = Language
    options: ClassVar = {"language": {"languages": ["en", "pt", "es"]}}


class TestEmbed(StageContract):
    stage = Embed


class TestIntent(StageContract):
    stage = Intent
    options: ClassVar = {"intent": {"labels": LABELS}}
    upstream: ClassVar = ["embed"]


class TestIntentHead(StageContract):
    stage = Intent
    options: ClassVar = {"intent": {"head": "x"}}
    upstream: ClassVar = ["embed"]
    models: ClassVar = HashModels(classifiers={"x": HashClassifier(["cancel my plan", "hello"])})


class TestIntentClassifier(StageContract):
    stage = Intent
    options: ClassVar = {"intent": {"classifier": "x"}}
    models: ClassVar = HashModels(classifiers={"x": HashClassifier(["hello", "again"], "texts")})


class TestSentimentHead(StageContract):
    stage = Sentiment
    options: ClassVar = {"sentiment": {"head": "x"}}
    upstream: ClassVar = ["embed"]
    models: ClassVar = HashModels(classifiers={"x": HashClassifier(["negative", "positive"])})


class TestSentiment(StageContract):
    stage = Sentiment
    upstream: ClassVar = [Language]
    tolerance = 0


class TestKinetics(StageContract):
    stage = "kinetics"
    upstream: ClassVar = [Embed]
    tolerance = 0
