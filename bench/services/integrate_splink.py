"""Pairwise precision and recall of splink on the same records: weights learnt by EM.

python integrate_splink.py FOLDER
"""

import json
import sys
from pathlib import Path

import splink.comparison_library as cl
from integrate_quality import FIELDS, judged, read
from splink import DuckDBAPI, Linker, SettingsCreator, block_on


def main() -> None:
    every = read(Path(sys.argv[1]))
    given = every[FIELDS].assign(unique_id=range(len(every)))
    settings = SettingsCreator(
        link_type="dedupe_only",
        comparisons=[
            cl.JaroWinklerAtThresholds("first", [0.9, 0.7]),
            cl.JaroWinklerAtThresholds("last", [0.9, 0.7]).configure(
                term_frequency_adjustments=True
            ),
            cl.LevenshteinAtThresholds("dob", [1, 2]),
            cl.LevenshteinAtThresholds("email", [1, 3]),
            cl.ExactMatch("phone"),
        ],
        blocking_rules_to_generate_predictions=[
            block_on("dob", "substr(last, 1, 1)"),
            block_on("phone"),
            block_on("email"),
            block_on("last", "first"),
        ],
    )
    db = DuckDBAPI()
    linker = Linker(db.register(given), settings)
    linker.training.estimate_probability_two_random_records_match(
        [block_on("email"), block_on("phone")], recall=0.9
    )
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6)
    for rule in (block_on("dob"), block_on("email")):
        linker.training.estimate_parameters_using_expectation_maximisation(rule)
    pairs = linker.inference.predict(threshold_match_probability=0.9)
    clusters = linker.clustering.cluster_pairwise_predictions_at_threshold(pairs, 0.9)
    found = clusters.as_pandas_dataframe().sort_values("unique_id")
    print(json.dumps(judged(found["cluster_id"], every["person"])))


main()
