"""What a workflow's file may say of an integration."""

from typing import Literal

import msgspec

from streamapp.plugin import Config

Mode = Literal["union", "intersection", "left_join", "right_join", "full_outer_join"]
Strategy = Literal[
    "prefer_primary", "prefer_secondary", "most_recent", "most_frequent", "longest",
    "first_non_null", "min", "max", "sum", "mean", "concat", "union", "trust", "expression",
    "keep_all", "quarantine",
]  # fmt: skip
Comparison = Literal[
    "exact", "normalised", "jaro_winkler", "levenshtein", "token_set", "phonetic", "number", "date"
]
#: How keys are compared when nothing more is said; ``fuzzy`` is Jaro-Winkler.
KeyMatching = Literal[
    "exact", "normalised", "fuzzy", "jaro_winkler", "levenshtein", "token_set", "phonetic"
]
Report = Literal["sources", "conflicts", "lineage"]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what stands inside an integration's ``config``."""


class Column(Part, frozen=True):
    """A source's column under its common name and type.

    ``type`` is an Arrow type's name, such as ``int64``, ``date32`` or ``string``; ``format`` is how
    a text says a time (``%d.%m.%Y``).
    """

    name: str
    type: str = ""
    format: str = ""


class Conflict(Part, frozen=True):
    """How one field's value is chosen where records of one thing disagree.

    ``by``: the column of time of ``most_recent`` and ``trust``; without it the integration's
    ``timestamp_field``.  ``weights``: of ``trust``, by source, each above 0; a source without one
    has 1.  ``half_life_days``: of ``trust``; without it trust does not age.  ``expression``: in
    SQL, over a record's columns and ``source``; the record with the greatest value gives the field.
    """

    strategy: Strategy
    by: str = ""
    separator: str = "; "
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    half_life_days: float | None = None
    expression: str = ""


class Rule(Part, frozen=True):
    """One comparison of two records; with several fields their texts are joined by a space.

    ``within``: the distance at which ``number`` and ``date`` (in days) fall to 0.  ``least``: a
    pair that is less alike in this is none, whatever else agrees.
    """

    fields: tuple[str, ...]
    by: Comparison = "jaro_winkler"
    weight: float = 1.0
    within: float = 1.0
    least: float = 0.0


class Blocking(Part, frozen=True):
    """One pass that finds pairs worth a comparison; of one of three kinds.

    ``on``: records that agree in all of these: a field, ``prefix(field, 3)``, ``soundex(field)``,
    ``year(field)`` or ``normal(field)``.  ``sort_by``: records within ``window`` places of each
    other when sorted by these fields.  ``minhash``: records whose fields share many trigrams.
    """

    on: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ()
    window: int = 5
    minhash: tuple[str, ...] = ()
    bands: int = 16
    rows: int = 4
    rows_max: int = 2_000


class Matching(Part, frozen=True):
    """How records that no key joins are found to be of one thing.

    ``threshold``: a pair whose weighted likeness reaches it is a match; ``review_from``: one that
    reaches only this is unsure.  ``evidence``: the share of the rules' weight that must be there
    (not null) on both sides.  ``compare``: ``without_key`` looks for a match of records that lack a
    key, and takes the best (the default where there are keys); ``all`` compares every record and
    takes each match.  ``method``: ``rules``, or ``splink``, which learns from the records what each
    agreement says (Fellegi and Sunter's model; the extra ``streamapp[splink]``); the score is then
    a probability, and weights, ``least`` and ``evidence`` are not used.
    """

    rules: tuple[Rule, ...]
    blocking: tuple[Blocking, ...]
    threshold: float = 0.9
    review_from: float | None = None
    evidence: float = 0.5
    compare: Literal["without_key", "all"] | None = None
    keys: Literal["exact", "normalised"] = "exact"
    method: Literal["rules", "splink"] = "rules"
    pairs_max: int = 50_000_000


class Gathered(Config, frozen=True):
    """What the operations of this service share: which records, and when they are of one thing.

    Records come from the stage's inputs, in order, and then from ``secondary_sources``, which are
    declared in ``streamapp.toml``; those of ``primary_source`` come first.  ``threshold`` is that
    of a ``matching_strategy`` given by its name.  ``decisions`` is a declared source of unsure
    pairs that people decided on.
    """

    primary_source: str = ""
    secondary_sources: tuple[str, ...] = ()
    mapping: dict[str, dict[str, str | Column | None]] = msgspec.field(default_factory=dict)
    key_fields: tuple[str, ...] = ()
    matching_strategy: KeyMatching | Matching = "exact"
    threshold: float = 0.9
    decisions: str = ""


class Integration(Gathered, frozen=True):
    """The ``config`` of ``integrate.integrate``.

    ``conflict_strategy`` is for all columns but those in ``conflicts`` and the keys;
    ``source_order`` says whose values are preferred, else the order of the sources does.
    """

    mode: Mode = "full_outer_join"
    conflict_strategy: Strategy | Conflict = "prefer_primary"
    conflicts: dict[str, Strategy | Conflict] = msgspec.field(default_factory=dict)
    source_order: tuple[str, ...] = ()
    timestamp_field: str = ""
    report: tuple[Report, ...] = ()
    timeout_ms: int | None = None


def conflict_of(given: Strategy | Conflict) -> Conflict:
    """A strategy's name alone, spelled out."""
    return given if isinstance(given, Conflict) else Conflict(strategy=given)
