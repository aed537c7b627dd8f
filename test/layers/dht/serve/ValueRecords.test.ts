import { assert, describe, it } from "@effect/vitest"
import { Libp2pRecord } from "@libp2p/record"
import { Deferred, Effect, Exit, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as PublishedValue from "../../../../src/layers/dht/libp2p/PublishedValue.ts"
import * as SeededIdentity from "../../../../src/layers/machine/SeededIdentity.ts"
import * as ValueRecords from "../../../../src/layers/dht/serve/ValueRecords.ts"
import { decodeRecord, encodeRecord } from "../../../../src/layers/dht/wire/Record.ts"
import { RecordInvalid } from "../../../../src/schema/NetworkError.ts"
import * as ValueNamespace from "../../../../src/schema/ValueNamespace.ts"

const start = 1_800_000_000_000
const hours = (count: number) => count * 60 * 60 * 1000

/** Numbers of one byte or more, of which the greater first byte wins. */
const numbers: ValueNamespace.ValueRules = {
  name: "numbers",
  check: (_, bytes) => bytes.length > 0 ? Effect.void : Effect.fail(new RecordInvalid({ detail: "no number" })),
  replaces: (_, bytes, other) => Effect.succeed(bytes[0]! > other[0]!)
}
const key = (path: string) => Buffer.from(`/numbers/${path}`)

const make = (options?: ValueRecords.ValueRecordsOptions, rules = [numbers]) => {
  const records = ValueRecords.make(rules, options)
  return {
    records,
    put: (path: string, value: ReadonlyArray<number> | Uint8Array, now = start, sender?: ValueRecords.ValueSender) =>
      records.put(
        key(path),
        encodeRecord({ key: key(path), value: value instanceof Uint8Array ? value : Uint8Array.from(value) }, now),
        now,
        sender
      ),
    get: (path: string, now = start) => {
      const record = records.get(key(path), now)
      return record === undefined ? undefined : [...Libp2pRecord.deserialize(record).value]
    }
  }
}

const from = (name: string, subnet?: string): ValueRecords.ValueSender => ({ key: name, subnet })

const refusal = (effect: Effect.Effect<void, RecordInvalid>) => Effect.map(Effect.flip(effect), ({ detail }) => detail)

describe("ValueRecords", () => {
  it.effect("keeps the value that wins, and refuses one over which the stored one does", () =>
    Effect.gen(function*() {
      const { get, put, records } = make()
      assert.isUndefined(get("a"))
      yield* put("a", [2])
      assert.strictEqual(yield* refusal(put("a", [1])), "a value is stored that wins over it")
      assert.deepStrictEqual(get("a"), [2])
      yield* put("a", [2, 9])
      yield* put("a", [3])
      assert.deepStrictEqual(get("a"), [3])
      assert.isUndefined(get("b"))
      assert.strictEqual(records.size(), 1)
    }))

  it.effect("answers with the record that the wire carries, its key and when it was put", () =>
    Effect.gen(function*() {
      const { put, records } = make()
      yield* TestClock.setTime(start)
      yield* put("a", [2])
      const record = Libp2pRecord.deserialize(records.get(key("a"), start)!)
      assert.deepStrictEqual([...record.key], [...key("a")])
      assert.strictEqual(record.timeReceived.getTime(), start)
    }))

  it.effect("takes a record without a time, as Rust sends it", () =>
    Effect.gen(function*() {
      const { get, records } = make()
      const name = key("a")
      // Record: key = 1, value = 2, timeReceived = 5
      const record = Uint8Array.of(10, name.length, ...name, 18, 1, 7)
      yield* records.put(name, record, start)
      // What the message was read from is its reader's again.
      record.fill(0)
      assert.deepStrictEqual(get("a"), [7])
    }))

  it.effect("refuses what is no record, one of another key, one of no namespace, and what the rules refuse", () =>
    Effect.gen(function*() {
      const { put, records } = make()
      const record = encodeRecord({ key: key("a"), value: Uint8Array.of(1) }, start)
      assert.strictEqual(yield* refusal(records.put(key("a"), record.subarray(0, 9), start)), "it is no record")
      assert.strictEqual(yield* refusal(records.put(key("b"), record, start)), "the record is of another key")
      assert.strictEqual(
        yield* refusal(records.put(key("a"), new Uint8Array(), start)),
        "the record is of another key"
      )
      for (const text of ["/unknown/a", "/numbers/", "numbers", "", `/numbers/${"x".repeat(300)}`]) {
        const other = Buffer.from(text)
        const refused = records.put(other, encodeRecord({ key: other, value: Uint8Array.of(1) }, start), start)
        assert.strictEqual(yield* refusal(refused), "its key is in no namespace that this node knows")
      }
      assert.strictEqual(yield* refusal(put("a", [])), "no number")
      assert.strictEqual(records.size(), 0)
    }))

  it.effect("keeps a signed value of the built-in namespace, and none that is not", () =>
    Effect.gen(function*() {
      const publisher = SeededIdentity.make(new Uint8Array(32).fill(1))
      const path = PublishedValue.path(publisher.peerId, "profile")
      const name = yield* ValueNamespace.keyBytes("codio", path)
      const records = ValueRecords.make([PublishedValue.namespace])
      const seal = (sequence: number) =>
        PublishedValue.namespace.seal(path, { value: Uint8Array.of(sequence), sequence }, {
          signer: publisher,
          previous: undefined
        })
      const put = (value: Uint8Array) => records.put(name, encodeRecord({ key: name, value }, start), start)
      const [one, two] = yield* Effect.all([seal(1), seal(2)])
      const broken = one.slice()
      broken[broken.length - 1]! ^= 1
      assert.isTrue(Exit.isFailure(yield* Effect.exit(put(broken))))
      yield* put(two)
      yield* Effect.flip(put(one))
      assert.deepStrictEqual(decodeRecord(records.get(name, start)!)!.value, two)
    }))

  it.effect("serves a value for 48 hours from its last put, and then takes any", () =>
    Effect.gen(function*() {
      const { get, put, records } = make()
      yield* put("a", [2])
      yield* put("b", [2])
      yield* put("a", [2], start + hours(24))
      assert.deepStrictEqual(get("b", start + hours(48) - 1), [2])
      assert.isUndefined(get("b", start + hours(48)))
      assert.deepStrictEqual(get("a", start + hours(72) - 1), [2])
      assert.isUndefined(get("a", start + hours(72)))
      yield* put("b", [1], start + hours(48))
      assert.deepStrictEqual(get("b", start + hours(48)), [1])
      // A put forgets what has expired.
      yield* put("c", [1], start + hours(72))
      assert.strictEqual(records.size(), 2)
    }))

  it.effect("judges puts of different keys side by side, so many at once, in the order of each key", () =>
    Effect.gen(function*() {
      const begun: Array<string> = []
      const gates = new Map<string, Deferred.Deferred<void>>()
      for (const path of ["a", "b", "c", "d"]) gates.set(path, yield* Deferred.make<void>())
      const slow: ValueNamespace.ValueRules = {
        ...numbers,
        check: (path, bytes) =>
          Effect.sync(() => void begun.push(`${path}${bytes[0]}`)).pipe(
            Effect.andThen(Deferred.await(gates.get(path)!)),
            Effect.andThen(numbers.check(path, bytes))
          )
      }
      const { get, put } = make({ judgedMax: 2 }, [slow])
      const start = (path: string, value: number) =>
        Effect.forkChild(Effect.exit(put(path, [value])), { startImmediately: true })
      // The first value of `a` delays the others of `a`, which do not count meanwhile.
      const ofA = [yield* start("a", 4), yield* start("a", 9), yield* start("a", 8)]
      const others = [yield* start("b", 1), yield* start("c", 1), yield* start("d", 1)]
      assert.deepStrictEqual(begun, ["a4", "b1"])
      yield* Deferred.succeed(gates.get("b")!, undefined)
      yield* Fiber.join(others[0]!)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual([get("a"), get("b")], [undefined, [1]])
      assert.deepStrictEqual(begun, ["a4", "b1", "c1"])
      // A put that is given up no longer counts.
      yield* Fiber.interrupt(others[1]!)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(begun, ["a4", "b1", "c1", "d1"])
      for (const gate of gates.values()) yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual((yield* Fiber.joinAll(ofA)).map(Exit.isSuccess), [true, true, false])
      yield* Fiber.join(others[2]!)
      assert.deepStrictEqual(begun.slice(4), ["a9", "a8"])
      assert.deepStrictEqual([get("a"), get("c"), get("d")], [[9], undefined, [1]])
    }))

  it.effect("judges puts of one key one after the other, also when the rules take their time", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const slow: ValueNamespace.ValueRules = {
        ...numbers,
        replaces: (path, ...both) => Effect.andThen(Deferred.await(gate), numbers.replaces(path, ...both))
      }
      const { get, put } = make({}, [slow])
      yield* put("a", [1])
      const puts = yield* Effect.forkChild(
        Effect.forEach([4, 9, 8], (value) => Effect.exit(put("a", [value])), { concurrency: "unbounded" }),
        { startImmediately: true }
      )
      assert.deepStrictEqual(get("a"), [1])
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual((yield* Fiber.join(puts)).map(Exit.isSuccess), [true, true, false])
      assert.deepStrictEqual(get("a"), [9])
    }))

  it.effect("is bounded in number, in bytes and in the bytes of a value; the oldest makes room", () =>
    Effect.gen(function*() {
      const few = make({ recordsMax: 3 })
      for (const path of ["a", "b", "c"]) yield* few.put(path, [1])
      yield* few.put("a", [1])
      yield* few.put("d", [1])
      assert.deepStrictEqual(["a", "b", "c", "d"].filter((path) => few.get(path) !== undefined), ["a", "c", "d"])

      const small = make({ bytesMax: 4096 })
      for (const path of ["a", "b", "c"]) yield* small.put(path, new Uint8Array(1400).fill(1))
      assert.strictEqual(small.records.size(), 2)
      assert.isAtMost(small.records.bytes(), 4096)
      yield* small.put("c", [1])
      assert.isBelow(small.records.bytes(), 1500)

      const { put } = make()
      yield* put("a", new Uint8Array(ValueNamespace.valueBytesMax).fill(1))
      assert.match(yield* refusal(put("a", new Uint8Array(ValueNamespace.valueBytesMax + 1).fill(1))), /over the limit/)
    }))

  it.effect(
    "keeps an honest value while a stranger puts 10,500, and while one puts 4,200 long ones",
    () =>
      Effect.gen(function*() {
        for (const [count, length] of [[10_500, 1], [4_200, ValueNamespace.valueBytesMax]] as const) {
          const { get, put, records } = make()
          const value = new Uint8Array(length).fill(1)
          yield* put("honest", [7], start, from("alice", "192.0.2.0/24"))
          for (let index = 0; index < count; index++) {
            yield* put(`flood ${index}`, value, start, from("mallory", "198.51.100.0/24"))
          }
          assert.deepStrictEqual(get("honest"), [7])
          // Half of the store, of its latest values.
          const kept = Array.from({ length: count }, (_, index) => get(`flood ${index}`) !== undefined)
          assert.strictEqual(records.size(), kept.filter(Boolean).length + 1)
          assert.isAtMost(records.size(), 5_001)
          assert.isAtMost(records.bytes(), 17 * 1024 * 1024)
          assert.isTrue(kept.slice(-1_600).every(Boolean))
          assert.isFalse(kept[0])
        }
      }),
    30_000
  )

  it.effect("lets no two senders push out a third that has less, and takes its next values", () =>
    Effect.gen(function*() {
      const { get, put, records } = make({ recordsMax: 10 })
      yield* put("a", [1], start, from("alice"))
      for (let index = 0; index < 20; index++) {
        yield* put(`m${index}`, [1], start, from("mallory"))
        yield* put(`o${index}`, [1], start, from("oscar"))
      }
      for (const path of ["b", "c"]) yield* put(path, [1], start, from("alice"))
      assert.deepStrictEqual(["a", "b", "c"].map((path) => get(path)), [[1], [1], [1]])
      assert.strictEqual(records.size(), 10)
    }))

  it.effect("refuses what a subnet puts beyond its share, whatever ids it uses, and what has no room", () =>
    Effect.gen(function*() {
      const { get, put, records } = make({ recordsMax: 8 })
      for (let index = 0; index < 4; index++) yield* put(`m${index}`, [1], start, from(`id ${index}`, "mallory's"))
      assert.match(yield* refusal(put("m4", [1], start, from("id 4", "mallory's"))), /subnet has its share/)
      assert.isUndefined(get("m4"))
      // Renewing takes nothing more.
      yield* put("m3", [1], start, from("id 3", "mallory's"))
      // All values of a sender are counted in the subnet that it has now.
      yield* put("m0", [1], start, from("id 0", "another"))
      yield* put("m4", [1], start, from("id 4", "mallory's"))
      yield* put("b", [1], start, from("bob"))
      yield* put("c", [1], start, from("carol"))
      yield* put("d", [1], start, from("dave"))
      assert.strictEqual(records.size(), 8)
      // The heaviest are the ids of the subnet, of which the sender of this one is another.
      yield* put("m0", [1], start, from("id 0", "another"))
      assert.match(yield* refusal(put("m5", [1], start, from("id 5", "mallory's"))), /subnet has its share/)
      yield* put("e", [1], start, from("erin"))
      assert.strictEqual(["m1", "m2", "m3", "m4"].filter((path) => get(path) !== undefined).length, 3)
      assert.deepStrictEqual(["b", "c", "d", "e"].map((path) => get(path)), [[1], [1], [1], [1]])
    }))

  it.effect("leaves a value with the next that put it, when the first lets it go", () =>
    Effect.gen(function*() {
      const { get, put } = make({ recordsMax: 10 })
      const mallory = from("mallory")
      yield* put("a", [1], start, from("alice"))
      yield* put("m", [1], start, mallory)
      // The same, a newer one, and one that the stranger was the first to have.
      yield* put("a", [1], start, mallory)
      yield* put("a", [2], start, mallory)
      yield* put("b", [1], start, mallory)
      yield* put("b", [1], start, from("alice"))
      for (let index = 0; index < 20; index++) yield* put(`m${index}`, [1], start, mallory)
      assert.deepStrictEqual([get("a"), get("b"), get("m")], [[2], [1], undefined])
    }))

  it.effect("keeps what one has put, though many ids put copies of it and then much of their own", () =>
    Effect.gen(function*() {
      const { get, put } = make({ recordsMax: 100 })
      const honest = Array.from({ length: 5 }, (_, index) => `h${index}`)
      for (const path of honest) yield* put(path, [1], start, from("honest"))
      const ids = ["m", "n", "o", "p", "q", "r"]
      for (const name of ids) for (const path of honest) yield* put(path, [1], start, from(name, name))
      for (const name of ids.toReversed()) {
        for (let index = 0; index < 60; index++) yield* put(`${name}${index}`, [1], start, from(name, name))
      }
      assert.deepStrictEqual(honest.map((path) => get(path)), honest.map(() => [1]))
    }))

  it.effect("keeps the values of this node itself, without a limit", () =>
    Effect.gen(function*() {
      const { get, put, records } = make({ recordsMax: 6 })
      const own = ["a", "b", "c", "d", "e"]
      for (const path of own) yield* put(path, [1])
      yield* put("m", [1], start, from("mallory"))
      // Also when others put the same.
      for (const path of own) yield* put(path, [1], start, from("mallory"))
      for (let index = 0; index < 9; index++) yield* put(`m${index}`, [1], start, from(`id ${index}`))
      assert.deepStrictEqual(own.map((path) => get(path)), own.map(() => [1]))
      yield* put("f", [1])
      assert.match(yield* refusal(put("n", [1], start, from("nick"))), /no room/)
      yield* put("g", [1])
      assert.deepStrictEqual([get("a"), get("g")], [undefined, [1]])
      assert.strictEqual(records.size(), 6)
    }))

  it.effect.prop(
    "fails with a RecordInvalid for any bytes",
    [Schema.Uint8Array, Schema.Uint8Array],
    ([name, bytes]) =>
      Effect.gen(function*() {
        const { records } = make()
        assert.instanceOf(yield* Effect.flip(records.put(name, bytes, start)), RecordInvalid)
      })
  )
})
