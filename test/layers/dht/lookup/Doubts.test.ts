import { assert, describe, it } from "@effect/vitest"
import * as Doubts from "../../../../src/layers/dht/lookup/Doubts.ts"

const make = () => {
  const time = { minutes: 0 }
  return { time, doubts: Doubts.make(() => time.minutes * 60_000) }
}

describe("Doubts", () => {
  it("doubts a peer that did not answer for a minute, then for longer, at most 16 minutes, until it answers", () => {
    const { doubts, time } = make()
    let from = 0
    for (const minutes of [1, 2, 4, 8, 16, 16]) {
      assert.isFalse(doubts.isDoubtful("a"))
      doubts.unanswered("a")
      // Silence while it is doubted counts once.
      doubts.unanswered("a")
      time.minutes = from + minutes - 0.001
      assert.isTrue(doubts.isDoubtful("a"), `${minutes} minutes`)
      from += minutes
      time.minutes = from
    }
    assert.isFalse(doubts.isDoubtful("a"))
    doubts.unanswered("a")
    doubts.answered("a")
    assert.isFalse(doubts.isDoubtful("a"))
    doubts.unanswered("a")
    time.minutes += 1
    assert.isFalse(doubts.isDoubtful("a"))
    // A silence of long ago is forgotten.
    time.minutes += 61
    doubts.unanswered("a")
    time.minutes += 1
    assert.isFalse(doubts.isDoubtful("a"))
  })

  it("forgives a peer that speaks, once, as long as it does not answer", () => {
    const { doubts, time } = make()
    doubts.unanswered("a")
    doubts.spoke("a")
    assert.isFalse(doubts.isDoubtful("a"))
    doubts.unanswered("a")
    doubts.spoke("a")
    assert.isTrue(doubts.isDoubtful("a"))
    time.minutes = 1.999
    assert.isTrue(doubts.isDoubtful("a"))
    doubts.answered("a")
    doubts.unanswered("a")
    doubts.spoke("a")
    assert.isFalse(doubts.isDoubtful("a"))
    doubts.spoke("b")
    assert.isFalse(doubts.isDoubtful("b"))
  })

  it("takes for misleading a peer that names five that do not answer, and a third of all, for ten minutes", () => {
    const { doubts, time } = make()
    doubts.named("honest", 0, 4)
    doubts.named("honest", 17, 1)
    // Three of them have answered after all.
    doubts.named("late", 0, 4)
    doubts.named("late", 3, -3)
    doubts.named("late", 0, 3)
    assert.isFalse(doubts.isMisleading("late"))
    assert.isFalse(doubts.isMisleading("honest"))
    doubts.named("liar", 8, 4)
    assert.isFalse(doubts.isMisleading("liar"))
    // Counted together, so that a few for each lookup do not go unnoticed.
    doubts.named("liar", 0, 1)
    assert.isTrue(doubts.isMisleading("liar"))
    assert.isFalse(doubts.isDoubtful("liar"))
    time.minutes = 9.999
    assert.isTrue(doubts.isMisleading("liar"))
    time.minutes = 10.001
    assert.isFalse(doubts.isMisleading("liar"))
    // What it named before is forgotten by then.
    doubts.named("liar", 0, 4)
    assert.isFalse(doubts.isMisleading("liar"))
  })

  it("remembers the last 4,096 peers", () => {
    const { doubts } = make()
    for (let index = 0; index <= 4096; index++) {
      doubts.unanswered(`${index}`)
      doubts.named(`${index}`, 0, 5)
    }
    for (const isRemembered of [doubts.isDoubtful, doubts.isMisleading]) {
      assert.deepStrictEqual([isRemembered("0"), isRemembered("1"), isRemembered("4096")], [false, true, true])
    }
  })
})
