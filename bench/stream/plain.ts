/**
 * The plain side: js-libp2p as its documentation has it, with the modules of the other side and backpressure done
 * right. `node bench/stream/plain.ts server`, or `client <address>`.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify, identifyPush } from "@libp2p/identify"
import type { Connection, Stream } from "@libp2p/interface"
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht"
import { ping } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { createLibp2p } from "libp2p"
import {
  bulkBytes,
  chunk,
  dials,
  echo,
  freshRequests,
  longRequests,
  request,
  serveAddress,
  serveRows,
  sink,
  source,
  timed
} from "./protocol.ts"

const node = await createLibp2p({
  addresses: { listen: ["/ip4/127.0.0.1/tcp/0"] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  // The limits of our nodes: by default js-libp2p takes only five connections a second from one address.
  connectionManager: {
    maxConnections: 164,
    maxParallelDials: 16,
    maxIncomingPendingConnections: 64,
    inboundConnectionThreshold: 10_000
  },
  connectionMonitor: { enabled: false },
  services: {
    identify: identify(),
    identifyPush: identifyPush(),
    ping: ping(),
    // Our nodes have a DHT, too. Without the mapper kad-dht forgets peers with private addresses.
    dht: kadDHT({ protocol: "/codio/kad/1.0.0", clientMode: false, peerInfoMapper: passthroughMapper })
  }
})
// libp2p would dial a peer of Kademlia again as soon as it is gone; the row that dials does so itself. There is no
// option against it.
const { reconnectQueue } = (node as any).components.connectionManager
reconnectQueue.stop()

if (process.argv[2] === "server") {
  await node.handle(sink, (stream) => {
    stream.addEventListener("message", () => {})
    stream.addEventListener("remoteCloseWrite", () => {
      stream.send(Uint8Array.of(1))
      close(stream)
    })
  })
  await node.handle(source, async (stream) => {
    stream.addEventListener("message", () => {})
    await sendBulk(stream)
    close(stream)
  })
  await node.handle(echo, (stream) => {
    stream.addEventListener("message", (event) => {
      stream.send(event.data)
    })
    stream.addEventListener("remoteCloseWrite", () => close(stream))
  })
  serveAddress(node.getMultiaddrs()[0]!.toString())
} else {
  const address = multiaddr(process.argv[3]!)
  let connection = await node.dial(address)

  serveRows({
    upload: async () => {
      const stream = await connection.newStream(sink)
      const answer = received(stream, 1)
      const seconds = await timed(async () => {
        await sendBulk(stream)
        close(stream)
        await answer
      })
      return bulkBytes / 2 ** 20 / seconds
    },
    download: async () => {
      const stream = await connection.newStream(source)
      const seconds = await timed(() => received(stream, bulkBytes))
      close(stream)
      return bulkBytes / 2 ** 20 / seconds
    },
    fresh: async () => {
      const seconds = await timed(async () => {
        for (let i = 0; i < freshRequests; i++) {
          const stream = await connection.newStream(echo)
          const answer = received(stream, request.byteLength)
          stream.send(request)
          close(stream)
          await answer
        }
      })
      return freshRequests / seconds
    },
    long: async () => {
      const stream = await connection.newStream(echo)
      let got = 0
      let done = () => {}
      stream.addEventListener("message", (event) => {
        got += event.data.byteLength
        if (got === request.byteLength) done()
      })
      const seconds = await timed(async () => {
        for (let i = 0; i < longRequests; i++) {
          got = 0
          const answer = new Promise<void>((resolve) => (done = resolve))
          stream.send(request)
          await answer
        }
      })
      close(stream)
      return longRequests / seconds
    },
    dial: async () => {
      let seconds = 0
      for (let i = 0; i < dials; i++) {
        await closed(connection)
        seconds += await timed(async () => {
          const identified = new Promise<void>((resolve) =>
            node.addEventListener("peer:identify", () => resolve(), { once: true })
          )
          connection = await node.dial(address)
          await identified
        })
      }
      return dials / seconds
    }
  })
}

// internal ------------------------------------------------------------------------------------------------------------

async function sendBulk(stream: Stream): Promise<void> {
  for (let sent = 0; sent < bulkBytes; sent += chunk.byteLength) {
    if (!stream.send(chunk)) await drained(stream)
  }
}

// `stream.onDrain()` works once only.
function drained(stream: Stream): Promise<void> {
  return new Promise((resolve, reject) => {
    const off = () => {
      stream.removeEventListener("drain", drain)
      stream.removeEventListener("close", close)
    }
    const drain = () => {
      off()
      resolve()
    }
    const close = () => {
      off()
      reject(new Error("the stream closed"))
    }
    stream.addEventListener("drain", drain)
    stream.addEventListener("close", close)
  })
}

function received(stream: Stream, bytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let got = 0
    stream.addEventListener("message", (event) => {
      got += event.data.byteLength
      if (got >= bytes) resolve()
    })
    stream.addEventListener(
      "close",
      () => got < bytes && reject(new Error(`the stream closed after ${got} of ${bytes} bytes`))
    )
  })
}

function close(stream: Stream): void {
  stream.close({ signal: AbortSignal.timeout(10_000) }).catch((error) =>
    stream.abort(error instanceof Error ? error : new Error(String(error)))
  )
}

async function closed(connection: Connection): Promise<void> {
  const gone = new Promise((resolve) => node.addEventListener("peer:disconnect", resolve, { once: true }))
  await connection.close()
  await gone
}
