/**
 * Background work runs in `src/layers/Supervised.ts`, so that no defect ends it in silence.
 */
import { assert, describe, it } from "@effect/vitest"
import { sourceFiles } from "./source.ts"
import { childrenOf, isNode, type Node, parse } from "./tidy.ts"

/**
 * The files that may start fibers by themselves. The simulator in `testing` may, since a defect in it fails the test.
 */
const allowed: ReadonlyArray<{ readonly file: string; readonly because: string }> = [
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

/** Calls of effect that start a fiber whose work is not supervised, as `line: code`. */
const bareStarts = (text: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  const visit = (node: Node): void => {
    const { callee } = node
    if (node.type === "CallExpression" && isNode(callee) && isStart(callee)) {
      const code = text.slice(node.start, node.end)
      const isSupervised = childrenOf(node).some((child) => child !== callee && mentions(child))
      if (!isSupervised) found.push(`${text.slice(0, node.start).split("\n").length}: ${code.split("\n")[0]}`)
    } else if (isStart(node) && !called.has(node)) {
      // Handed on, as in `pipe(work, Effect.forkScoped)`.
      found.push(`${text.slice(0, node.start).split("\n").length}: ${text.slice(node.start, node.end)}`)
    }
    if (node.type === "CallExpression" && isNode(callee)) called.add(callee)
    childrenOf(node).forEach(visit)
  }
  const called = new Set<Node>()
  const isStart = ({ object, property, type }: Node): boolean => {
    if (type !== "MemberExpression" || !isNode(object) || !isNode(property)) return false
    const [from, name] = [String(object["name"]), String(property["name"])]
    if (/^Fiber(Set|Map|Handle)$/.test(from)) return starts.test(name)
    return from === "Effect" && starts.test(name) && name !== "run"
  }
  const mentions = (node: Node): boolean => {
    const { object } = node
    if (node.type === "MemberExpression" && isNode(object) && object["name"] === "Supervised") return true
    return childrenOf(node).some(mentions)
  }
  visit(parse("a.ts", text).program)
  return found
}

const files = [...sourceFiles()].filter(([path]) => !path.startsWith("testing/"))

describe("background work", () => {
  it("is supervised, but for files that have a reason", () => {
    const isAllowed = new Set(allowed.map(({ file }) => file))
    const found = files.flatMap(([path, text]) =>
      isAllowed.has(path) ? [] : bareStarts(text).map((start) => `src/${path}:${start}; better: Supervised`)
    )
    assert.deepStrictEqual(found, [])
  })

  it("is started by each file that has a reason", () => {
    const starting = new Set(files.flatMap(([path, text]) => bareStarts(text).length > 0 ? [path] : []))
    assert.deepStrictEqual(allowed.filter(({ file }) => !starting.has(file)).map(({ file }) => file), [])
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
