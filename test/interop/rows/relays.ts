/**
 * Relays of each implementation: each implementation makes a reservation, and is reached through it by each; then the
 * relayed connection becomes a direct one.
 */
import { Effect } from "effect"
import { type Bench, hold } from "../Bench.ts"
import type { Fault } from "../Matrix.ts"
import { eventually, kinds, type Peer } from "../Peer.ts"
import { echoProtocol } from "../TsPeer.ts"

const goFault: Fault = {
  name:
    "a go-libp2p relay leaves private addresses out of its reservations, and rust-libp2p refuses one without addresses",
  shows: /rust: reserve: Failed to get Reservation/
}

const upgradeFault: Fault = {
  name: "a go-libp2p dialler and a rust-libp2p listener now and then miss each other's attempt, and stay relayed",
  shows: /never: the listener has a direct connection/,
  isChance: true
}

const isRelayed = (addr: string) => addr.includes("/p2p-circuit")

export const relays = (bench: Bench) =>
  Effect.gen(function*() {
    for (const kind of kinds) {
      for (const holder of kinds) {
        yield* Effect.scoped(Effect.gen(function*() {
          const relay = yield* bench.make(kind, { relay: true })
          const listener = yield* bench.make(holder)
          const addr = relay.addresses[0]!
          const reserved = yield* Effect.exit(Effect.timeout(listener.run("reserve", { addr }), "30 seconds"))
          const fault = kind === "go" && holder === "rust" ? goFault : undefined
          for (const dialler of kinds) {
            yield* bench.check(
              `stream through a relay of ${kind}`,
              `${dialler}>${holder}`,
              Effect.scoped(Effect.gen(function*() {
                yield* reserved
                yield* through(yield* bench.make(dialler), listener, addr)
              })).pipe(Effect.mapError(toError)),
              fault
            )
          }
        })).pipe(
          Effect.catch((error) =>
            bench.check(`stream through a relay of ${kind}`, `${kind}>${holder}`, Effect.fail(error))
          )
        )
      }
    }
  })

const toError = (cause: unknown) => cause instanceof Error ? cause : new Error(String(cause))

const through = Effect.fnUntraced(function*(dialler: Peer, listener: Peer, relay: string) {
  yield* dialler.run("connect", { addr: `${relay}/p2p-circuit/p2p/${listener.id}` })
  yield* eventually(
    "the listener has a relayed connection, or one that came of it",
    listener.run("peers"),
    ({ peers }) => peers.some(({ peer }) => peer === dialler.id)
  )
  const { peers } = yield* dialler.run("peers")
  const addresses = peers.filter(({ peer }) => peer === listener.id).map(({ addr }) => addr)
  yield* hold(addresses.some(isRelayed), `the dialler's connections are ${addresses.join()}`)
  const back = yield* dialler.run("stream", { peer: listener.id, protocol: echoProtocol, bytes: 1024, mode: "echo" })
  yield* hold(back.bytes === 1024 && back.intact, JSON.stringify(back))
})

/**
 * Go upgrades a connection only once it has found out that it has a public address. From then on it tells its relay
 * that it speaks DCUtR.
 */
const isWilling = (relay: Peer, peer: Peer) =>
  peer.kind !== "go" ? Effect.void : eventually(
    "go speaks DCUtR",
    relay.run("identify", { peer: peer.id }),
    ({ protocols }) => protocols.includes("/libp2p/dcutr")
  )

/**
 * Without a NAT in between, a relayed connection becomes a direct one by itself. On public addresses only, since no
 * implementation tells private ones.
 */
export const upgrades = (bench: Bench, listen: string) =>
  Effect.scoped(Effect.gen(function*() {
    const relay = yield* bench.make("rust", { relay: true, listen })
    for (const holder of kinds) {
      const listener = yield* bench.make(holder, { listen })
      const addr = relay.addresses[0]!
      yield* listener.run("reserve", { addr })
      yield* isWilling(relay, listener)
      for (const dialler of kinds) {
        yield* bench.check(
          "a relayed connection becomes direct",
          `${dialler}>${holder}`,
          Effect.scoped(Effect.gen(function*() {
            const peer = yield* bench.make(dialler, { listen })
            yield* peer.run("connect", { addr })
            yield* isWilling(relay, peer)
            yield* peer.run("connect", { addr: `${addr}/p2p-circuit/p2p/${listener.id}` })
            yield* eventually(
              "the listener has a direct connection",
              listener.run("peers"),
              ({ peers }) => peers.some((one) => one.peer === peer.id && !isRelayed(one.addr))
            )
          })),
          dialler === "go" && holder === "rust" ? upgradeFault : undefined
        )
      }
    }
  })).pipe(Effect.catch((error) => bench.check("a relayed connection becomes direct", "ts>ts", Effect.fail(error))))

/** Where a relay of Go has a public address, Rust makes a reservation on it like all others. */
export const publicRelay = (bench: Bench, listen: string) =>
  bench.check(
    "stream through a relay of go on a public address",
    "ts>rust",
    Effect.scoped(Effect.gen(function*() {
      const relay = yield* bench.make("go", { relay: true, listen })
      const listener = yield* bench.make("rust", { listen })
      yield* listener.run("reserve", { addr: relay.addresses[0]! })
      yield* through(yield* bench.make("ts", { listen }), listener, relay.addresses[0]!)
    }))
  )
