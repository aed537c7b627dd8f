import { assert, describe, it } from "@effect/vitest"
import * as Times from "../../../../src/layers/dht/provide/Times.ts"

const hour = 3_600_000
const minute = hour / 60
const now = Date.UTC(2030, 0)

const keyAt = (share: number, lifeMillis = 24 * hour): Times.Timed => ({
  h0: share * 2 ** 32,
  lifeMillis,
  dueAt: Infinity,
  slackMillis: Infinity
})

const timesOf = (size: number) => Times.make({ republishMillis: 8 * hour, size: () => size })

describe("Times", () => {
  it("renews few keys after the period, which is at most half of a copy's life", () => {
    const times = timesOf(511)
    for (const [lifeMillis, period] of [[24 * hour, 8 * hour], [16 * hour, 8 * hour], [hour, hour / 2]] as const) {
      const key = keyAt(0.9, lifeMillis)
      key.dueAt = now
      times.renew(key, now)
      assert.strictEqual(key.dueAt, now + period)
    }
    assert.strictEqual(times.nextDueAt(), now + hour / 2)
  })

  it("renews the keys of a region at one time of the period, a quarter of it away at least", () => {
    const times = timesOf(1024)
    for (let region = 0; region < 4; region++) {
      const turns = new Set<number>()
      for (let at = now; at < now + 16 * hour; at += 7 * 60_000) {
        for (const within of [0, 0.1, 0.249]) {
          const key = keyAt(region / 4 + within)
          times.renew(key, at)
          turns.add(key.dueAt % (8 * hour))
          assert.isAtLeast(key.dueAt, at + 2 * hour)
          assert.isBelow(key.dueAt, at + 10 * hour)
        }
      }
      assert.deepStrictEqual([...turns], [region * 2 * hour])
    }
  })

  it("with 512 keys or more waits before a change that concerns all, a minute at most", () => {
    for (const [size, wait] of [[1, 0], [511, 0], [512, 1024], [30_000, 60_000], [1_000_000, 60_000]] as const) {
      const key = keyAt(0)
      timesOf(size).settle(key, now)
      assert.strictEqual(key.dueAt, now + wait)
      // A key that is due earlier is not put off.
      timesOf(size).settle(key, now + 1)
      assert.strictEqual(key.dueAt, now + wait)
    }
  })

  it("fills up in a minute, then after twice as long, up to an hour or a quarter of a shorter period", () => {
    const waits = [
      [24 * hour, 0, minute],
      [24 * hour, minute, minute],
      [24 * hour, 2 * minute, 2 * minute],
      [24 * hour, 32 * minute, 32 * minute],
      [24 * hour, 64 * minute, hour],
      [8 * hour, 20 * hour, hour],
      [hour, 0, minute],
      [hour, 64 * minute, hour / 8]
    ] as const
    for (const [lifeMillis, ago, wait] of waits) {
      const key = keyAt(0, lifeMillis)
      timesOf(1).fillUp(key, now, now - ago)
      assert.strictEqual(key.dueAt, now + wait)
    }
  })

  it("takes a key with few copies along with others of its region an eighth of its wait sooner at most", () => {
    for (const [sooner, isTaken] of [[minute / 8, true], [minute / 8 + 1, false]] as const) {
      const times = timesOf(1)
      const [few, due] = [keyAt(0), keyAt(0)]
      times.fillUp(few, now, now)
      times.dueBy(due, few.dueAt - sooner)
      assert.deepStrictEqual(times.takeDue([few, due], due.dueAt).length, isTaken ? 2 : 1)
      // Renewed, it goes along again.
      times.renew(few, now)
      times.dueBy(due, few.dueAt - hour)
      assert.lengthOf(times.takeDue([few, due], few.dueAt - hour), 2)
    }
  })

  it("takes the keys due, with those of their regions that are due within an eighth of the period", () => {
    const times = timesOf(1024)
    const soon = keyAt(0.7)
    const [due, later, elsewhere] = [keyAt(0.6), keyAt(0.65), keyAt(0.1)]
    times.dueBy(due, now)
    times.dueBy(soon, now + hour)
    times.dueBy(later, now + hour + 2)
    times.dueBy(elsewhere, now + 1)
    assert.strictEqual(times.nextDueAt(), now)
    assert.deepStrictEqual(times.takeDue([soon, later, elsewhere, due], now), [due, soon])
    assert.strictEqual(times.nextDueAt(), now + 1)
    assert.deepStrictEqual(times.takeDue([], now), [])
    assert.strictEqual(times.nextDueAt(), Infinity)
  })

  it("spreads the keys of a node that starts over half an hour, except keys that are due", () => {
    const times = timesOf(1024)
    const resumed = (share: number, announcedAt: number, lifeMillis?: number) => {
      const key = keyAt(share, lifeMillis)
      times.resume(key, now, announcedAt)
      return key.dueAt - now
    }
    assert.deepStrictEqual([0, 0.3, 0.5, 0.99].map((share) => resumed(share, now - hour)), [
      0,
      450_000,
      900_000,
      1_350_000
    ])
    // Announced eight hours ago, or never; soon to be due; and with a ttl of 20 minutes.
    assert.strictEqual(resumed(0.99, now - 8 * hour), 0)
    assert.strictEqual(resumed(0.99, -24 * hour), 0)
    assert.strictEqual(resumed(0.99, now - 8 * hour + 1000), 1000)
    assert.strictEqual(resumed(0.99, now, 1_200_000), 225_000)
  })
})
