/**
 * A refusal by the muxer, as plain libp2p sees it.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { assert, describe, it } from "@effect/vitest"
import type { Connection, Libp2p, MultiaddrConnection, StreamMuxerFactory } from "@libp2p/interface"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, type Scope } from "effect"
import { createLibp2p } from "libp2p"
import { changed } from "../../../../src/layers/libp2p/wire/Yamux.ts"
import * as GoAway from "../../../../src/layers/libp2p/wire/GoAway.ts"
import { eventually } from "../../../contract/eventually.ts"
import * as Live from "../../../support/live.ts"

const run = <A>(body: () => Promise<A> | A) => Effect.promise(async () => body())

/** Other software: a node of plain js-libp2p. */
const plain = (muxer: () => StreamMuxerFactory = yamux()): Effect.Effect<Libp2p, never, Scope.Scope> =>
  Effect.acquireRelease(
    run(() =>
      createLibp2p({
        addresses: { listen: ["/ip4/127.0.0.1/tcp/0"] },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [muxer],
        connectionMonitor: { enabled: false }
      })
    ),
    (node) => run(() => node.stop())
  )

interface YamuxMuxer {
  readonly remoteGoAway?: number
  readonly sendGoAway: (code: number) => void
}
const muxerOf = (connection: Connection) => (connection as unknown as { readonly muxer: YamuxMuxer }).muxer

/** A connection that a refusal may close, and a muxer that records the codes it sends. */
const fake = () => {
  const listeners = new Set<() => void>()
  const sent: Array<number> = []
  const connection = {
    status: "open",
    addEventListener: (_: string, listener: () => void) => void listeners.add(listener),
    removeEventListener: (_: string, listener: () => void) => void listeners.delete(listener)
  } as unknown as MultiaddrConnection
  const factory = (() => ({
    createStreamMuxer: () => ({ handleGoAway: () => {}, sendGoAway: (code: number) => void sent.push(code) })
  })) as unknown as () => StreamMuxerFactory
  return { connection, factory, sent, close: () => listeners.forEach((listener) => listener()) }
}

describe("a refusal by the muxer", () => {
  it.live("is a code and a close to other software, which is never a peer", () =>
    Effect.gen(function*() {
      const node = yield* Live.makeNode({ maxPeers: 1 })
      const [address] = yield* node.addresses
      const friend = yield* Live.makeNode()
      yield* friend.connect(address!)
      const other = yield* plain()
      const opened: Array<Connection> = []
      other.addEventListener("connection:open", ({ detail }) => opened.push(detail))
      // The dial may succeed for a moment: plain libp2p does not wait for identify.
      yield* run(() => other.dial(multiaddr(address!)).then(() => {}, () => {}))
      yield* eventually("it is closed", Effect.sync(() => other.getConnections().length === 0))
      assert.deepStrictEqual(opened.map((connection) => muxerOf(connection).remoteGoAway), [
        GoAway.codes.resourceLimitExceeded
      ])
      assert.strictEqual(yield* node.peerCount, 1)
    }))

  it.live("leaves plain libp2p with a connection on which nothing can be opened, which is closed here", () =>
    Effect.gen(function*() {
      const told = Effect.fnUntraced(function*(muxer: () => StreamMuxerFactory) {
        const [a, b] = [yield* plain(muxer), yield* plain()]
        const connection = yield* run(() => a.dial(b.getMultiaddrs()))
        yield* eventually("the other end is open", Effect.sync(() => b.getConnections().length === 1))
        muxerOf(b.getConnections()[0]!).sendGoAway(GoAway.codes.gated)
        yield* eventually("it is told", Effect.sync(() => GoAway.farewellOf(connection) === "blocked"))
        return connection
      })
      const stock = yield* told(yamux())
      const failure = yield* run(() =>
        stock.newStream("/test/1.0.0").then(() => undefined, (cause: Error) => cause.name)
      )
      assert.deepStrictEqual([failure, stock.status], ["ConnectionClosedError", "open"])
      const own = yield* told(changed(yamux(), [GoAway.make({ lingerMillis: 250, most: 1 }).watch]))
      yield* eventually("it is closed", Effect.sync(() => own.status !== "open"))
    }))

  it.live("waits for the remote to hang up, a quarter of a second at most, and for so many at a time", () =>
    Effect.gen(function*() {
      const muxers = GoAway.make({ lingerMillis: 2500, most: 2 })
      const refuse = (one: ReturnType<typeof fake>) => {
        changed(one.factory, [muxers.watch])().createStreamMuxer({} as never)
        const state = { isOver: false }
        void muxers.refuse(one.connection, "full").then(() => {
          state.isOver = true
        })
        return state
      }
      const [first, second, third] = [fake(), fake(), fake()]
      const [one, two, three] = [refuse(first), refuse(second), refuse(third)]
      assert.deepStrictEqual([first.sent, second.sent, third.sent], [[0x1001], [0x1001], [0x1001]])
      yield* run(() => {})
      assert.deepStrictEqual([one.isOver, two.isOver, three.isOver], [false, false, true])
      first.close()
      yield* eventually("the remote has hung up", Effect.sync(() => one.isOver))
      assert.isFalse(two.isOver)
      yield* eventually("its time is over", Effect.sync(() => two.isOver))
      const fourth = refuse(fake())
      yield* run(() => {})
      assert.isFalse(fourth.isOver, "there is room again")
    }))
})
