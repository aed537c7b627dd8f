import { assert, describe, it } from "@effect/vitest"
import { encodePeer } from "../../../../src/layers/dht/wire/Message.ts"
import * as ProviderRecords from "../../../../src/layers/dht/serve/ProviderRecords.ts"

const start = 1_800_000_000_000
const hours = (count: number) => count * 60 * 60 * 1000
const key = (name: string) => Buffer.from(name)
const id = (name: string) => Buffer.from(`id ${name}`)
/** Bytes that stand for a Peer message. */
const body = (name: string, more = "") => Buffer.from(`peer ${name}${more}`)

/** A store, and who it names for a key. */
const make = (options?: ProviderRecords.ProviderRecordsOptions) => {
  const records = ProviderRecords.make(options)
  const texts = (bodies: ReadonlyArray<Uint8Array>) => bodies.map((bytes) => Buffer.from(bytes).toString())
  return {
    records,
    add: (name: string, provider: string, now = start, more?: { ttlSeconds?: number; subnet?: string }) =>
      records.put(key(name), id(provider), body(provider), now, more),
    names: (name: string, now = start) => texts(records.get(key(name), now, 16 * 1024)),
    some: (name: string, bytes: number) => texts(records.get(key(name), start, bytes))
  }
}

describe("ProviderRecords", () => {
  it("answers with the providers of a key, the newest first, and of no other", () => {
    const { add, names, records } = make()
    assert.strictEqual(add("a", "1"), "stored")
    assert.strictEqual(add("a", "2"), "stored")
    assert.strictEqual(add("b", "1"), "stored")
    assert.strictEqual(add("a", "2"), "stored")
    assert.deepStrictEqual(names("a"), ["peer 2", "peer 1"])
    assert.deepStrictEqual(names("b"), ["peer 1"])
    assert.deepStrictEqual(names("c"), [])
    assert.deepStrictEqual([records.size(), records.keys()], [3, 2])
  })

  it("keeps apart keys whose bytes are no text", () => {
    const records = ProviderRecords.make()
    for (let byte = 0; byte < 256; byte++) records.put(Uint8Array.of(byte), id("x"), body("x"), start)
    records.put(Uint8Array.of(0xc3, 0xa9), id("y"), body("y"), start)
    assert.strictEqual(records.keys(), 257)
    assert.lengthOf(records.get(Uint8Array.of(0xe9), start, 1024), 1)
    // Views of a larger buffer, as they come from the wire, are read where they lie and copied.
    const wire = Uint8Array.of(9, 9, 1, 2, 3, 9)
    records.put(wire.subarray(2, 5), id("z"), wire.subarray(0, 2), start)
    wire.fill(0)
    assert.deepStrictEqual(records.get(Uint8Array.of(1, 2, 3), start, 1024).map((bytes) => [...bytes]), [[9, 9]])
  })

  it("keeps apart keys of which one begins with or contains the other", () => {
    const records = ProviderRecords.make()
    const one = new TextEncoder().encode("abcde")
    // The identity multihash of the first, and the one of the second.
    const two = Uint8Array.of(0x00, one.length, ...one)
    const three = Uint8Array.of(0x00, two.length, ...two)
    const keys = [one, two, three, Uint8Array.of(...one, ...one), one.subarray(0, 4), Uint8Array.of(0x12, 0x20)]
    const holders = () => keys.map((key) => records.get(key, start, 1024).length)
    records.put(one, id("x"), body("x"), start)
    assert.deepStrictEqual(holders(), [1, 0, 0, 0, 0, 0])
    for (const key of keys) records.put(key, id("x"), body("x"), start)
    records.remove(two, id("x"))
    assert.deepStrictEqual(holders(), [1, 0, 1, 1, 1, 1])
  })

  it("serves a record for 24 hours, or for its own time when that is shorter", () => {
    const { add, names } = make()
    add("day", "1")
    add("week", "1", start, { ttlSeconds: 7 * 24 * 60 * 60 })
    add("forever", "1", start, { ttlSeconds: Number.MAX_SAFE_INTEGER })
    add("minute", "1", start, { ttlSeconds: 60 })
    assert.lengthOf(names("minute", start + 59_999), 1)
    assert.lengthOf(names("minute", start + 60_000), 0)
    for (const name of ["day", "week", "forever"]) {
      assert.lengthOf(names(name, start + hours(24) - 1), 1)
      assert.lengthOf(names(name, start + hours(24)), 0)
    }
  })

  it("counts the time from the last announcement, which may also shorten it", () => {
    const { add, names, records } = make()
    add("a", "1")
    add("a", "1", start + hours(12))
    assert.lengthOf(names("a", start + hours(36) - 1), 1)
    add("a", "1", start + hours(36) - 1, { ttlSeconds: 60 })
    assert.lengthOf(names("a", start + hours(36) + 58_000), 1)
    assert.lengthOf(names("a", start + hours(36) + 60_000), 0)
    assert.strictEqual(records.size(), 0)
  })

  it("refuses keys of no byte and of more than 80, and times that are over before they begin", () => {
    const { add, records } = make()
    const put = (length: number) => records.put(new Uint8Array(length), id("1"), body("1"), start)
    assert.deepStrictEqual([0, 1, 80, 81].map(put), ["key", "stored", "stored", "key"])
    for (const ttlSeconds of [0, -1, -Infinity, Number.NaN]) {
      assert.strictEqual(add("a", "1", start, { ttlSeconds }), "ttl")
    }
    assert.strictEqual(records.size(), 2)
  })

  it("refuses a provider with more bytes than it keeps of one", () => {
    const { records } = make()
    const put = (length: number) => records.put(key("a"), id("1"), new Uint8Array(length), start)
    assert.deepStrictEqual([1024, 1025].map(put), ["stored", "size"])
  })

  it("has a provider in all its records where it was last", () => {
    const { add, names, records } = make()
    add("a", "1")
    add("b", "1")
    records.put(key("b"), id("1"), body("1", " moved"), start)
    // Who says nothing of its addresses has not moved.
    records.put(key("b"), id("1"), undefined, start)
    assert.deepStrictEqual(names("a"), ["peer 1 moved"])
  })

  it("asks at the time of the answer where a provider is that has not said it", () => {
    const records = ProviderRecords.make()
    records.put(key("a"), id("1"), undefined, start)
    records.put(key("a"), id("2"), body("2"), start)
    const get = (bodyOf?: (provider: Uint8Array) => Uint8Array | undefined) =>
      records.get(key("a"), start, 1024, bodyOf).map((bytes) => Buffer.from(bytes).toString())
    assert.deepStrictEqual(get(), ["peer 2"])
    assert.deepStrictEqual(get(() => undefined), ["peer 2"])
    assert.deepStrictEqual(get((provider) => Buffer.concat([provider, Buffer.from(" is here")])), [
      "peer 2",
      "id 1 is here"
    ])
  })

  it("gives back whole what begins with the id, and nothing of who was there before", () => {
    const records = ProviderRecords.make()
    const [one, two] = [id("1"), id("2")]
    const bodies = [
      encodePeer(one, [Uint8Array.of(4, 192, 0, 2, 1, 6, 15, 161)]),
      encodePeer(one, []),
      encodePeer(two, []),
      Uint8Array.of(10),
      Uint8Array.of(10, one.length),
      encodePeer(one, []).subarray(0, -1),
      new Uint8Array()
    ]
    const get = (name: string) => records.get(key(name), start, 1024).map((bytes) => [...bytes])
    for (const bytes of bodies) {
      records.put(key("a"), one, bytes, start)
      assert.deepStrictEqual(get("a"), [[...bytes]])
    }
    records.put(key("a"), one, bodies[0], start, { subnet: "x" })
    records.remove(key("a"), one)
    records.put(key("b"), two, undefined, start)
    assert.deepStrictEqual([get("a"), get("b")], [[], []])
    records.put(key("b"), two, bodies[2], start)
    assert.deepStrictEqual(get("b"), [[...bodies[2]!]])
    assert.deepStrictEqual([records.size(), records.keys()], [1, 1])
  })

  it("forgets a record that is removed, and no other", () => {
    const { add, names, records } = make()
    for (const provider of ["1", "2", "3"]) add("a", provider)
    add("b", "2")
    records.remove(key("a"), id("2"))
    records.remove(key("a"), id("2"))
    records.remove(key("b"), id("3"))
    assert.deepStrictEqual(names("a"), ["peer 3", "peer 1"])
    assert.deepStrictEqual(names("b"), ["peer 2"])
    assert.strictEqual(records.size(), 3)
  })

  it("takes turns when not all providers fit into an answer", () => {
    const { add, records, some } = make()
    for (let i = 0; i < 10; i++) add("a", `${i}`)
    // Of 6 bytes, and 3 around each.
    const seen = [some("a", 36), some("a", 36), some("a", 36)]
    assert.deepStrictEqual(seen.map((answer) => answer.map((text) => text.slice(5)).join("")), ["9876", "5432", "1098"])
    assert.strictEqual(records.size(), 10)
    assert.deepStrictEqual(some("a", 8), [])
  })

  it("keeps as many providers of a key as there may be; the first to expire makes room", () => {
    const { add, names, records } = make({ providersPerKeyMax: 3 })
    add("a", "1", start + 3000)
    add("a", "2", start, { ttlSeconds: 3600 })
    add("a", "3", start + 1000)
    add("a", "4", start + 4000)
    assert.deepStrictEqual(names("a"), ["peer 4", "peer 3", "peer 1"])
    add("a", "5", start + 5000)
    assert.deepStrictEqual(names("a"), ["peer 5", "peer 4", "peer 1"])
    assert.strictEqual(records.size(), 3)
  })

  it("takes a quarter of the providers of a key from one subnet", () => {
    const { add } = make({ providersPerKeyMax: 8 })
    const from = (provider: string, subnet: string) => add("a", provider, start, { subnet })
    assert.deepStrictEqual(["1", "2", "3"].map((provider) => from(provider, "x")), ["stored", "stored", "subnet"])
    // It may say again what it said.
    assert.strictEqual(from("1", "x"), "stored")
    assert.strictEqual(from("4", "y"), "stored")
    assert.strictEqual(add("a", "5"), "stored")
    assert.strictEqual(add("b", "3", start, { subnet: "x" }), "stored")
  })

  it("keeps half of all records of one sender, those that it announced last, and takes half from one subnet", () => {
    const { add, names, records } = make({ recordsMax: 10 })
    const keys = [0, 1, 2, 3, 4, 5]
    for (const i of [0, 1, 2, 3, 4, 0, 5, 6]) assert.strictEqual(add(`${i}`, "1"), "stored")
    assert.deepStrictEqual([0, 1, 2, 3, 4, 5, 6].filter((i) => names(`${i}`).length > 0), [0, 3, 4, 5, 6])
    assert.strictEqual(records.size(), 5)
    const { add: other, records: others } = make({ recordsMax: 10 })
    assert.deepStrictEqual(keys.map((i) => other(`${i}`, `${i}`, start, { subnet: "x" })), [
      ...Array<string>(5).fill("stored"),
      "subnet"
    ])
    // What expires gives its share back.
    assert.strictEqual(others.sweep(start + hours(24), 100), 5)
    assert.strictEqual(other("5", "1", start + hours(24), { subnet: "x" }), "stored")
  })

  it("counts a sender that comes from elsewhere now where it is", () => {
    const { add } = make({ recordsMax: 6 })
    for (const name of ["a", "b", "c"]) add(name, "1", start, { subnet: "x" })
    assert.strictEqual(add("d", "2", start, { subnet: "x" }), "subnet")
    add("a", "1", start, { subnet: "y" })
    assert.strictEqual(add("d", "2", start, { subnet: "x" }), "stored")
    assert.strictEqual(add("d", "3", start, { subnet: "y" }), "subnet")
    add("a", "1")
    assert.strictEqual(add("d", "3", start, { subnet: "y" }), "stored")
  })

  it("when it is full, takes the oldest record of who has the most, and refuses who has more than anybody", () => {
    const { add, names, records } = make({ recordsMax: 12, recordsPerSenderMax: 12 })
    for (let i = 0; i < 6; i++) add(`heavy ${i}`, "heavy")
    for (let i = 0; i < 6; i++) add(`light ${i}`, `light ${i}`)
    add("heavy 0", "heavy")
    for (let i = 0; i < 5; i++) assert.strictEqual(add(`new ${i}`, `new ${i}`), "stored")
    assert.deepStrictEqual(["heavy 1", "heavy 2", "heavy 3", "heavy 4", "heavy 5"].flatMap((name) => names(name)), [])
    assert.deepStrictEqual(names("heavy 0"), ["peer heavy"])
    assert.strictEqual(records.size(), 12)
    // Now all have one. A second goes to whoever asks for it; a third would be more than anybody has.
    assert.strictEqual(add("more 0", "greedy"), "stored")
    assert.strictEqual(add("more 1", "greedy"), "stored")
    assert.strictEqual(records.size(), 12)
    const greedy = () => [0, 1, 2, 3].filter((i) => names(`more ${i}`).length > 0)
    assert.deepStrictEqual(greedy(), [0, 1])
    assert.strictEqual(add("more 2", "greedy"), "stored")
    assert.deepStrictEqual(greedy(), [1, 2])
    assert.strictEqual(records.size(), 12)
  })

  it("refuses, when it is full, who has more than those that it has looked at", () => {
    const { add, names, records } = make({ recordsMax: 400, recordsPerSenderMax: 400 })
    for (let i = 0; i < 398; i++) add(`light ${i}`, `light ${i}`)
    add("a", "greedy")
    add("b", "greedy")
    const results = Array.from({ length: 20 }, (_, i) => add(`more ${i}`, "greedy"))
    assert.strictEqual(results[0], "full")
    // As soon as it has seen them its own give way.
    assert.strictEqual(results[19], "stored")
    assert.strictEqual(records.size(), 400)
    for (let i = 0; i < 398; i++) assert.lengthOf(names(`light ${i}`), 1)
  })

  it("lets two subnets that have as many give way to each other when it is full has more than anybody", () => {
    const { add, records } = make({ recordsMax: 12, recordsPerSubnetMax: 12 })
    for (let i = 0; i < 8; i++) add(`a ${i}`, `${i}`)
    add("b", "b", start, { subnet: "x" })
    add("c", "c", start, { subnet: "x" })
    add("d", "d", start, { subnet: "y" })
    add("e", "e", start, { subnet: "y" })
    // They have two each, so either gives way to the other.
    assert.strictEqual(add("f", "f", start, { subnet: "x" }), "stored")
    assert.strictEqual(records.size(), 12)
  })

  it("weighs a crowd of ids by its subnet when it is full", () => {
    const { add, names, records } = make({ recordsMax: 100, recordsPerSubnetMax: 50 })
    for (let i = 0; i < 30; i++) add(`own ${i}`, "honest", start, { subnet: "home" })
    for (let i = 0; i < 50; i++) add(`flood ${i}`, `crowd ${i}`, start, { subnet: "x" })
    for (let i = 0; i < 20; i++) add(`other ${i}`, `other ${i}`)
    assert.strictEqual(records.size(), 100)
    // Twenty more of another origin evict those of the crowd, though each of its ids has one record only.
    for (let i = 0; i < 20; i++) {
      assert.strictEqual(add(`more ${i}`, "second", start, { subnet: "elsewhere" }), "stored")
    }
    const alive = (name: string, count: number) =>
      Array.from({ length: count }, (_, i) => names(`${name} ${i}`).length).reduce((a, b) => a + b, 0)
    // Each looks at some only, and knows whom the ones before it found.
    assert.isAtMost(alive("flood", 50), 31)
    assert.isAtLeast(alive("own", 30), 29)
    assert.strictEqual(records.size(), 100)
    assert.strictEqual(alive("more", 20), 20)
  })

  it("forgets what has expired in small steps, and a few with every put", () => {
    const { add, records } = make()
    for (let i = 0; i < 100; i++) add(`${i}`, `${i % 7}`, start, { ttlSeconds: 60 })
    const later = start + 60_000
    assert.strictEqual(records.sweep(start + 59_999, 1000), 0)
    assert.strictEqual(records.sweep(later, 30), 30)
    assert.strictEqual(records.size(), 70)
    add("new", "1", later)
    // One came, and one went.
    assert.strictEqual(records.size(), 70)
    while (records.sweep(later, 30) > 0);
    assert.deepStrictEqual([records.size(), records.keys()], [1, 1])
  })

  it("keeps its counts over a long random life", () => {
    const { add, names, records } = make({ recordsMax: 60, providersPerKeyMax: 5 })
    // Park and Miller's generator: the same life each time.
    let seed = 1
    const random = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below
    let now = start
    for (let i = 0; i < 20_000; i++) {
      now += random(20_000)
      const [name, provider] = [`${random(40)}`, `${random(15)}`]
      const step = random(10)
      if (step < 7) {
        add(name, provider, now, { ttlSeconds: 1 + random(2000), ...step < 4 && { subnet: `${random(4)}` } })
      } else if (step === 7) records.remove(key(name), id(provider))
      else if (step === 8) records.sweep(now, random(5))
      else assert.isAtMost(names(name, now).length, 5)
      assert.isAtMost(records.size(), 60)
    }
    records.sweep(now, 100)
    const all = Array.from({ length: 40 }, (_, i) => names(`${i}`, now).length)
    assert.strictEqual(records.size(), all.reduce((a, b) => a + b, 0))
    assert.strictEqual(records.keys(), all.filter((count) => count > 0).length)
    // Nothing is left of senders and subnets that have no record any more, or the shares would be wrong.
    records.sweep(now + hours(24), 100)
    assert.strictEqual(records.size(), 0)
    for (let i = 0; i < 40; i++) assert.strictEqual(add(`${i}`, "1", now, { subnet: "1" }), "stored")
    assert.strictEqual(records.size(), 30)
    assert.strictEqual(add("41", "2", now, { subnet: "1" }), "subnet")
  })
})
