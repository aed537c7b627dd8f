/**
 * Background work runs in `src/layers/Supervised.ts`, so that no defect ends it in silence.
 */
import { assert, describe, it } from "@effect/vitest"
import { type Allowed, judge, nodesOf, shown } from "./source.ts"
import { childrenOf, isNode, type Node } from "./tidy.ts"

/** The files that may start fibers by themselves. In the simulator a defect fails the test. */
const allowed: ReadonlyArray<Allowed> = [
  { file: "layers/Supervised.ts", because: "it is the tool" },
  { file: "layers/machine/BoundedShutdown.ts", because: "the part's exit is given to whoever stops the node" },
  { file: "layers/peers/Dialer.ts", because: "the exit of a dial is given to those who wait for it" },
  { file: "layers/peers/TransportProtocols.ts", because: "a handler is the program's, and its failure is logged" },
  { file: "layers/libp2p/Transport.ts", because: "a handler is the program's, and its failure is logged" },
  { file: "layers/libp2p/Gater.ts", because: "a rule that dies refuses, and is logged" },
  { file: "layers/dht/libp2p/KadDht.ts", because: "the exit of a lookup is given to libp2p, which asked" },
  { file: "layers/dht/lookup/Lookup.ts", because: "the exit of a question is given to its lookup" },
  { file: "layers/dht/lookup/SharedLookups.ts", because: "the exit of a lookup is given to its readers" },
  { file: "cli/log.ts", because: "a line of the log is written at once" },
  { file: "cli/start.ts", because: "the program ends with a defect" }
]

const starts = /^(fork\w*|run(Fork|Promise|Sync|Callback)\w*|run|runtime|makeRuntime\w*)$/

/**
 * Where effect starts a fiber whose work is not supervised, as `line: code`: by a call, or handed on, as in
 * `pipe(work, Effect.forkScoped)`.
 */
const bareStarts = (text: string): ReadonlyArray<string> => {
  const called = new Set<Node>()
  const found: Array<Node> = []
  for (const node of nodesOf(text)) {
    const { callee } = node
    if (node.type === "CallExpression" && isNode(callee)) called.add(callee)
    const isCall = node.type === "CallExpression" && isNode(callee) && isStart(callee)
    const isSupervised = isCall && childrenOf(node).some((child) => child !== callee && mentionsSupervised(child))
    const isHandedOn = isStart(node) && !called.has(node)
    if (isCall && !isSupervised || isHandedOn) found.push(node)
  }
  return found.map((node) => shown(text, node))
}

const isStart = ({ object, property, type }: Node): boolean => {
  if (type !== "MemberExpression" || !isNode(object) || !isNode(property)) return false
  const [from, name] = [String(object["name"]), String(property["name"])]
  if (/^Fiber(Set|Map|Handle)$/.test(from)) return starts.test(name)
  return from === "Effect" && starts.test(name) && name !== "run"
}

const mentionsSupervised = (node: Node): boolean => {
  const { object } = node
  if (node.type === "MemberExpression" && isNode(object) && object["name"] === "Supervised") return true
  return childrenOf(node).some(mentionsSupervised)
}

const { forbidden, idle } = judge(allowed, bareStarts)

describe("background work", () => {
  it("is supervised, but for files that have a reason", () => {
    assert.deepStrictEqual(forbidden.map((start) => `${start}; better: Supervised`), [])
  })

  it("is started by each file that has a reason", () => {
    assert.deepStrictEqual(idle, [])
  })

  it("is started by one of these words", () => {
    const bare = [
      "Effect.forkScoped(work)",
      "work.pipe(Effect.forkIn(scope))",
      "work.pipe(Effect.forkScoped)",
      "Effect.forkDetach(Effect.forever(work))",
      "Effect.runForkWith(context)",
      "Effect.runPromise(work)",
      "FiberSet.makeRuntime()",
      "FiberSet.run(fibers, work)",
      "FiberMap.run(fibers, key, work)"
    ]
    for (const text of bare) assert.lengthOf(bareStarts(`\n${text}`), 1, text)
    assert.deepStrictEqual(bareStarts("\nEffect.forkScoped(work)"), ["2: Effect.forkScoped(work)"])
    const others = [
      "Supervised.fork(\"a\", work)",
      "Effect.forkIn(Supervised.lasting(\"a\", work), scope)",
      "FiberSet.make()",
      "Scope.fork(scope)",
      "run(work)"
    ]
    for (const text of others) assert.deepStrictEqual(bareStarts(text), [], text)
  })
})
