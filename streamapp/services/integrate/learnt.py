"""Fellegi and Sunter's model by splink: how much each agreement says is learnt from the records."""

import logging
from typing import Any

import polars as pl

from streamapp.plugin import Refuse
from streamapp.services.integrate.config import Blocking, Rule
from streamapp.services.integrate.matching import PAIR, Found, Matcher
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.text import keys_of

_SEED = 1
_SAMPLED_PAIRS_MAX = 1e6
_EXACT = ("exact", "normalised", "phonetic")


class Learnt(Matcher):
    """A matcher whose score is the probability that splink gives a pair.

    It learns from all records at once, so that it is not for joins that go row by row.
    """

    def find(
        self, rows: pl.DataFrame, pace: Pace, own: pl.Series | None = None, *, best: bool
    ) -> Found:
        """As ``Matcher.find``, of rows that are of the pool.

        Raises:
            Refuse: splink is not installed; a rule or a pass is none that it has;
                there are too many pairs.
        """
        assert own is not None  # noqa: S101  # ``refuse_learnt`` refused the others
        pace.check()
        self._blocks.counts(self._pool)
        pairs = self._probable()
        pace.check()
        both = pl.concat([pairs, pairs.select("score", left="right", right="left")], how="diagonal")
        asked = pl.DataFrame({"left": own, "place": pl.int_range(len(own), eager=True)})
        kept = both.join(asked, on="left").select(left="place", right="right", score="score")
        scored = kept.cast(PAIR)
        return self._judged(
            rows, scored if best else self._others(scored, own, best=False), best=best
        )

    def _probable(self) -> pl.DataFrame:
        """Places of pairs of the pool, ``left`` before ``right``, and their probability."""
        splink = _splink()
        rules, passes = self._matching.rules, self._matching.blocking
        texts = [pl.col(str(number)).alias(f"r{number}") for number in range(len(rules))]
        keys = [
            made.alias(name)
            for at, one in enumerate(passes)
            for name, made in zip(_names(at, one), keys_of(self._pool, one.on), strict=True)
        ]
        place = pl.int_range(pl.len()).alias("unique_id")
        given = self._prepared.values.select(*texts, place).with_columns(keys).to_arrow()
        blocks = [splink.block_on(*_names(at, one)) for at, one in enumerate(passes)]
        settings = splink.SettingsCreator(
            link_type="dedupe_only",
            comparisons=[_comparison(number, rule) for number, rule in enumerate(rules)],
            blocking_rules_to_generate_predictions=blocks,
        )
        database = splink.DuckDBAPI()
        linker = splink.Linker(database.register(given), settings)
        learn = linker.training
        learn.estimate_probability_two_random_records_match(blocks, recall=0.9)
        learn.estimate_u_using_random_sampling(max_pairs=_SAMPLED_PAIRS_MAX, seed=_SEED)
        for block in blocks:
            learn.estimate_parameters_using_expectation_maximisation(block)
        found = linker.inference.predict(threshold_match_probability=self._least)
        table = pl.from_arrow(found.as_pyarrow_table())
        assert isinstance(table, pl.DataFrame)  # noqa: S101  # of a table
        left, right = pl.col("unique_id_l"), pl.col("unique_id_r")
        score = pl.col("match_probability")
        return table.select(left=left, right=right, score=score).cast(PAIR)


def _splink() -> Any:
    try:
        import splink
    except ImportError:
        why = "config.matching_strategy.method: splink is not installed"
        raise Refuse("integrate.splink", why, "pip install 'streamapp[splink]'") from None
    logging.getLogger("splink").setLevel(logging.ERROR)
    return splink


def _names(at: int, one: Blocking) -> list[str]:
    if not one.on:
        why = "config.matching_strategy.blocking: splink blocks on equal keys alone"
        raise Refuse("integrate.splink", why, "give its passes as on: [...]")
    return [f"b{at}_{number}" for number in range(len(one.on))]


def _comparison(number: int, rule: Rule) -> Any:
    import splink.comparison_library as library

    name = f"r{number}"
    if rule.by in _EXACT:
        return library.ExactMatch(name)
    if rule.by == "jaro_winkler":
        return library.JaroWinklerAtThresholds(name, [0.92, 0.8])
    if rule.by == "levenshtein":
        return library.LevenshteinAtThresholds(name, [1, 2])
    why = f"config.matching_strategy.rules[{number}].by: splink has no {rule.by}"
    raise Refuse(
        "integrate.splink", why, "use exact, normalised, phonetic, jaro_winkler, levenshtein"
    )
