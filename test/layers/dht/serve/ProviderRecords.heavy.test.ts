/**
 * What a stored provider record costs: memory by figures of V8, and the time of a put and of an answer.
 */
import { assert, describe, it } from "@effect/vitest"
import { hash } from "node:crypto"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { encodePeer } from "../../../../src/layers/dht/wire/Message.ts"
import * as ProviderRecords from "../../../../src/layers/dht/serve/ProviderRecords.ts"

setFlagsFromString("--expose-gc")
const collectGarbage = runInNewContext("gc") as () => void

const count = 100_000
const now = 1_800_000_000_000

describe("100,000 provider records", () => {
  const cases: ReadonlyArray<readonly [name: string, which: Which, most: number]> = [
    ["100,000 keys of 200 providers", (i: number) => [i, i % 200], 150],
    ["500 keys of 200 providers each, 200 providers in all", (i: number) => [i % 500, Math.floor(i / 500)], 150],
    ["500 keys of 200 providers each, all different", (i: number) => [i % 500, i], 300],
    ["100,000 keys of 100,000 providers", (i: number) => [i, i], 300]
  ]

  for (const [name, which, most] of cases) {
    it(`take less than ${most} bytes each: ${name}`, () => {
      const [bytes, records, took] = fill(which)
      assert.strictEqual(records.size(), count)
      const [key] = which(7)
      const began = performance.now()
      for (let i = 0; i < 1000; i++) records.get(keyOf(key), now, 12_000)
      const answer = records.get(keyOf(key), now, 12_000)
      assert.isAbove(answer.length, 0)
      console.log(
        `${name}: ${bytes.toFixed(0)} bytes a record, ${(took * 1000).toFixed(1)} us a put, `
          + `${(performance.now() - began).toFixed(1)} us an answer of ${answer.length}`
      )
      assert.isBelow(bytes, most)
    })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The key and the provider of a record. */
type Which = (i: number) => readonly [key: number, provider: number]

/** Bytes a record, the records, and milliseconds a put. */
function fill(which: Which) {
  // Compiled, and its first objects made, before it counts.
  const warm = ProviderRecords.make()
  for (let i = 0; i < 1000; i++) warm.put(keyOf(i), idOf(i), bodyOf(i), now)
  const before = used()
  const records = ProviderRecords.make({ recordsMax: count })
  const began = performance.now()
  for (let i = 0; i < count; i++) {
    const [key, provider] = which(i)
    records.put(keyOf(key), idOf(provider), bodyOf(provider), now + i)
  }
  const took = (performance.now() - began) / count
  return [(used() - before) / count, records, took] as const
}

function used(): number {
  for (let i = 0; i < 3; i++) collectGarbage()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

/** A sha2-256 multihash, 34 bytes. */
function keyOf(i: number): Uint8Array {
  return Buffer.concat([Buffer.of(0x12, 0x20), hash("sha256", `key ${i}`, "buffer")])
}

/** As long as the id of an Ed25519 key, 38 bytes. */
function idOf(i: number): Uint8Array {
  return Buffer.concat([Buffer.of(0, 0x24, 8, 1, 0x12, 0x20), hash("sha256", `peer ${i}`, "buffer")])
}

/** With an IPv4 and an IPv6 address. */
function bodyOf(i: number): Uint8Array {
  const random = hash("sha256", `addresses ${i}`, "buffer")
  const ip4 = Buffer.concat([Buffer.of(4), random.subarray(0, 4), Buffer.of(6, 0x0f, 0xa1)])
  const ip6 = Buffer.concat([Buffer.of(41), random.subarray(0, 16), Buffer.of(6, 0x0f, 0xa1)])
  return encodePeer(idOf(i), [ip4, ip6])
}
