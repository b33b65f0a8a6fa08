"""A log as whoever tests an app sees it: from outside, by clients of its own."""

from streamapp.transport import open_admin, open_producer, open_reader


class Outside:
    """Clients of one log, while the context lasts."""

    def __init__(self, url):
        self._clients = open_admin(url), open_producer(url), open_reader(url)
        self.admin, self.producer, self.reader = self._clients

    async def __aenter__(self):
        for client in self._clients:
            await client.start()
        return self

    async def __aexit__(self, *_):
        for client in self._clients:
            await client.stop()

    async def records(self, topic):
        """Everything a topic holds, partition by partition; of one that is not there, nothing."""
        spec = (await self.admin.topics()).get(topic)
        found = []
        for partition in range(spec.partitions if spec else 0):
            at, end = await self.reader.bounds(topic, partition)
            while at < end:
                slice_ = await self.reader.read(topic, partition, at)
                found += slice_.records
                at = max(slice_.range.next, at + 1)
        return found
