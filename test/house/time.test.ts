/**
 * Time that passes is measured with `src/layers/Elapsed.ts`, never with the wall clock, which is set now and then.
 */
import { assert, describe, it } from "@effect/vitest"
import { type Allowed, judge, nodesOf, shown } from "./source.ts"
import { childrenOf, isNode, type Node } from "./tidy.ts"

/**
 * The files that may read the wall clock: for what people read, and for what is stored, signed or sent. The simulator
 * makes the clocks.
 */
const allowed: ReadonlyArray<Allowed> = [
  { file: "layers/Elapsed.ts", because: "it makes dates of times that passed, and counts the sleep of the machine" },
  { file: "layers/machine/KeyValuePeerStore.ts", because: "when a peer was last seen is stored" },
  { file: "layers/dht/provide/Batches.ts", because: "when a key was announced is stored, and read by people" },
  { file: "layers/dht/serve/ValueRecords.ts", because: "a record says on the wire when it was received" },
  { file: "layers/dht/Engine.ts", because: "a record says on the wire when it was received" },
  {
    file: "layers/dht/libp2p/PublishedValue.ts",
    because: "the number of a value is signed, and the last one may be lost"
  },
  { file: "layers/dht/libp2p/Table.ts", because: "libp2p notes the beginning of a connection in the time of day" },
  { file: "cli/start.ts", because: "people read the time of an event" }
]

const wallClock = /^(currentTime(Millis|Nanos)(Unsafe)?|now(Unsafe|AsDate|InCurrentZone)?)$/

/** Where a file reads the wall clock, as `line: code`. */
const usesOf = (text: string): ReadonlyArray<string> => {
  const found: Array<Node> = []
  for (const node of nodesOf(text)) {
    const { arguments: given, callee, object, property } = node
    if (node.type === "MemberExpression" && isNode(property) && isNode(object)) {
      const [from, name] = [String(object["name"]), String(property["name"] ?? property["value"])]
      const isDate = from === "Date" || from === "DateTime"
      if (wallClock.test(name) && (name.startsWith("current") || isDate)) found.push(node)
    }
    if (node.type === "NewExpression" && isNode(callee) && callee["name"] === "Date" && Array.isArray(given)) {
      if (given.length === 0) found.push(node)
    }
    // As in `const { currentTimeMillis } = Clock`.
    if (node.type === "ObjectPattern") {
      for (const child of childrenOf(node)) {
        const key = child["key"]
        if (isNode(key) && String(key["name"]).startsWith("currentTime")) found.push(child)
      }
    }
  }
  return found.map((node) => shown(text, node))
}

const { forbidden, idle } = judge(allowed, usesOf)

describe("the wall clock is read", () => {
  it("in no file without a reason", () => {
    assert.deepStrictEqual(forbidden.map((use) => `${use}; better: Elapsed.millis`), [])
  })

  it("in each file that has a reason", () => {
    assert.deepStrictEqual(idle, [])
  })

  it("by one of these words", () => {
    const reads = [
      "Clock.currentTimeMillis",
      "clock.currentTimeMillisUnsafe()",
      "this.clock.currentTimeNanosUnsafe()",
      "clock[\"currentTimeMillisUnsafe\"]()",
      "Date.now()",
      "new Date()",
      "DateTime.now",
      "DateTime.nowUnsafe()",
      "const { currentTimeMillis } = Clock"
    ]
    for (const text of reads) assert.lengthOf(usesOf(`\n${text}`), 1, text)
    assert.deepStrictEqual(usesOf("\n  Date.now()"), ["2: Date.now"])
    const others = [
      "performance.now()",
      "takers.now()",
      "new Date(millis)",
      "clock.monotonicTimeNanosUnsafe()",
      "// Date.now()"
    ]
    for (const text of others) assert.deepStrictEqual(usesOf(text), [], text)
  })
})
