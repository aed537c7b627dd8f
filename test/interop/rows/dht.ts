/**
 * The DHT: each implementation once as provider, as storer and as finder; values; two names of the protocol.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { type Bench, connect, hold, knows } from "../Bench.ts"
import type { Fault } from "../Matrix.ts"
import { eventually, type Kind, kinds, type Peer, type PeerOptions } from "../Peer.ts"

const codio = "/codio/kad/1.0.0"
const ipfs = "/ipfs/kad/1.0.0"

/** The bytes of a text, and the sha2-256 multihash of them. */
const rawKey = (text: string) => Buffer.from(text).toString("hex")
const hashedKey = (text: string) => `1220${createHash("sha256").update(text).digest("hex")}`

const goneFault: Fault = {
  name: "go-libp2p-kad-dht drops a provider that sends no address, and says nothing",
  shows: /never: rust finds rust at go/
}

/**
 * A provider tells a storer and is gone before a finder, which has never met it, asks the storer. So a found record was
 * stored.
 */
const stored = Effect.fnUntraced(function*(
  bench: Bench,
  row: string,
  storer: Kind,
  options: PeerOptions,
  keys: (provider: Kind) => ReadonlyArray<string>,
  choose: { readonly providers: ReadonlyArray<Kind>; readonly finders: ReadonlyArray<Kind>; readonly fault?: Fault }
) {
  const middle = yield* bench.make(storer, options)
  const provided: Array<readonly [provider: Kind, id: string]> = []
  for (const provider of choose.providers) {
    const exit = yield* Effect.exit(Effect.scoped(Effect.gen(function*() {
      const peer = yield* bench.make(provider, options)
      yield* connect(peer, middle)
      yield* knows(peer)
      for (const key of keys(provider)) yield* peer.run("provide", { key })
      // An announcement has no answer; a question to the storer follows, whose answer shows that the record was read.
      yield* Effect.ignore(peer.run("find", { key: rawKey("after") }))
      return peer.id
    })))
    if (exit._tag === "Success") provided.push([provider, exit.value])
    else yield* bench.check(row, `${provider}>${provider}`, exit)
  }
  for (const finder of choose.finders) {
    yield* Effect.scoped(Effect.gen(function*() {
      const peer = yield* bench.make(finder, options)
      yield* connect(peer, middle)
      yield* knows(peer)
      for (const [provider, id] of provided) {
        const test = Effect.gen(function*() {
          for (const key of keys(provider)) {
            yield* eventually(
              `${finder} finds ${provider} at ${storer} under ${key}`,
              peer.run("find", { key }),
              ({ providers }) => providers.some(({ peer }) => peer === id),
              choose.fault === undefined ? "30 seconds" : "2 seconds"
            )
          }
        })
        yield* bench.check(row, `${provider}>${finder}`, test, choose.fault)
      }
    })).pipe(Effect.catch((error) => bench.check(row, `${storer}>${finder}`, Effect.fail(error))))
  }
}, Effect.scoped)

export const providers = (bench: Bench) =>
  Effect.gen(function*() {
    const keys = (storer: string) => (provider: Kind) => {
      const text = `${provider} told ${storer}`
      return [hashedKey(text), rawKey(text), rawKey("x".repeat(79) + provider[0])]
    }
    for (const storer of kinds) {
      yield* stored(bench, `found where ${storer} stored it`, storer, { kad: codio }, keys(storer), {
        providers: kinds,
        finders: kinds
      })
    }
    // As a program with the crate does by default: a text as the key, and no external address.
    const crate = () => [rawKey("my-content-key")]
    for (const storer of kinds) {
      yield* stored(
        bench,
        `the crate's provider, stored by ${storer}`,
        storer,
        { kad: codio, external: false },
        crate,
        {
          providers: ["rust"],
          finders: storer === "go" ? ["rust"] : kinds,
          ...(storer === "go" ? { fault: goneFault } : {})
        }
      )
    }
    for (const storer of kinds) {
      yield* stored(bench, `over ${ipfs}, stored by ${storer}`, storer, { kad: ipfs }, keys("ipfs"), {
        providers: kinds.filter((kind) => kind !== storer),
        finders: kinds.filter((kind) => kind !== storer)
      })
    }
    for (const other of ["rust", "go"] as const) {
      yield* bench.check(
        `${codio} apart from ${ipfs}`,
        `ts>${other}`,
        Effect.scoped(Effect.gen(function*() {
          const [node, stranger] = [yield* bench.make("ts", { kad: codio }), yield* bench.make(other, { kad: ipfs })]
          yield* connect(node, stranger)
          yield* eventually("identified", stranger.run("identify", { peer: node.id }), ({ version }) => version !== "")
          const error = yield* Effect.flip(node.run("find", { key: hashedKey("anything") }))
          yield* hold(error.message.includes("no peer of the DHT is known"), error.message)
          yield* hold((yield* stranger.run("kad-peers")).count === 0, "it is in the other's table")
        })).pipe(Effect.mapError((error) => error instanceof Error ? error : new Error("it found some")))
      )
    }
  })

export const values = (bench: Bench) =>
  Effect.scoped(Effect.gen(function*() {
    const peers: Record<Kind, Peer> = {
      ts: yield* bench.make("ts", { kad: codio }),
      rust: yield* bench.make("rust", { kad: codio }),
      go: yield* bench.make("go", { kad: codio })
    }
    yield* connect(peers.ts, peers.rust)
    yield* connect(peers.ts, peers.go)
    yield* connect(peers.rust, peers.go)
    for (const kind of kinds) yield* knows(peers[kind], 2)

    const hex = (text: string) => Buffer.from(text).toString("hex")
    for (const putter of kinds) {
      const { id, run } = peers[putter]
      const isPut = yield* Effect.exit(Effect.gen(function*() {
        for (const sequence of [1, 2]) {
          yield* run("put", { path: "profile", value: hex(`${putter} ${sequence}`), sequence, quorum: 2 })
        }
      }))
      for (const getter of kinds) {
        yield* bench.check(
          "a value put with quorum 2, got with 2",
          `${putter}>${getter}`,
          Effect.gen(function*() {
            yield* isPut
            const got = yield* peers[getter].run("get", { path: `${id}/profile`, quorum: 2 })
            const isRight = got.publisher === id && got.sequence === 2 && got.value === hex(`${putter} 2`)
            yield* hold(isRight, JSON.stringify(got))
          })
        )
      }
    }
    yield* bench.check(
      "QuorumFailed with the numbers",
      "ts>ts",
      Effect.gen(function*() {
        const put = yield* Effect.flip(peers.ts.run("put", { path: "many", value: "00", quorum: 3 }))
        yield* hold(put.message.includes("2 of 2 nodes asked, where 3 were needed"), put.message)
        const get = yield* Effect.flip(peers.ts.run("get", { path: `${peers.ts.id}/many`, quorum: 3 }))
        yield* hold(get.message.includes("2 of 2 nodes asked, where 3 were needed"), get.message)
      }).pipe(Effect.mapError((error) => error instanceof Error ? error : new Error("it reached more")))
    )
  })).pipe(Effect.catch((error) => bench.check("values", "ts>ts", Effect.fail(error))))
