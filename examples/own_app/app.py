import faust

import streamapp

app = faust.App("shop", topic_partitions=4, store="memory://")
options = {"language": {"languages": ["en", "pt"]}}
reviews = streamapp.install(
    app, source="reviews", stages=["language", "sentiment"], options=options
)
paid = app.Table("paid", default=int)
happy = app.Table("happy", default=float)


@app.agent(app.topic("payments", key_type=str))
async def pay(payments):
    async for customer, payment in payments.items():
        paid[customer] += payment["cents"]


@app.agent(reviews)
async def read(batches):
    async for batch in batches:
        for review in batch.to_pylist():
            happy[review["conversation"]] += review["sentiment"] or 0
