/**
 * What the garbage collector says: whether objects that a node should have let go are gone.
 */
import type { Connection, MultiaddrConnection } from "@libp2p/interface"
import { Effect, Schedule } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import type { Libp2pHost } from "../../src/layers/libp2p/Host.ts"
import { muxerOf } from "../../src/layers/libp2p/wire/Yamux.ts"
import { patience } from "./patience.ts"

setFlagsFromString("--expose-gc")

/** A full collection. Objects behind a `WeakRef` that was read in this turn of the event loop survive it. */
const collectGarbage = runInNewContext("gc") as () => void

/** Bytes that this process needs after full collections. */
export const usedBytes: Effect.Effect<number> = Effect.gen(function*() {
  for (let i = 0; i < 4; i++) {
    yield* Effect.sleep("20 millis")
    collectGarbage()
  }
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
})

/** Objects that are watched without being held. */
export interface Watched {
  readonly add: (name: string, target: object) => void
  /** How many there were. */
  readonly count: () => number
  /** Ends when all are collected; after {@link patience} a defect that names the survivors. */
  readonly collected: Effect.Effect<void>
}

export const watched = (): Watched => {
  const refs: Array<{ readonly name: string; readonly ref: WeakRef<object> }> = []
  const left = () => refs.flatMap(({ name, ref }) => ref.deref() === undefined ? [] : [name])
  return {
    add: (name, target) => void refs.push({ name, ref: new WeakRef(target) }),
    count: () => refs.length,
    collected: Effect.sync(collectGarbage).pipe(
      Effect.andThen(Effect.sync(left)),
      Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: (names) => names.length === 0 }),
      Effect.timeout(patience),
      Effect.catchTag("TimeoutError", () => Effect.die(new Error(`not collected: ${left().join(", ")}`))),
      Effect.asVoid
    )
  }
}

/** Watches what a host has of each connection from now on: the socket's side, connection, muxer and streams. */
export const watchHost = ({ components, node }: Libp2pHost["Service"], watched: Watched): void => {
  const { connectionGater } = components
  // The gate is asked for every connection, whether it is refused or not.
  for (const stage of ["denyInboundUpgradedConnection", "denyOutboundUpgradedConnection"] as const) {
    const ask = connectionGater[stage]?.bind(connectionGater)
    connectionGater[stage] = (peer, socket: MultiaddrConnection) => {
      watched.add(`socket of ${stage}`, socket)
      return ask?.(peer, socket) ?? false
    }
  }
  node.addEventListener("connection:open", ({ detail }: CustomEvent<Connection>) => {
    watched.add("connection", detail)
    const muxer = muxerOf(detail)
    if (muxer === undefined) throw new Error("a connection without a muxer")
    watched.add("muxer", muxer)
    muxer.addEventListener("stream", (event) => watched.add(`stream of ${event.detail.protocol}`, event.detail))
    for (const stream of muxer.streams) watched.add("early stream", stream)
  })
}
