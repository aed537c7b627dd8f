import type { MultiaddrConnection } from "@libp2p/interface"
import { assert, describe, it } from "@effect/vitest"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { type AddressInfo, createServer, type Socket } from "node:net"
import type { Components } from "../../../../src/layers/libp2p/wire/Components.ts"
import { gatheringTcp } from "../../../../src/layers/libp2p/wire/Tcp.ts"
import { Libp2pLogger } from "../../../../src/layers/libp2p/Logger.ts"

describe("TCP that gathers", () => {
  it.live("writes the parts of a frame together, at once and in order", () =>
    Effect.gen(function*() {
      const { connection, received, sendParts, writes } = yield* dialled
      yield* Effect.promise(async () => {
        sendParts(Uint8Array.of(1), Uint8Array.of(2, 3), Uint8Array.of(4))
        assert.strictEqual(writes(), 1)
        connection.send(Uint8Array.of(5))
        assert.strictEqual(writes(), 2)
        assert.deepStrictEqual([...await received(5)], [1, 2, 3, 4, 5])
      })
    }))

  it.live("asks to wait when the socket's buffer is full, and loses nothing", () =>
    Effect.gen(function*() {
      const { connection, received, sendParts } = yield* dialled
      yield* Effect.promise(async () => {
        assert.isTrue(connection.send(Uint8Array.of(1)))
        assert.isFalse(sendParts(new Uint8Array(1024 * 1024).fill(2), Uint8Array.of(4)))
        connection.send(Uint8Array.of(3))
        const all = await received(1024 * 1024 + 3)
        assert.deepStrictEqual([all[0], all[1], all.at(-2), all.at(-1)], [1, 2, 4, 3])
      })
    }))

  it.live("sends what was written when it closes in the same turn", () =>
    Effect.gen(function*() {
      const { connection, received } = yield* dialled
      yield* Effect.promise(async () => {
        connection.send(Uint8Array.of(1, 2))
        const closed = connection.close()
        assert.deepStrictEqual([...await received(2)], [1, 2])
        await closed
      })
    }))
})

// internal ------------------------------------------------------------------------------------------------------------

/**
 * A connection to a plain server, with the bytes that the server has received, once there are so many, and the number
 * of the connection's writes.
 */
const dialled = Effect.gen(function*() {
  let all = Buffer.alloc(0)
  let arrived = () => {}
  const server = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const server = createServer((socket) => {
        socket.on("error", () => {})
        socket.on("data", (bytes) => {
          all = Buffer.concat([all, bytes])
          arrived()
        })
      })
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      return server
    }),
    (server) => Effect.sync(() => server.close())
  )
  const { port } = server.address() as AddressInfo
  const logger = yield* Libp2pLogger
  const transport = gatheringTcp(() => undefined)({ logger } as Components)
  const connection = yield* Effect.acquireRelease(
    Effect.promise((signal) =>
      transport.dial(multiaddr(`/ip4/127.0.0.1/tcp/${port}`), {
        signal,
        upgrader: { upgradeOutbound: async (connection: MultiaddrConnection) => connection } as never
      }) as unknown as Promise<MultiaddrConnection>
    ),
    (connection) => Effect.sync(() => connection.abort(new Error("the test is over")))
  )
  let count = 0
  const { sendData, socket } = connection as MultiaddrConnection & {
    readonly socket: Socket
    readonly sendData: (data: ReadonlyArray<Uint8Array> & { readonly byteLength: number }) => {
      readonly canSendMore: boolean
    }
  }
  const { _write, _writev } = socket
  socket._write = (...args) => {
    count++
    _write.call(socket, ...args)
  }
  socket._writev = (...args) => {
    count++
    _writev!.call(socket, ...args)
  }
  return {
    connection,
    writes: () => count,
    /** Sends a frame of several parts, as the muxer and the encryption make it. */
    sendParts: (...parts: ReadonlyArray<Uint8Array>) =>
      sendData(Object.assign([...parts], { byteLength: parts.reduce((sum, part) => sum + part.byteLength, 0) }))
        .canSendMore,
    received: (bytes: number) =>
      new Promise<Buffer>((resolve) => {
        arrived = () => all.byteLength >= bytes && resolve(all)
        arrived()
      })
  }
})
