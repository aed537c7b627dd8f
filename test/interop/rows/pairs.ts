/**
 * What two peers do with each other: connect, identify, ping, streams in all their ends, a crowd.
 */
import { Effect } from "effect"
import { type Bench, connect, hold, isConnected } from "../Bench.ts"
import type { Fault } from "../Matrix.ts"
import { eventually, type Kind, kinds, type Peer, saw } from "../Peer.ts"
import { drainProtocol, echoProtocol, resetProtocol, sinkProtocol, slowProtocol } from "../TsPeer.ts"

const agents: Readonly<Record<Kind, RegExp>> = {
  ts: /^codio-network\//,
  rust: /^codio-interop-rust\/1$/,
  go: /^codio-interop-go\/1$/
}
const resetFault: Fault = {
  name: "rust-yamux gives whoever reads a stream that the other side has reset an end, and no error",
  shows: /an end instead of a reset/
}
const mebibyte = 2 ** 20

export const pairs = (bench: Bench) =>
  Effect.gen(function*() {
    for (const source of kinds) {
      for (const target of kinds) {
        yield* Effect.scoped(Effect.gen(function*() {
          const [from, to] = [yield* bench.make(source), yield* bench.make(target)]
          yield* pair(bench, from, to)
        })).pipe(Effect.catch((error) => bench.check("peers start", `${source}>${target}`, Effect.fail(error))))
      }
    }
  })

const pair = Effect.fnUntraced(function*(bench: Bench, from: Peer, to: Peer) {
  const check = <A>(row: string, test: Effect.Effect<A, Error>, fault?: Fault) =>
    bench.check(row, `${from.kind}>${to.kind}`, test, fault)

  yield* check(
    "connect, seen by the other",
    Effect.andThen(
      from.run("connect", { addr: to.addresses[0]! }),
      saw(to, "the connection", ({ event, peer }) => event === "connected" && peer === from.id)
    )
  )
  yield* check("identify, both ways", Effect.all([identifies(from, to), identifies(to, from)]))
  yield* check(
    "ping, both ways",
    Effect.gen(function*() {
      // Here, and in Rust, all on one stream.
      const both = Effect.all([from.run("ping", { peer: to.id }), to.run("ping", { peer: from.id })])
      const answers = [...yield* both, ...yield* both, ...yield* both]
      yield* hold(answers.every(({ millis }) => millis > 0 && millis < 10_000), JSON.stringify(answers))
      return `${Math.max(...answers.map(({ millis }) => millis)).toFixed(1)} ms`
    })
  )
  yield* check("echo 1 KiB, the opener ends first", echo(from, to, 1024))
  yield* check("echo 64 MiB, the opener ends first", echo(from, to, 64 * mebibyte))
  yield* check("echo 8 MiB to a slow reader", echo(from, to, 8 * mebibyte, "slow"))
  yield* check("1 KiB, the acceptor ends first", send(from, to, 1024))
  yield* check("64 MiB, the acceptor ends first", send(from, to, 64 * mebibyte))
  yield* check("8 MiB, a slow acceptor", send(from, to, 8 * mebibyte, slowProtocol))
  yield* check(
    "a reset by the acceptor",
    Effect.gen(function*() {
      const back = yield* from.run("stream", { peer: to.id, protocol: resetProtocol, bytes: 1024, mode: "await" })
      yield* hold(typeof back.reset === "string", `an end instead of a reset: ${JSON.stringify(back)}`)
    }),
    from.kind === "rust" ? resetFault : undefined
  )
  yield* check(
    "a reset by the opener",
    Effect.gen(function*() {
      const since = to.happened.length
      yield* from.run("stream", { peer: to.id, protocol: sinkProtocol, bytes: 64 * 1024, mode: "reset" })
      const { error } = yield* saw(to, "the stream's end", ({ event }) => event === "received", since)
      yield* hold(typeof error === "string", "an end instead of a reset")
    }),
    to.kind === "rust" ? resetFault : undefined
  )
  yield* check("disconnect by the dialler, seen by the other", disconnects(from, to))
  yield* check(
    "disconnect by the other, seen by the dialler",
    Effect.gen(function*() {
      yield* connect(from, to)
      yield* disconnects(to, from)
      // A node of this library redials a wanted peer.
      yield* from.run("disconnect", { peer: to.id })
    })
  )
})

const identifies = (peer: Peer, other: Peer) =>
  eventually(
    `${peer.kind} knows the agent of ${other.kind}`,
    peer.run("identify", { peer: other.id }),
    ({ agent, protocols, version }) =>
      version === "/codio/1.0.0" && agents[other.kind].test(agent) && protocols.includes(echoProtocol)
  )

const echo = Effect.fnUntraced(function*(from: Peer, to: Peer, bytes: number, mode: "echo" | "slow" = "echo") {
  const back = yield* from.run("stream", { peer: to.id, protocol: echoProtocol, bytes, mode })
  yield* hold(back.bytes === bytes && back.intact && typeof back.reset !== "string", JSON.stringify(back))
})

const send = Effect.fnUntraced(function*(from: Peer, to: Peer, bytes: number, protocol = drainProtocol) {
  const since = to.happened.length
  const back = yield* from.run("stream", { peer: to.id, protocol, bytes, mode: "send" })
  const received = yield* saw(to, "the bytes", ({ event, peer }) => event === "received" && peer === from.id, since)
  const isWhole = received.bytes === bytes && received.intact === true && typeof received.error !== "string"
  yield* hold(isWhole && typeof back.reset !== "string", JSON.stringify([back, received]))
})

const disconnects = Effect.fnUntraced(function*(peer: Peer, other: Peer) {
  const since = other.happened.length
  yield* peer.run("disconnect", { peer: other.id })
  yield* saw(other, "the end", ({ event, peer: whose }) => event === "disconnected" && whose === peer.id, since)
})

/** One stream of 1 GiB, which rust-yamux refuses to a sender whose frames are above 1 MiB. */
export const bulk = (bench: Bench) =>
  Effect.gen(function*() {
    for (const kind of ["rust", "go"] as const) {
      yield* bench.check(
        "1 GiB in one stream",
        `ts>${kind}`,
        Effect.scoped(Effect.gen(function*() {
          const [from, to] = [yield* bench.make("ts"), yield* bench.make(kind)]
          yield* connect(from, to)
          const { millis } = yield* from.run("stream", {
            peer: to.id,
            protocol: drainProtocol,
            bytes: 2 ** 30,
            mode: "send"
          })
          const received = yield* saw(to, "the bytes", ({ event }) => event === "received")
          yield* hold(received.bytes === 2 ** 30 && received.intact === true, JSON.stringify(received))
          yield* isConnected(to, from)
          return `${Math.round(2 ** 30 / 1e3 / millis)} MB/s`
        }))
      )
    }
  })

/** Twenty peers from one address within a second. */
export const crowds = (bench: Bench) =>
  Effect.gen(function*() {
    for (const source of kinds) {
      for (const target of kinds) {
        yield* bench.check(
          "20 connections at once from one address",
          `${source}>${target}`,
          Effect.scoped(Effect.gen(function*() {
            const [from, to] = [yield* bench.make(source), yield* bench.make(target)]
            const crowd = yield* from.run("crowd", { addr: to.addresses[0]!, count: 20 })
            yield* hold(crowd.connected === 20, `${crowd.connected} of 20 are connected: ${JSON.stringify(crowd)}`)
            const peers = to.happened.filter(({ event }) => event === "connected").map(({ peer }) => peer)
            yield* hold(new Set(peers).size === 20, `the other saw ${new Set(peers).size}`)
            return `${crowd.millis} ms`
          }))
        )
      }
    }
  })
