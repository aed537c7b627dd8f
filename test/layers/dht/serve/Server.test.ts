/**
 * What a server answers, message by message, without a socket.
 */
import { assert, describe, it } from "@effect/vitest"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, Exit, Schema } from "effect"
import { TestClock } from "effect/testing"
import {
  decodeMessage,
  encodeFrame,
  encodePeer,
  FrameReader,
  type Message,
  MessageType
} from "../../../../src/layers/dht/wire/Message.ts"
import { keyOf } from "../../../../src/layers/dht/wire/Nodes.ts"
import { compareDistance, positionOf } from "../../../../src/layers/dht/wire/Position.ts"
import * as Server from "../../../../src/layers/dht/serve/Server.ts"
import * as Naming from "../../../../src/layers/dht/serve/Naming.ts"
import * as ProviderRecords from "../../../../src/layers/dht/serve/ProviderRecords.ts"
import * as ValueRecords from "../../../../src/layers/dht/serve/ValueRecords.ts"
import { decodeRecord, encodeRecord } from "../../../../src/layers/dht/wire/Record.ts"
import { unprintable } from "../../../support/unprintable.ts"
import { RecordInvalid } from "../../../../src/schema/NetworkError.ts"
import { anyAddress, ownSubnetsOnly } from "../../../../src/services/AddressGuard.ts"
import type { Multiaddr } from "../../../../src/schema/Peer.ts"
import type { ValueRules } from "../../../../src/schema/ValueNamespace.ts"

const { ADD_PROVIDER, FIND_NODE, GET_PROVIDERS, GET_VALUE, PING, PUT_VALUE } = MessageType

const id = (name: string) => Buffer.from(`id of ${name}`)
const address = (text: string) => multiaddr(text).bytes
const at = (port: number) => address(`/ip4/203.0.113.7/tcp/${port}`)
const key = Buffer.from("a key")

const numbers: ValueRules = {
  name: "numbers",
  check: (_, bytes) => bytes.length > 0 ? Effect.void : Effect.fail(new RecordInvalid({ detail: "no number" })),
  replaces: (_, bytes, other) => Effect.succeed(bytes[0]! > other[0]!)
}

interface Given {
  /** The peers of the table, with the ports at which they are known. */
  readonly table?: Record<string, ReadonlyArray<number>>
  /** Others that are known. */
  readonly known?: Record<string, ReadonlyArray<number>>
  readonly provided?: ReadonlyArray<string>
}

/** A server, and who asks it what. */
const make = Effect.fnUntraced(function*(
  { known = {}, provided = [], table = {} }: Given = {},
  limits: ValueRecords.ValueRecordsOptions = {},
  rule = Naming.ruleOf(anyAddress, [])
) {
  const peers = Object.keys(table).map((name) => ({
    bytes: id(name),
    key: keyOf(id(name)),
    position: positionOf(id(name))
  }))
  const addressesBy = new Map<string, ReadonlyArray<Uint8Array>>()
  for (const [name, ports] of Object.entries({ self: [1], ...table, ...known })) {
    addressesBy.set(keyOf(id(name)), ports.map(at))
  }
  const providers = ProviderRecords.make()
  const values = ValueRecords.make([numbers], limits)
  const server = yield* Server.make({
    self: id("self"),
    closerMax: 20,
    closest: (target, count, without) =>
      peers.filter((peer) => peer.key !== without)
        .sort((a, b) => compareDistance(a.position, b.position, target)).slice(0, count),
    encodedOf: (bytes) => {
      const addresses = addressesBy.get(keyOf(bytes)) ?? []
      return addresses.length === 0 ? undefined : encodePeer(bytes, addresses)
    },
    isNamed: rule,
    addressesOf: (bytes) => addressesBy.get(keyOf(bytes)) ?? [],
    isProvided: (bytes) => provided.includes(keyOf(bytes)),
    providers,
    values
  })
  const sender = (name: string, more: Partial<Server.Sender> = {}): Server.Sender => ({
    bytes: id(name),
    key: keyOf(id(name)),
    tellers: [],
    dialledAt: undefined,
    subnet: undefined,
    ...more
  })
  const answer = Effect.fnUntraced(function*(message: Fields, from: Server.Sender = sender("asker")) {
    const answered = yield* Effect.try({
      try: () => server.answer(decode(encodeFrame({ ...message, ...peersOf(message) })), from),
      catch: (error) => error as Server.Refusal
    })
    const frame = Effect.isEffect(answered) ? yield* answered : answered
    return frame === undefined ? undefined : decode(frame)
  })
  /** The names in an answer. */
  const names = (message: Fields, from?: Server.Sender) =>
    Effect.map(answer(message, from), (answer) => answer!.closer.map(({ id }) => Buffer.from(id).toString().slice(6)))
  return { answer, names, addressesBy, providers, sender, server, values }
})

interface Fields {
  readonly type: number
  readonly key?: Uint8Array
  readonly record?: Uint8Array
  readonly providers?: Record<string, ReadonlyArray<Uint8Array>>
  readonly ttlSeconds?: number
}

const peersOf = ({ providers }: Fields) => ({
  providers: Object.entries(providers ?? {}).map(([name, addresses]) => encodePeer(id(name), addresses))
})

const decode = (frame: Uint8Array): Message => {
  const found: Array<Message> = []
  new FrameReader().push(frame, (bytes) => found.push(decodeMessage(bytes)))
  assert.lengthOf(found, 1)
  return found[0]!
}

const portsOf = (message: Message | undefined) =>
  (message?.providers ?? []).map(({ addresses }) => addresses.map((bytes) => multiaddr(bytes).toString()))

const many = (count: number, ports: ReadonlyArray<number>) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`peer ${i}`, ports]))

describe("Server", () => {
  describe("FIND_NODE", () => {
    it.effect("names the closest peers that have an address, and never the asker", () =>
      Effect.gen(function*() {
        const { names, sender } = yield* make({ table: { ...many(30, [1]), hidden: [] } })
        const target = Buffer.from("target")
        const sorted = Array.from({ length: 30 }, (_, i) => `peer ${i}`).sort((a, b) =>
          compareDistance(positionOf(id(a)), positionOf(id(b)), positionOf(target))
        )
        const found = yield* names({ type: FIND_NODE, key: target })
        assert.isAtLeast(found.length, 19)
        assert.deepStrictEqual(found, sorted.slice(0, found.length))
        const asker = sorted[0]!
        assert.deepStrictEqual(
          (yield* names({ type: FIND_NODE, key: target }, sender(asker))).slice(0, 19),
          sorted.slice(1, 20)
        )
        const hidden = yield* names({ type: FIND_NODE, key: id("hidden") })
        assert.notInclude(hidden, "hidden")
        assert.lengthOf(hidden, 19)
      }))

    it.effect("names the target first, also when it is not in the table, and once when it is; not to itself", () =>
      Effect.gen(function*() {
        const { names, sender } = yield* make({ table: many(25, [1]), known: { client: [2] } })
        const client = yield* names({ type: FIND_NODE, key: id("client") })
        assert.strictEqual(client[0], "client")
        assert.lengthOf(client, 21)
        const member = yield* names({ type: FIND_NODE, key: id("peer 3") })
        assert.strictEqual(member[0], "peer 3")
        assert.lengthOf(member, 20)
        assert.strictEqual(new Set(member).size, 20)
        assert.strictEqual((yield* names({ type: FIND_NODE, key: id("self") }))[0], "self")
        assert.notInclude(yield* names({ type: FIND_NODE, key: id("client") }, sender("client")), "client")
        assert.notInclude(yield* names({ type: FIND_NODE, key: id("peer 3") }, sender("peer 3")), "peer 3")
      }))

    it.effect("answers at most 16 KiB, which is what Rust reads", () =>
      Effect.gen(function*() {
        const ports = Array.from({ length: 100 }, (_, i) => i + 1)
        const { server, sender } = yield* make({ table: many(25, ports), known: { client: ports } })
        for (const type of [FIND_NODE, GET_PROVIDERS, GET_VALUE]) {
          const frame = server.answer({ type, key: id("client"), closer: [], providers: [] }, sender("asker"))
          assert.instanceOf(frame, Uint8Array)
          assert.isAtMost((frame as Uint8Array).length, 16 * 1024)
          assert.isAtLeast(decode(frame as Uint8Array).closer.length, 8)
        }
      }))
  })

  describe("ADD_PROVIDER", () => {
    it.effect("takes keys of 1 to 80 bytes, and refuses others", () =>
      Effect.gen(function*() {
        const { answer, providers } = yield* make()
        for (const length of [1, 80]) {
          const providers = { asker: [at(1)] }
          assert.isUndefined(yield* answer({ type: ADD_PROVIDER, key: new Uint8Array(length), providers }))
          const found = yield* answer({ type: GET_PROVIDERS, key: new Uint8Array(length) })
          assert.deepStrictEqual(portsOf(found), [["/ip4/203.0.113.7/tcp/1"]])
          assert.deepStrictEqual(found!.key, new Uint8Array(length))
        }
        for (const type of [ADD_PROVIDER, GET_PROVIDERS]) {
          for (const bad of [{}, { key: new Uint8Array(0) }, { key: new Uint8Array(81) }]) {
            assert.instanceOf(yield* Effect.flip(answer({ type, ...bad })), Server.Refusal)
          }
        }
        assert.strictEqual(providers.size(), 2)
      }))

    it.effect("stores nobody but the sender", () =>
      Effect.gen(function*() {
        const { answer, providers } = yield* make()
        yield* answer({ type: ADD_PROVIDER, key, providers: { victim: [at(1)] } })
        yield* answer({ type: ADD_PROVIDER, key })
        assert.strictEqual(providers.size(), 0)
        yield* answer({ type: ADD_PROVIDER, key, providers: { victim: [at(1)], asker: [at(2)], other: [at(3)] } })
        const found = yield* answer({ type: GET_PROVIDERS, key })
        assert.deepStrictEqual(found!.providers.map(({ id }) => Buffer.from(id)), [id("asker")])
        assert.deepStrictEqual(portsOf(found), [["/ip4/203.0.113.7/tcp/2"]])
      }))

    it.effect("fills an empty list from identify, then from where it was dialled, then at the time of the answer", () =>
      Effect.gen(function*() {
        const { answer, addressesBy, providers, sender } = yield* make({ known: { told: [5] } })
        const dialledAt = address("/ip4/198.51.100.1/tcp/9")
        const provide = (name: string, more?: Partial<Server.Sender>) =>
          Effect.andThen(
            answer({ type: ADD_PROVIDER, key: id(name), providers: { [name]: [] } }, sender(name, more)),
            Effect.map(answer({ type: GET_PROVIDERS, key: id(name) }), portsOf)
          )
        assert.deepStrictEqual(yield* provide("told", { dialledAt }), [["/ip4/203.0.113.7/tcp/5"]])
        assert.deepStrictEqual(yield* provide("dialled", { dialledAt }), [["/ip4/198.51.100.1/tcp/9"]])
        assert.deepStrictEqual(yield* provide("unknown"), [])
        assert.strictEqual(providers.size(), 3)
        addressesBy.set(keyOf(id("unknown")), [at(8)])
        assert.deepStrictEqual(portsOf(yield* answer({ type: GET_PROVIDERS, key: id("unknown") })), [
          ["/ip4/203.0.113.7/tcp/8"]
        ])
      }))

    it.effect("keeps and names no private address of a stranger from outside, and does one of a sender in its subnet", () =>
      Effect.gen(function*() {
        const subnet = [{ address: "10.0.0.2", prefixLength: 24, family: 4, internal: false }] as const
        const { addressesBy, answer, sender } = yield* make({}, {}, Naming.ruleOf(ownSubnetsOnly, subnet))
        const [hidden, far, open] = ["/ip4/10.0.0.5/tcp/1", "/ip4/10.9.0.5/tcp/1", "/ip4/44.0.0.1/tcp/1"]
        const provide = (teller: string, told: ReadonlyArray<string>, more: Partial<Server.Sender> = {}) => {
          const from = sender("asker", { tellers: [teller as Multiaddr], ...more })
          return Effect.andThen(
            answer({ type: ADD_PROVIDER, key, providers: { asker: told.map(address) } }, from),
            Effect.map(answer({ type: GET_PROVIDERS, key }), portsOf)
          )
        }
        const outside = "/ip4/44.0.0.9/tcp/51234"
        const inside = "/ip4/10.0.0.9/tcp/51234"
        assert.deepStrictEqual(yield* provide(outside, [hidden]), [])
        assert.deepStrictEqual(yield* provide(outside, [hidden, far, open, far]), [[open]])
        assert.deepStrictEqual(yield* provide(inside, [hidden, far, open]), [[hidden, open]])
        // What identify told, and where it was dialled, are judged alike.
        addressesBy.set(keyOf(id("asker")), [hidden, open].map(address))
        assert.deepStrictEqual(yield* provide(outside, [far]), [[open]])
        assert.deepStrictEqual(yield* provide(inside, [far]), [[hidden, open]])
        addressesBy.delete(keyOf(id("asker")))
        const dialled = (at: string) => provide(at, [], { dialledAt: address(at) })
        assert.deepStrictEqual(yield* dialled(hidden), [[hidden]])
        assert.deepStrictEqual(yield* dialled(open), [[open]])
      }))

    it.effect("leaves out addresses that cannot be read, and those beyond what it keeps", () =>
      Effect.gen(function*() {
        const { answer } = yield* make({ known: { asker: [77] } })
        const provide = (addresses: ReadonlyArray<Uint8Array>) =>
          Effect.andThen(
            answer({ type: ADD_PROVIDER, key, providers: { asker: addresses } }),
            Effect.map(answer({ type: GET_PROVIDERS, key }), (answer) => portsOf(answer)[0])
          )
        const broken = [
          Uint8Array.of(),
          Uint8Array.of(4, 1, 2),
          Uint8Array.of(255, 255, 255, 255),
          Buffer.from("/ip4/1"),
          unprintable
        ]
        assert.deepStrictEqual(yield* provide([...broken, at(1), ...broken, at(2)]), [
          "/ip4/203.0.113.7/tcp/1",
          "/ip4/203.0.113.7/tcp/2"
        ])
        // None that can be read is none at all.
        assert.deepStrictEqual(yield* provide(broken), ["/ip4/203.0.113.7/tcp/77"])
        assert.lengthOf((yield* provide(Array.from({ length: 32 }, (_, i) => at(i + 1))))!, 16)
        const long = (letter: string) => address(`/dns4/${letter.repeat(200)}/tcp/1`)
        const kept = yield* provide([..."abcdefgh"].map(long))
        assert.lengthOf(kept!, 4)
        assert.lengthOf((yield* provide([..."abcdefgh"].map(long).concat(at(1))))!, 5)
      }))

    it.effect("counts a sender by its subnet", () =>
      Effect.gen(function*() {
        const { answer, providers, sender } = yield* make()
        for (let i = 0; i < 100; i++) {
          const from = sender(`${i}`, i < 80 ? { subnet: "203.0.113.0/24" } : {})
          yield* answer({ type: ADD_PROVIDER, key, providers: { [`${i}`]: [at(1)] } }, from)
        }
        // A quarter of 256, and those that are not counted.
        assert.strictEqual(providers.size(), 64 + 20)
      }))

    it.effect("keeps a record for its ttl, at most 24 hours, and none with a ttl of 0", () =>
      Effect.gen(function*() {
        const { answer } = yield* make()
        const provide = (ttlSeconds: number) =>
          answer({ type: ADD_PROVIDER, key, providers: { asker: [at(1)] }, ttlSeconds })
        const count = Effect.map(answer({ type: GET_PROVIDERS, key }), (answer) => answer!.providers.length)
        yield* provide(0)
        assert.strictEqual(yield* count, 0)
        yield* provide(60)
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual(yield* count, 1)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* count, 0)
        yield* provide(Number.MAX_SAFE_INTEGER)
        yield* TestClock.adjust("23 hours")
        assert.strictEqual(yield* count, 1)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(yield* count, 0)
      }))

    it.effect("forgets what has expired though nobody asks for it", () =>
      Effect.gen(function*() {
        const { answer, providers } = yield* make()
        for (let i = 0; i < 100; i++) {
          yield* answer({ type: ADD_PROVIDER, key: Uint8Array.of(i), providers: { asker: [at(1)] } })
        }
        yield* TestClock.adjust("23 hours")
        assert.strictEqual(providers.size(), 100)
        yield* TestClock.adjust("61 minutes")
        assert.strictEqual(providers.size(), 0)
      }))
  })

  describe("GET_PROVIDERS", () => {
    it.effect("names those who provide the key, this node among them, and closer peers", () =>
      Effect.gen(function*() {
        const { answer, names, sender } = yield* make({ table: many(3, [1]), provided: [keyOf(key)] })
        yield* answer({ type: ADD_PROVIDER, key, providers: { one: [at(2)] } }, sender("one"))
        const found = yield* answer({ type: GET_PROVIDERS, key })
        assert.deepStrictEqual(portsOf(found), [["/ip4/203.0.113.7/tcp/1"], ["/ip4/203.0.113.7/tcp/2"]])
        assert.lengthOf(found!.closer, 3)
        assert.lengthOf(yield* names({ type: GET_PROVIDERS, key }, sender("peer 1")), 2)
        assert.deepStrictEqual(portsOf(yield* answer({ type: GET_PROVIDERS, key: Buffer.from("another") })), [])
      }))

    it.effect("answers at most 16 KiB, closer peers and providers together, and takes turns", () =>
      Effect.gen(function*() {
        const { answer, sender, server } = yield* make({ table: many(20, [1, 2, 3]) })
        const ports = [1, 2, 3, 4, 5, 6, 7, 8].map(at)
        for (let i = 0; i < 200; i++) {
          const name = `provider ${i}`
          yield* answer({ type: ADD_PROVIDER, key, providers: { [name]: ports } }, sender(name))
        }
        const seen = new Set<string>()
        for (let i = 0; i < 3; i++) {
          const frame = server.answer({ type: GET_PROVIDERS, key, closer: [], providers: [] }, sender("asker"))
          assert.isAtMost((frame as Uint8Array).length, 16 * 1024)
          const { closer, providers } = decode(frame as Uint8Array)
          assert.lengthOf(closer, 20)
          assert.isAbove(providers.length, 80)
          for (const provider of providers) seen.add(keyOf(provider.id))
        }
        assert.strictEqual(seen.size, 200)
      }))
  })

  it.effect("leaves half of an answer to providers when the addresses of closer peers would fill it", () =>
    Effect.gen(function*() {
      const { answer, sender } = yield* make({ table: many(20, Array.from({ length: 80 }, (_, i) => i + 1)) })
      for (let i = 0; i < 100; i++) {
        yield* answer({ type: ADD_PROVIDER, key, providers: { [`${i}`]: [1, 2, 3, 4].map(at) } }, sender(`${i}`))
      }
      const found = yield* answer({ type: GET_PROVIDERS, key })
      assert.isAtLeast(found!.closer.length, 5)
      assert.isAtLeast(found!.providers.length, 90)
    }))

  describe("values", () => {
    const name = Buffer.from("/numbers/one")
    const record = (value: number, of = name) => encodeRecord({ key: of, value: Uint8Array.of(value) }, 0)

    it.effect("stores a value, sends it back, and serves it with closer peers", () =>
      Effect.gen(function*() {
        const { answer } = yield* make({ table: many(3, [1]) })
        const none = yield* answer({ type: GET_VALUE, key: name })
        assert.isUndefined(none!.record)
        assert.lengthOf(none!.closer, 3)
        const stored = yield* answer({ type: PUT_VALUE, key: name, record: record(2) })
        assert.strictEqual(stored!.type, PUT_VALUE)
        assert.deepStrictEqual(Buffer.from(stored!.key!), name)
        assert.deepStrictEqual([...decodeRecord(stored!.record!)!.value], [2])
        const found = yield* answer({ type: GET_VALUE, key: name })
        assert.deepStrictEqual([...decodeRecord(found!.record!)!.value], [2])
        assert.lengthOf(found!.closer, 3)
        yield* TestClock.adjust("48 hours")
        assert.isUndefined((yield* answer({ type: GET_VALUE, key: name }))!.record)
      }))

    it.effect("counts values by their sender and its subnet", () =>
      Effect.gen(function*() {
        const { answer, sender } = yield* make({}, { recordsMax: 4, perSenderMax: 1 })
        const put = (path: string, from: Server.Sender) => {
          const of = Buffer.from(`/numbers/${path}`)
          return answer({ type: PUT_VALUE, key: of, record: record(1, of) }, from)
        }
        const has = (path: string) =>
          Effect.map(answer({ type: GET_VALUE, key: Buffer.from(`/numbers/${path}`) }), (found) =>
            found!.record !== undefined)
        for (const path of ["a", "b"]) {
          yield* put(path, sender("alice"))
        }
        yield* put("c", sender("bob", { subnet: "198.51.100.0/24" }))
        yield* put("d", sender("carol", { subnet: "198.51.100.0/24" }))
        const error = yield* Effect.flip(put("e", sender("dave", { subnet: "198.51.100.0/24" })))
        assert.include(error.detail, "subnet has its share")
        assert.deepStrictEqual(yield* Effect.forEach(["a", "b", "c", "d", "e"], has), [false, true, true, true, false])
      }))

    it.effect("refuses a value that is worse, of another key, of no namespace, or missing", () =>
      Effect.gen(function*() {
        const { answer } = yield* make()
        yield* answer({ type: PUT_VALUE, key: name, record: record(2) })
        const refused: ReadonlyArray<readonly [Partial<Fields>, string]> = [
          [{ key: name, record: record(1) }, "a value is stored that wins over it"],
          [{ key: name, record: record(3, Buffer.from("/numbers/two")) }, "the record is of another key"],
          [
            { key: Buffer.from("/pk/x"), record: record(3, Buffer.from("/pk/x")) },
            "its key is in no namespace that this node knows"
          ],
          [{ key: name, record: Buffer.of(9) }, "it is no record"],
          [{ key: name }, "no value to store"],
          [{ record: record(3) }, "a message without a key"]
        ]
        for (const [fields, detail] of refused) {
          const error = yield* Effect.flip(answer({ type: PUT_VALUE, ...fields }))
          assert.instanceOf(error, Server.Refusal)
          assert.strictEqual(error.message, detail)
        }
        const found = yield* answer({ type: GET_VALUE, key: name })
        assert.deepStrictEqual([...decodeRecord(found!.record!)!.value], [2])
      }))
  })

  it.effect("answers a ping, and refuses a message of a type it does not know and a question without a key", () =>
    Effect.gen(function*() {
      const { answer } = yield* make()
      assert.strictEqual((yield* answer({ type: PING }))!.type, PING)
      for (const message of [{ type: 6 }, { type: FIND_NODE }, { type: GET_VALUE, key: new Uint8Array(0) }]) {
        assert.instanceOf(yield* Effect.flip(answer(message)), Server.Refusal)
      }
    }))

  const Bytes = Schema.Uint8Array
  const Peer = Schema.Struct({ id: Schema.Union([Bytes, Schema.Literal("sender")]), addresses: Schema.Array(Bytes) })
  const Message = Schema.Struct({
    type: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 7 })),
    key: Schema.Union([Schema.Undefined, Bytes, Schema.Literal("value"), Schema.Literal("id")]),
    record: Schema.Union([Schema.Undefined, Bytes, Schema.Literal("record")]),
    closer: Schema.Array(Peer),
    providers: Schema.Array(Peer),
    ttlSeconds: Schema.Union([Schema.Undefined, Schema.Number])
  })

  it.effect.prop(
    "refuses or answers any sequence of messages, and does nothing else",
    [Schema.Array(Message)],
    ([messages]) =>
      Effect.gen(function*() {
        const { providers, sender, server, values } = yield* make({ table: many(5, [1]) })
        const name = Buffer.from("/numbers/any")
        const from = sender("asker")
        const peer = ({ addresses, id }: typeof Peer.Type) => {
          const bytes = id === "sender" ? from.bytes : id
          return { id: bytes, addresses, encoded: encodePeer(bytes, addresses) }
        }
        for (const { closer, key, providers, record, ttlSeconds, type } of messages) {
          const bytes = key === "value" ? name : key === "id" ? id("peer 1") : key
          const value = record === "record" ? encodeRecord({ key: name, value: Uint8Array.of(1) }, 0) : record
          const exit = yield* Effect.exit(
            Effect.suspend(() => {
              const answer = server.answer({
                type,
                ...bytes !== undefined && { key: bytes },
                ...value !== undefined && { record: value },
                ...ttlSeconds !== undefined && { ttlSeconds },
                closer: closer.map(peer),
                providers: providers.map(peer)
              }, from)
              return Effect.isEffect(answer) ? answer : Effect.succeed(answer)
            }).pipe(Effect.catchDefect((defect) => Effect.fail(defect)))
          )
          if (Exit.isSuccess(exit)) {
            if (exit.value !== undefined) assert.strictEqual(decode(exit.value).type, type)
          } else assert.instanceOf(yield* Effect.flip(exit), Server.Refusal)
        }
        assert.isAtMost(providers.size(), messages.length)
        assert.isAtMost(values.size(), messages.length)
      })
  )
})
