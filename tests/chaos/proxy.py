"""
proxy: a TCP proxy whose links fail on command, without root and on every machine.

    proxy = Proxy()
    link = proxy.link("worker-1", ("127.0.0.1", 7701))      # link.port is where worker-1 connects to
    proxy.fail(link, "blackhole")                           # see FAULTS
    proxy.heal(link)
    proxy.close()

A link is one peer's way to one listener; "up" is from the peer to the listener. One thread with an event loop serves all links.
Bytes of a TCP connection are never lost in the middle, as on a real network: they are late, or the connection ends.
"""

import asyncio
import threading

FAULTS = ("cut", "blackhole", "oneway_up", "oneway_down", "delay", "truncate_up", "truncate_down")
READ_BYTES = 1 << 16
DELAY_S = 0.15


class Link:
    def __init__(self, name, target):
        self.name, self.target = name, target
        self.port = None
        self.transports = set()
        self.delay_s = 0.0
        self.truncates = {"up": False, "down": False}
        self.is_open = {"up": asyncio.Event(), "down": asyncio.Event()}
        for gate in self.is_open.values():
            gate.set()

    def cut(self):
        """Ends all connections with a reset."""
        for transport in list(self.transports):
            transport.abort()

    def apply(self, fault):
        if fault == "cut":
            self.cut()
        elif fault == "delay":
            self.delay_s = DELAY_S
        elif fault.startswith("truncate_"):
            self.truncates[fault.removeprefix("truncate_")] = True
        else:
            for direction in {"blackhole": ("up", "down"), "oneway_up": ("up",), "oneway_down": ("down",)}[fault]:
                self.is_open[direction].clear()

    def heal(self, cut):
        """What was held back arrives late; with `cut`, never."""
        self.delay_s = 0.0
        self.truncates.update(up=False, down=False)
        if cut:
            self.cut()
        for gate in self.is_open.values():
            gate.set()

    async def _pump(self, reader, writer, direction):
        while True:
            data = await reader.read(READ_BYTES)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self.is_open[direction].wait()  # an end is held back as well
            if not data:
                return
            if self.truncates[direction] and len(data) > 16:
                self.truncates[direction] = False
                writer.write(data[: len(data) // 2])
                await writer.drain()
                return
            writer.write(data)
            await writer.drain()

    async def serve(self, peer_reader, peer_writer):
        writers = [peer_writer]
        self.transports.add(peer_writer.transport)
        try:
            reader, writer = await asyncio.open_connection(*self.target)
            writers.append(writer)
            self.transports.add(writer.transport)
            pumps = {asyncio.ensure_future(self._pump(peer_reader, writer, "up")),
                     asyncio.ensure_future(self._pump(reader, peer_writer, "down"))}
            _, others = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in others:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # nobody listens there now: the peer sees its connection end
        finally:
            for writer in writers:
                self.transports.discard(writer.transport)
                writer.close()


class Proxy:
    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.links = []

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def link(self, name, target):
        async def start():
            link = Link(name, target)
            server = await asyncio.start_server(link.serve, "127.0.0.1", 0)
            link.port = server.sockets[0].getsockname()[1]
            return link

        link = self._call(start())
        self.links.append(link)
        return link

    def fail(self, link, fault):
        async def apply():
            link.apply(fault)

        self._call(apply())

    def heal(self, link, cut=False):
        async def heal():
            link.heal(cut)

        self._call(heal())

    def close(self):
        async def end():
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
