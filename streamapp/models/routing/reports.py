"""What to ask the store about a route, in DuckDB's SQL: ``written(AGREEMENT, "topic", "topic")``.

``COLUMN`` is the stage's column, ``ROUTE`` the route; docs/models.md has the same queries.
"""

#: Conversations of each arm; an event without one is its own.
ARMS = """
select COLUMN_route.arm as arm, count(distinct coalesce(conversation, id)) as conversations
from events where COLUMN_route.route = 'ROUTE' group by all order by all
"""
#: How often answer and shadow say the same.
AGREEMENT = """
select count(*) as rows, avg((COLUMN = COLUMN_route.shadow)::int) as agreement
from events where COLUMN_route.route = 'ROUTE' and COLUMN_route.shadow is not null
"""
#: Who answered, and why it was that one.
ANSWERS = """
select COLUMN_route.model as model, COLUMN_route.why as why, count(*) as rows
from events where COLUMN_route.route = 'ROUTE' group by all order by rows desc, model, why
"""
#: Each day's distance between what is answered and what the shadow would have: 0 where both give
#: every label as often, 1 where they share none (total variation).
DRIFT = """
with said as (
    select time_bucket(interval 1 day, time) as day, COLUMN as answer, COLUMN_route.shadow as shadow
    from events where COLUMN_route.route = 'ROUTE' and COLUMN_route.shadow is not null
), shares as (
    select day, label, sum(answered) / sum(sum(answered)) over (partition by day) as answered,
        sum(shadowed) / sum(sum(shadowed)) over (partition by day) as shadowed
    from (
        select day, answer as label, 1 as answered, 0 as shadowed from said
        union all select day, shadow, 0, 1 from said
    ) group by day, label
)
select day, sum(abs(answered - shadowed)) / 2 as drift from shares group by day order by day
"""

#: The share of a row's ten nearest neighbours that both embedders agree on, over the newest rows.
NEIGHBOURS = """
with newest as (
    select id, embedding as one, shadow_embedding as two from events
    where embedding is not null and shadow_embedding is not null
    order by ingest_time desc, id limit 1000
), pairs as (
    select a.id as id,
        row_number() over (
            partition by a.id order by array_cosine_similarity(a.one, b.one) desc, b.id
        ) as place,
        row_number() over (
            partition by a.id order by array_cosine_similarity(a.two, b.two) desc, b.id
        ) as shadow_place
    from newest a, newest b where a.id <> b.id
)
select count(distinct id) as rows,
    count(*) filter (place <= 10 and shadow_place <= 10) / count(*) filter (place <= 10)
        as agreement
from pairs
"""


def written(query: str, column: str, route: str) -> str:
    """The query for one column and route; names are quoted."""
    quoted = '"' + column.replace('"', '""')
    text = query.replace("COLUMN_route", f'{quoted}_route"').replace("COLUMN", f'{quoted}"')
    return text.replace("'ROUTE'", "'" + route.replace("'", "''") + "'")
